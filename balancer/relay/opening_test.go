package relay

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pointsman/balancer/pgwire"
)

// What PostgreSQL's clients and servers say while a session opens.
var (
	sslRequest = packet(1234<<16|5679, "")
	gssRequest = packet(1234<<16|5680, "")
	startup    = packet(3<<16, "user\x00kine\x00database\x00kine\x00\x00")
	cancel     = packet(1234<<16|5678, "pid.key.")
	clientTLS  = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on"

	asksPassword  = pgMessage('R', "\x00\x00\x00\x0a"+"SCRAM-SHA-256\x00\x00")
	password      = pgMessage('p', "SCRAM-SHA-256\x00 n,,n=,r=UAU16uNAmHjvuwx45m6cHHAb")
	saslFinal     = pgMessage('R', "\x00\x00\x00\x0c"+"v=nknB4WdvayUywqDhPAUd15rPyDRiFCPPS8sbq9Lyuf0=")
	otherVersion  = pgMessage('v', "\x00\x03\x00\x00\x00\x00\x00\x00")
	authOK        = pgMessage('R', "\x00\x00\x00\x00")
	primary       = authOK + pgMessage('S', "in_hot_standby\x00off\x00") + readyForQuery
	standby       = authOK + pgMessage('S', "in_hot_standby\x00on\x00") + readyForQuery
	readyForQuery = pgMessage('S', "TimeZone\x00Etc/UTC\x00") + pgMessage('K', "\x00\x00\x26\x3b\xcb\x37\xae\xc3") + pgMessage('Z', "I")
)

// packet is what a client opens with: a length, a code, and what follows.
func packet(code uint32, rest string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
	return string(binary.BigEndian.AppendUint32(b, code)) + rest
}

// pgMessage is any later message.
func pgMessage(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))) + body
}

// fatal is an error as servers send it.
func fatal(code string) string {
	return pgMessage('E', "SFATAL\x00VFATAL\x00C"+code+"\x00Msomething\x00\x00")
}

// postgreSQL makes the frontend of a rig understand openings.
func postgreSQL(s *setup) { s.frontend.PostgreSQL, s.backend.Primary = true, true }

// line is what one side of a conversation does next.
type line func(c *net.TCPConn) error

// say writes each text by itself.
func say(texts ...string) line {
	return func(c *net.TCPConn) error {
		for i, text := range texts {
			if i > 0 {
				time.Sleep(time.Millisecond) // so that they arrive one by one
			}
			if _, err := io.WriteString(c, text); err != nil {
				return err
			}
		}
		return nil
	}
}

// want reads exactly this text.
func want(text string) line {
	return func(c *net.TCPConn) error {
		got := make([]byte, len(text))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != text {
			return fmt.Errorf("read %q (%v), want %q", got[:n], err, text)
		}
		return nil
	}
}

// wantOver wants the end of the connection, however it comes, and no byte before.
func wantOver(c *net.TCPConn) error {
	if n, err := io.Copy(io.Discard, c); n > 0 {
		return fmt.Errorf("%d bytes, and then %v", n, err)
	}
	return nil
}

func hangUp(c *net.TCPConn) error { return c.Close() }

func resetIt(c *net.TCPConn) error {
	_ = c.SetLinger(0)
	return c.Close()
}

// talk is a session that was opened: bytes go both ways, and it ends.
func talk(c *net.TCPConn) error {
	_, _ = io.Copy(struct{ io.Writer }{c}, c) // at the test's end it may be cut
	return nil
}

// actor is a server that plays the same lines for each connection.
type actor struct {
	net.Listener
	visits atomic.Int32
}

// act lets a server play; what is not in its lines is a fault.
func act(t testing.TB, lines ...line) *actor {
	a := &actor{}
	a.Listener = serve(t, func(c *net.TCPConn) {
		a.visits.Add(1)
		for i, play := range lines {
			if err := play(c); err != nil {
				t.Errorf("server, line %d: %v", i+1, err)
				return
			}
		}
	})
	return a
}

// do plays the client's lines.
func do(t testing.TB, c *net.TCPConn, lines ...line) {
	t.Helper()
	for i, play := range lines {
		if err := play(c); err != nil {
			t.Fatalf("client, line %d: %v", i+1, err)
		}
	}
}

// inTurn sends a client that has failed n times to the nth server, whose epoch
// is n+1.
func inTurn(servers ...net.Listener) func(Request) (Ticket, time.Duration) {
	return func(q Request) (Ticket, time.Duration) {
		n := min(q.Failures, len(servers)-1)
		return Ticket{Place: Slotted, Target: Target{Addr: addrOf(servers[n]), Server: int32(n), Epoch: Epoch(n + 1)}}, 0
	}
}

// goodbye ends a session from the client's side, and checks the books of it.
func (r *rig) goodbye(c *net.TCPConn, in, out int) {
	r.t.Helper()
	_ = c.CloseWrite()
	wantEnd(r.t, c, false)
	records := r.desk.ended(r.t, 1)
	if rec := records[0]; rec.Cause != Normal || !rec.Connected || rec.In != uint64(in) || rec.Out != uint64(out) {
		r.t.Errorf("record %+v, want %d bytes in, %d out", rec, in, out)
	}
}

// A client's opening arrives in two pieces, cut anywhere, with what it already
// says to the server behind it. The server gets all of it, in order.
func TestOpeningInPieces(t *testing.T) {
	r := newRig(t, postgreSQL)
	r.desk.take = func(*Record) {}
	pipelined := pgMessage('Q', "select 1\x00")
	all := startup + pipelined
	r.desk.setRoute(to(act(t, want(startup), say(primary), want(pipelined), talk), 0, 1))
	for cut := range len(all) {
		do(t, r.dial(), say(all[:cut], all[cut:]), want(primary), say("ping"), want("ping"))
	}
}

// Both sides send single bytes.
func TestOpeningByBytes(t *testing.T) {
	r := newRig(t, postgreSQL)
	server := act(t, want(sslRequest), say("N"), want(startup), say(strings.Split(otherVersion+asksPassword, "")...),
		want(password), say(strings.Split(saslFinal+primary, "")...), talk)
	r.desk.setRoute(to(server, 0, 1))
	c := r.dial()
	do(t, c, say(strings.Split(sslRequest, "")...), want("N"), say(strings.Split(startup, "")...), want(otherVersion+asksPassword),
		say(strings.Split(password, "")...), want(saslFinal+primary), say("ping"), want("ping"))
	r.goodbye(c, len(sslRequest+startup+password)+4, 1+len(otherVersion+asksPassword+saslFinal+primary)+4)
}

// A server's first words arrive in two pieces, cut anywhere: none of them comes
// to the client before it is decided, and then all do.
func TestReplyInPieces(t *testing.T) {
	r := newRig(t, postgreSQL)
	r.desk.take = func(*Record) {}
	var cut atomic.Int32
	halves := func(c *net.TCPConn) error { return say(primary[:cut.Load()], primary[cut.Load():])(c) }
	r.desk.setRoute(to(act(t, want(startup), halves, talk), 0, 1))
	for n := range len(primary) {
		cut.Store(int32(n))
		do(t, r.dial(), say(startup), want(primary), say("ping"), want("ping"))
	}
}

// The ways in which sessions open, each in one conversation with one server.
func TestOpenings(t *testing.T) {
	opaque := strings.Repeat("opaque ", 20_000)
	longest := packet(3<<16, "user\x00"+strings.Repeat("u", pgwire.MaxStartup-8-7)+"\x00\x00")
	notices := strings.Repeat(pgMessage('N', strings.Repeat("n", 1000)), 70) // more than is waited for
	for _, test := range []struct {
		name           string
		client, server []line
	}{
		{"trust", []line{say(startup), want(primary)}, []line{want(startup), say(primary)}},
		{"wrong password", []line{say(startup), want(fatal("28P01"))}, []line{want(startup), say(fatal("28P01"))}},
		{"no such database", []line{say(startup), want(authOK + fatal("3D000"))}, []line{want(startup), say(authOK + fatal("3D000"))}},
		{"an error of protocol 2", []line{say(startup), want("EFATAL:  no\n\x00")}, []line{want(startup), say("EFATAL:  no\n\x00")}},
		{"no protocol at all", []line{say(startup), want("\x15\x03\x01\x00\x02\x02\x0a")}, []line{want(startup), say("\x15\x03\x01\x00\x02\x02\x0a")}},
		{"ssl declined", []line{say(sslRequest), want("N"), say(startup), want(primary)}, []line{want(sslRequest), say("N"), want(startup), say(primary)}},
		{"ssl declined, client did not wait", []line{say(sslRequest + startup), want("N" + primary)}, []line{want(sslRequest), say("N"), want(startup), say(primary)}},
		{"gss and ssl declined", []line{say(gssRequest), want("N"), say(sslRequest), want("N"), say(startup), want(primary)},
			[]line{want(gssRequest), say("N"), want(sslRequest), say("N"), want(startup), say(primary)}},
		{"ssl accepted", []line{say(sslRequest), want("S"), say(opaque), want(opaque)}, []line{want(sslRequest), say("S"), want(opaque), say(opaque)}},
		{"gss accepted", []line{say(gssRequest), want("G"), say(opaque), want(opaque)}, []line{want(gssRequest), say("G"), want(opaque), say(opaque)}},
		{"ssl is an error", []line{say(sslRequest), want(fatal("0A000"))}, []line{want(sslRequest), say(fatal("0A000"))}},
		{"tls at once", []line{say(clientTLS), want("\x16 server"), say(opaque), want(opaque)}, []line{want(clientTLS), say("\x16 server"), want(opaque), say(opaque)}},
		{"a server's tls looks like an error", []line{say(clientTLS), want(fatal("57P03"))}, []line{want(clientTLS), say(fatal("57P03"))}},
		{"scram", []line{say(startup), want(asksPassword), say(password), want(saslFinal + primary)},
			[]line{want(startup), say(asksPassword), want(password), say(saslFinal + primary)}},
		{"scram, cut", []line{say(startup), want(asksPassword), say(password), want(saslFinal + primary)},
			[]line{want(startup), say(asksPassword[:3], asksPassword[3:]), want(password), say(saslFinal, authOK, primary[len(authOK):])}},
		{"shut down after the password", []line{say(startup), want(asksPassword), say(password), want(saslFinal + authOK + fatal("57P03"))},
			[]line{want(startup), say(asksPassword), want(password), say(saslFinal + authOK + fatal("57P03"))}},
		{"the longest startup", []line{say(longest), want(primary)}, []line{want(longest), say(primary)}},
		{"a long login", []line{say(startup), want(notices + primary)}, []line{want(startup), say(notices + primary)}},
		{"a long login after the password", []line{say(startup), want(asksPassword), say(password), want(notices + primary)},
			[]line{want(startup), say(asksPassword), want(password), say(notices + primary)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, change := range map[string]func(*setup){"": func(*setup) {}, "tiny": func(s *setup) { s.tune.sndbuf = 2 << 10; s.tune.scratch = 16 << 10 }} {
				r := newRig(t, postgreSQL, change)
				r.desk.take = func(*Record) {}
				server := act(t, append(test.server, talk)...)
				r.desk.setRoute(to(server, 0, 1))
				c := r.dial()
				do(t, c, test.client...)
				do(t, c, say("ping"), want("ping"))
				if server.visits.Load() != 1 || len(r.desk.seen()) > 0 {
					t.Errorf("%s: %d connects, events %+v", name, server.visits.Load(), r.desk.seen())
				}
			}
		})
	}
}

// A CancelRequest goes to the server that Route names for it, and its end too;
// with none it is closed without a word.
func TestCancelRequest(t *testing.T) {
	for _, far := range []bool{true, false} {
		t.Run(fmt.Sprint("leader ", far), func(t *testing.T) {
			r := newRig(t, postgreSQL)
			server := act(t, want(cancel), wantOver)
			r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
				if !q.Cancel {
					t.Error("Route is not told that it is a CancelRequest")
				}
				if !far {
					return Ticket{}, 0
				}
				return to(server, 0, 1)(q)
			})
			c := r.dial()
			do(t, c, say(cancel[:5], cancel[5:]))
			if far {
				eventually(t, "a CancelRequest at the server", func() bool { _, s := r.Counters(); return s[0].In == uint64(len(cancel)) })
				r.goodbye(c, len(cancel), 0)
				return
			}
			wantEnd(t, c, false)
			if rec := r.desk.ended(t, 1)[0]; rec.Cause != Denied {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A CancelRequest whose client leaves at once still arrives.
func TestCancelAndLeave(t *testing.T) {
	r := newRig(t, postgreSQL)
	got := make(chan error, 1)
	server := act(t, func(c *net.TCPConn) error { got <- want(cancel)(c); return wantOver(c) })
	r.desk.setRoute(to(server, 0, 1))
	do(t, r.dial(), say(cancel), hangUp)
	if err := await(t, "the CancelRequest", got); err != nil {
		t.Error(err)
	}
	r.desk.ended(t, 1)
}

// What is no opening costs no server anything, and the log little.
func TestMalformed(t *testing.T) {
	r := newRig(t, postgreSQL)
	for n, text := range []string{
		"GET / HTTP/1.1\r\nHost: db\r\n\r\n", "SSH-2.0-OpenSSH_9.2p1\r\n", "\x00\x00\x00\x09\x04\xd2\x16\x2f\x00", packet(2<<16, "user\x00kine\x00\x00"),
		packet(3<<16, "user\x00kine\x00"), packet(3<<16, "user\x00kine\x00\x00more"), packet(3<<16, ""), "\x7f\xff\xff\xff\x00\x03\x00\x00", strings.Repeat("\xff", 30_000),
		"\x00\x00\x27\x15\x00\x03\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		c := r.dial()
		do(t, c, say(text), wantOver)
		if rec := r.desk.ended(t, n+1)[n]; rec.Cause != Malformed || rec.Connected || rec.Ticket.Place != Nowhere || !rec.Greeting || rec.In != 0 {
			t.Errorf("%.20q: record %+v", text, rec)
		}
	}
	if r.desk.asked > 0 {
		t.Errorf("Route was asked %d times", r.desk.asked)
	}
	if n := strings.Count(r.log.String(), "\n"); n != mostExcuses {
		t.Errorf("%d lines in the log, want %d:\n%s", n, mostExcuses, r.log)
	}
	if !strings.Contains(r.log.String(), `GET / HTTP/1.1`) || !strings.Contains(r.log.String(), "client=127.0.0.1:") {
		t.Errorf("the log does not tell who said what:\n%s", r.log)
	}
	// Who knows how to open is served.
	r.desk.setRoute(to(act(t, want(startup), say(primary), talk), 0, 1))
	do(t, r.dial(), say(startup), want(primary))
}

// After a server has declined encryption, a client may do all that it did before.
func TestNonsenseAfterDecline(t *testing.T) {
	for name, second := range map[string]string{"tls": clientTLS, "http": "GET / HTTP/1.1\r\n\r\n", "zeros": strings.Repeat("\x00", 20), "cancel": cancel} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, postgreSQL)
			server := act(t, want(sslRequest), say("N"), func(c *net.TCPConn) error { _, _ = io.Copy(io.Discard, c); return nil })
			r.desk.setRoute(to(server, 0, 1))
			c := r.dial()
			do(t, c, say(sslRequest), want("N"), say(second))
			_ = c.CloseWrite()
			do(t, c, wantOver)
			rec := r.desk.ended(t, 1)[0]
			if passes := name == "tls" || name == "cancel"; passes != (rec.Cause == Normal) || !passes && rec.Cause != Malformed {
				t.Errorf("record %+v", rec)
			}
		})
	}
}
