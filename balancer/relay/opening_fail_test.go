package relay

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pointsman/balancer/pgwire"
)

// refusing is a server that refuses connects.
func refusing(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l
}

// failures are the ways in which a server has no session for an opening.
func failures(t testing.TB, opening string) map[string]net.Listener {
	said := func(texts ...string) net.Listener { return act(t, want(opening), say(texts...), wantGone) }
	ends := func(end line, texts ...string) net.Listener { return act(t, want(opening), say(texts...), end) }
	half := fatal("57P03")[:12]
	all := map[string]net.Listener{
		"refused":           refusing(t),
		"FIN at once":       act(t, hangUp),
		"RST at once":       act(t, resetIt),
		"FIN":               ends(hangUp),
		"RST":               ends(resetIt),
		"half an error FIN": ends(hangUp, half),
		"half an error RST": ends(resetIt, half),
	}
	if opening == startup {
		for name, l := range map[string]net.Listener{
			"57P03":                 said(fatal("57P03")),
			"57P03, cut":            said(append(strings.Split(fatal("57P03")[:20], ""), fatal("57P03")[20:])...),
			"57P03 FIN":             ends(hangUp, fatal("57P03")),
			"57P01":                 said(fatal("57P01")),
			"57P02":                 said(fatal("57P02")),
			"another version 57P03": said(otherVersion, fatal("57P03")),
			"ok 57P01":              said(authOK, fatal("57P01")),
			"half a login FIN":      ends(hangUp, primary[:len(primary)-1]),
			"half a login RST":      ends(resetIt, primary[:20]),
			"no session on standby": said(standby),
			"half a question FIN":   ends(hangUp, asksPassword[:7]),
		} {
			all[name] = l
		}
	}
	return all
}

// wantGone wants the end of the connection, and takes it as it comes.
func wantGone(c *net.TCPConn) error {
	if n, err := io.Copy(io.Discard, c); n > 0 {
		return fmt.Errorf("%d bytes more, and then %v", n, err)
	}
	return nil
}

// A server that has no session for a client is left for the next, which gets
// exactly what the client said; the client notices nothing. Some are held in
// between.
func TestServerThatWillNot(t *testing.T) {
	for name, first := range failures(t, startup) {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " held ", held), func(t *testing.T) {
				r := newRig(t, postgreSQL)
				second := act(t, want(startup), say(primary), talk)
				route := inTurn(first, second)
				if held {
					r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
						if q.Failures > 0 {
							return Ticket{Place: Held}, time.Minute
						}
						return route(q)
					})
				} else {
					r.desk.setRoute(route)
				}
				c := r.dial()
				do(t, c, say(startup))
				if held {
					eventually(t, "a held client", func() bool { return r.desk.count(Held) == 1 })
					r.desk.setRoute(route)
					r.Wake(0)
				}
				do(t, c, want(primary), say("ping"), want("ping"))
				kind, n := ServerNotAccepting, 1
				switch {
				case name == "refused":
					kind = ConnectRefused
				case strings.Contains(name, "standby"):
					kind = ServerStandby
				}
				if events := r.desk.seen(); len(events) != n || events[0].Kind != kind && !strings.Contains(name, "RST at once") || events[0].Server != 0 || events[0].Epoch != 1 {
					t.Errorf("events %+v", events)
				}
				r.goodbye(c, len(startup)+4, len(primary)+4)
				if rec := r.desk.ended(t, 1)[0]; rec.Failures != 1 {
					t.Errorf("record %+v", rec)
				}
				if name != "57P03" {
					return // counts are published now and then only
				}
				eventually(t, "what is counted", func() bool {
					_, s := r.Counters()
					return s[0].Total == 0 && s[0].Refused == 1 && s[0].In == 0 && s[0].Current == 0 && s[1].Total == 1 && s[1].Current == 0
				})
			})
		}
	}
}

// A client that was told that there is no encryption is told so once, whichever
// server has its session in the end.
func TestToldOnce(t *testing.T) {
	firsts := map[string]net.Listener{
		"dies with its N":    act(t, want(sslRequest), say("N"), hangUp),
		"resets with its N":  act(t, want(sslRequest), say("N"), resetIt),
		"57P03":              act(t, want(sslRequest), say("N"), want(startup), say(fatal("57P03")), wantGone),
		"FIN":                act(t, want(sslRequest), say("N"), want(startup), hangUp),
		"RST":                act(t, want(sslRequest), say("N"), want(startup), resetIt),
		"57P03 instead of N": act(t, want(sslRequest), say(fatal("57P03")), wantGone),
	}
	for name, l := range failures(t, sslRequest) {
		firsts["no N, "+name] = l
	}
	for name, first := range firsts {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, postgreSQL)
			gone := make(chan struct{}, 1)
			second := act(t, want(startup), say(primary), talk)
			if strings.Contains(name, "no N") || strings.Contains(name, "instead") {
				second = act(t, want(sslRequest), say("N"), want(startup), say(primary), talk)
			}
			route := inTurn(first, second)
			r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
				select {
				case <-gone:
					q.Failures = 1
				default:
				}
				return route(q)
			})
			c := r.dial()
			do(t, c, say(sslRequest), want("N"))
			if strings.Contains(name, "with its N") {
				// The loop knows of the server's end before the client speaks.
				if gone <- struct{}{}; !strings.Contains(name, "resets") {
					eventually(t, "a server that is given back", func() bool { return r.desk.count(Slotted) == 0 })
				}
			}
			do(t, c, say(startup), want(primary), say("ping"), want("ping"))
			r.goodbye(c, len(sslRequest+startup)+4, 1+len(primary)+4)
		})
	}
}

// Servers that fail one after the other, until the last one takes the client.
func TestManyServersThatWillNot(t *testing.T) {
	r := newRig(t, postgreSQL)
	var servers []net.Listener
	for _, l := range failures(t, startup) {
		servers = append(servers, l)
	}
	servers = append(servers, act(t, want(startup), say(asksPassword), want(password), say(saslFinal+primary), talk))
	r.desk.setRoute(inTurn(servers...))
	c := r.dial()
	do(t, c, say(startup), want(asksPassword), say(password), want(saslFinal+primary), say("ping"), want("ping"))
	r.goodbye(c, len(startup+password)+4, len(asksPassword+saslFinal+primary)+4)
}

// What is the client's own business comes to it, and to no other server.
func TestClientsOwnBusiness(t *testing.T) {
	for name, lines := range map[string][2][]line{
		"error, FIN":          {{say(startup), want(fatal("28000")), wantOver}, {want(startup), say(fatal("28000")), hangUp}},
		"question, FIN":       {{say(startup), want(asksPassword), wantOver}, {want(startup), say(asksPassword), hangUp}},
		"question, 57P03":     {{say(startup), want(asksPassword), say(password), want(fatal("57P03")), wantOver}, {want(startup), say(asksPassword), want(password), say(fatal("57P03")), hangUp}},
		"question, half, FIN": {{say(startup), want(asksPassword), say(password), want(saslFinal + authOK), wantOver}, {want(startup), say(asksPassword), want(password), say(saslFinal + authOK), hangUp}},
		"S, FIN":              {{say(sslRequest), want("S"), wantOver}, {want(sslRequest), say("S"), hangUp}},
		"ready, 57P01":        {{say(startup), want(primary + fatal("57P01")), wantOver}, {want(startup), say(primary + fatal("57P01")), hangUp}},
		"tls, FIN":            {{say(clientTLS), wantOver}, {want(clientTLS), hangUp}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, postgreSQL)
			r.desk.setRoute(inTurn(act(t, lines[1]...), act(t)))
			c := r.dial()
			do(t, c, lines[0]...)
			_ = c.Close()
			if rec := r.desk.ended(t, 1)[0]; rec.Ticket.Target.Server != 0 || !rec.Connected || rec.Failures != 0 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A session on a server that turns out to be in hot standby is not begun, if the
// servers are to be writable. After its password a client cannot begin anew: it
// is told.
func TestStandby(t *testing.T) {
	play := []line{want(startup), say(asksPassword), want(password), say(saslFinal, standby), wantGone}
	for name, server := range map[string][]line{
		"at once": play, "question behind a version": append([]line{want(startup), say(otherVersion, asksPassword)}, play[2:]...),
		"md5":      append([]line{want(startup), say(asksPassword), want(password), say(standby)}, wantGone),
		"in bytes": append([]line{want(startup), say(asksPassword), want(password), say(strings.Split(saslFinal+standby, "")...)}, wantGone),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, postgreSQL)
			r.desk.setRoute(inTurn(act(t, server...)))
			c := r.dial()
			question := asksPassword
			if strings.Contains(name, "version") {
				question = otherVersion + asksPassword
			}
			do(t, c, say(startup), want(question), say(password))
			wantFatal(t, c, "hot standby")
			if r.desk.saw(ServerStandby) != 1 {
				t.Errorf("events %+v", r.desk.seen())
			}
			if rec := r.desk.ended(t, 1)[0]; rec.Cause != ServerAborted {
				t.Errorf("record %+v", rec)
			}
		})
	}
	t.Run("for readers", func(t *testing.T) {
		r := newRig(t, postgreSQL, func(s *setup) { s.backend.Primary = false })
		r.desk.take = func(*Record) {}
		r.desk.setRoute(inTurn(act(t, want(startup), say(standby), talk)))
		do(t, r.dial(), say(startup), want(standby), say("ping"), want("ping"))
		r.desk.setRoute(inTurn(act(t, want(startup), say(asksPassword), want(password), say(saslFinal+standby), talk)))
		do(t, r.dial(), say(startup), want(asksPassword), say(password), want(saslFinal+standby), say("ping"), want("ping"))
		if len(r.desk.seen()) > 0 {
			t.Errorf("events %+v", r.desk.seen())
		}
	})
}

// wantFatal wants an error that PostgreSQL's clients understand, and the end.
func wantFatal(t testing.TB, c *net.TCPConn, text string) {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if v, _ := pgwire.Reply(pgwire.Startup, b); v != pgwire.Unavailable || !strings.Contains(string(b), text) || len(b) != 1+int(b[3])<<8+int(b[4]) {
		t.Fatalf("%q", b)
	}
}

// A client that waited in vain is told why, if it speaks in clear text.
func TestHoldEnds(t *testing.T) {
	for name, said := range map[string]string{"startup": startup, "ssl": sslRequest, "gss": gssRequest, "tls": clientTLS, "cancel": cancel} {
		for _, after := range []time.Duration{0, 50 * time.Millisecond} {
			t.Run(fmt.Sprint(name, " ", after), func(t *testing.T) {
				r := newRig(t, postgreSQL)
				r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
					if q.Waited >= after {
						return Ticket{}, 0
					}
					return Ticket{Place: Held}, after
				})
				c := r.dial()
				do(t, c, say(said))
				switch name {
				case "tls":
					_, _ = io.Copy(io.Discard, c) // it was not read: an RST
				case "cancel":
					wantEnd(t, c, false)
				default:
					wantFatal(t, c, "no server")
				}
				rec := r.desk.ended(t, 1)[0]
				if rec.Connected || rec.Cause != Denied && rec.Cause != ServerTimeout {
					t.Errorf("record %+v", rec)
				}
			})
		}
	}
}

// Also who met servers that would not, and one that was told of no encryption.
func TestHoldEndsAfterFailure(t *testing.T) {
	for name, first := range map[string]*actor{
		"57P03":    act(t, want(startup), say(fatal("57P03")), wantGone),
		"N, 57P03": act(t, want(sslRequest), say("N"), want(startup), say(fatal("57P03")), wantGone),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, postgreSQL)
			route := inTurn(first)
			r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
				if q.Failures > 0 {
					return Ticket{Place: Held}, 100 * time.Millisecond
				}
				return route(q)
			})
			c := r.dial()
			if strings.HasPrefix(name, "N") {
				do(t, c, say(sslRequest), want("N"))
			}
			do(t, c, say(startup))
			wantFatal(t, c, "no server")
			if rec := r.desk.ended(t, 1)[0]; rec.Cause != ServerTimeout || rec.Failures != 1 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A large opening meets a server that takes little at a time, and one that dies
// over it.
func TestOpeningIsTakenSlowly(t *testing.T) {
	longest := packet(3<<16, "user\x00"+strings.Repeat("u", pgwire.MaxStartup-8-7)+"\x00\x00")
	for _, dies := range []bool{false, true} {
		t.Run(fmt.Sprint("dies ", dies), func(t *testing.T) {
			r := newRig(t, postgreSQL, func(s *setup) { s.tune.sndbuf = 1 })
			fd, err := listenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeFD(fd) })
			setsockopt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
			at, err := localAddr(fd)
			if err != nil {
				t.Fatal(err)
			}
			second := act(t, want(longest), say(primary), talk)
			slow := toAddr(at, 0, 1)
			r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
				if q.Failures > 0 {
					return to(second, 1, 2)(q)
				}
				return slow(q)
			})
			c := r.dial()
			do(t, c, say(longest))
			var server int32
			eventually(t, "a connect", func() bool {
				var errno unix.Errno
				server, _, errno = accept(fd)
				return errno == 0
			})
			defer func() { closeFD(server) }()
			var got []byte
			b := make([]byte, 512)
			eventually(t, "the opening", func() bool {
				n, _ := recv(server, b)
				got = append(got, b[:n]...)
				return len(got) == len(longest) || dies && len(got) > 1000
			})
			if dies {
				closeFD(server)
				server = -1
			} else {
				if string(got) != longest {
					t.Error("the server got another opening")
				}
				_, _ = send(server, []byte(primary))
			}
			do(t, c, want(primary))
		})
	}
}
