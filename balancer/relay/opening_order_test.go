package relay

import (
	"io"
	"net"
	"testing"
	"time"
)

// phase is how far a client has come with its first server, and how it goes on
// with the second, which a server of the same lines must see.
type phase struct {
	name            string
	client          []line // until the phase is reached
	first           []line // of the first server until then; nil = none is asked
	rest            []line // of the client
	second          []line
	greeting, asked bool // the client is to speak; it was told something that no other server knows of
}

var phases = []phase{
	{name: "silent", greeting: true, rest: []line{say(startup), want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "half an opening", greeting: true, client: []line{say(startup[:9])}, rest: []line{say(startup[9:]), want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "half a header", greeting: true, client: []line{say(startup[:3])}, rest: []line{say(startup[3:]), want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "opening", client: []line{say(startup)}, first: []line{want(startup)}, rest: []line{want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "opening, more behind it", client: []line{say(startup + password)}, first: []line{want(startup)},
		rest: []line{want(asksPassword + primary)}, second: []line{want(startup), say(asksPassword), want(password), say(primary)}},
	{name: "half a login", client: []line{say(startup)}, first: []line{want(startup), say(primary[:20])}, rest: []line{want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "half an error", client: []line{say(startup)}, first: []line{want(startup), say(fatal("57P03")[:9])}, rest: []line{want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "ssl", client: []line{say(sslRequest)}, first: []line{want(sslRequest)},
		rest: []line{want("N"), say(startup), want(primary)}, second: []line{want(sslRequest), say("N"), want(startup), say(primary)}},
	{name: "ssl declined", greeting: true, client: []line{say(sslRequest), want("N")}, first: []line{want(sslRequest), say("N")},
		rest: []line{say(startup), want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "ssl declined, half an opening", greeting: true, client: []line{say(sslRequest), want("N"), say(startup[:9])}, first: []line{want(sslRequest), say("N")},
		rest: []line{say(startup[9:]), want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "ssl declined, gss", client: []line{say(sslRequest), want("N"), say(gssRequest)}, first: []line{want(sslRequest), say("N"), want(gssRequest)},
		rest: []line{want("N"), say(startup), want(primary)}, second: []line{want(gssRequest), say("N"), want(startup), say(primary)}},
	{name: "ssl declined, opening", client: []line{say(sslRequest), want("N"), say(startup)}, first: []line{want(sslRequest), say("N"), want(startup)},
		rest: []line{want(primary)}, second: []line{want(startup), say(primary)}},
	{name: "asked", client: []line{say(startup), want(asksPassword)}, first: []line{want(startup), say(asksPassword)}, asked: true},
	{name: "asked, half a login", client: []line{say(startup), want(asksPassword), say(password)},
		first: []line{want(startup), say(asksPassword), want(password), say(saslFinal + authOK)}, asked: true},
}

// begin brings a client into a phase, with epoch 1 of the first server. The loop
// has seen all that was said when it returns.
func (p *phase) begin(t *testing.T, r *rig) (c *net.TCPConn, ended <-chan error) {
	t.Helper()
	reached, over := make(chan struct{}), make(chan error, 1)
	lines := append(append([]line{}, p.first...), func(c *net.TCPConn) error {
		close(reached)
		n, err := io.Copy(io.Discard, c)
		if n > 0 {
			t.Errorf("the first server got %d bytes more", n)
		}
		over <- err
		return nil
	})
	r.desk.setRoute(to(act(t, lines...), 0, 1))
	c = r.dial()
	do(t, c, p.client...)
	if p.first != nil {
		await(t, "the phase", reached)
	}
	// The loop takes events in their order.
	r.desk.setRoute(to(act(t, want(startup), say(primary), talk), 8, 9))
	do(t, r.dial(), say(startup), want(primary), say("ping"), want("ping"))
	return c, over
}

// A fence or a recall meets clients in each phase. Those that were told nothing
// go on with another server, and do not notice.
func TestOrdersWhileOpening(t *testing.T) {
	for _, p := range phases {
		for _, order := range []string{"fence", "recall"} {
			t.Run(p.name+", "+order, func(t *testing.T) {
				r := newRig(t, postgreSQL, func(s *setup) { s.Loops = 1 })
				c, over := p.begin(t, r)
				r.desk.setRoute(to(act(t, append(p.second, talk)...), 1, 2))
				if order == "fence" {
					if n := r.Fence(1, MarkedDown)(); n != 0 && !p.asked || n != 1 && p.asked {
						t.Errorf("%d sessions end", n)
					}
				} else {
					r.Recall(1)
				}
				switch {
				case !p.asked:
					if p.first != nil {
						if err := await(t, "the end at the first server", over); err == nil {
							t.Error("the first server saw a clean end")
						}
					}
					do(t, c, p.rest...)
					do(t, c, say("ping"), want("ping"))
					if len(r.desk.seen()) > 0 {
						t.Errorf("events %+v", r.desk.seen())
					}
				case order == "fence":
					do(t, c, wantOver)
					if rec := r.desk.ended(t, 1)[0]; rec.Cause != MarkedDown || rec.Ticket.Target.Epoch != 1 {
						t.Errorf("record %+v", rec)
					}
				default: // it stays where it is
					_ = c.CloseWrite()
					if err := await(t, "the end at the first server", over); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// A client leaves in each phase, or is sent away: its places come back, and its
// server learns of it.
func TestEndsWhileOpening(t *testing.T) {
	for _, p := range phases {
		for _, how := range []string{"FIN", "RST", "kill"} {
			if how == "FIN" && !p.greeting && !p.asked && p.name != "opening" {
				continue // they are all alike, and take slowConnect each
			}
			t.Run(p.name+", "+how, func(t *testing.T) {
				r := newRig(t, postgreSQL, func(s *setup) { s.Loops = 1 })
				c, over := p.begin(t, r)
				cause := ClientAborted
				switch {
				case how == "RST":
					_ = c.SetLinger(0)
					_ = c.Close()
				case how == "kill":
					cause = Killed
					if n := r.KillFrontend(0, Killed)(); n != 1 && !p.asked || n != 2 && p.asked { // one is begin's
						t.Errorf("%d sessions end", n)
					}
				case p.asked:
					cause = Normal
					fallthrough
				default:
					_ = c.Close()
				}
				if p.first != nil {
					await(t, "the end at the server", over)
				}
				eventually(t, "a record", func() bool {
					r.desk.mu.Lock()
					defer r.desk.mu.Unlock()
					for _, rec := range r.desk.records {
						if rec.Ticket.Target.Server != 8 {
							return rec.Cause == cause && rec.Connected == p.asked && rec.Greeting == p.greeting
						}
					}
					return false
				})
			})
		}
	}
}

// postgreSQLStepper is a stepper whose frontend understands openings.
func postgreSQLStepper(t *testing.T) *stepper {
	s := newStepper(t)
	s.SetFrontend(0, FrontendOptions{LogSessions: true, PostgreSQL: true})
	return s
}

// later moves the loop's clock.
func (s *stepper) later(d time.Duration) { s.Engine.started = s.Engine.started.Add(-d) }

// A client may take its time to speak, but not for ever, and neither while a
// server waits for it.
func TestGreetingLimit(t *testing.T) {
	for _, declined := range []bool{false, true} {
		s := postgreSQLStepper(t)
		s.desk.setRoute(to(act(t, want(sslRequest), say("N"), wantGone), 0, 1))
		c := s.dial()
		if declined {
			do(t, c, say(sslRequest))
			s.until("N", func() bool {
				return s.desk.count(Slotted) == 1 && s.loop.sessions.live == 1 && s.session(0).state == greeting
			})
		}
		do(t, c, say(startup[:9]))
		s.until("a client", func() bool { return s.loop.sessions.live == 1 })
		s.later(greetingLimit - time.Second)
		for range 20 {
			s.Recall(0)
			s.loop.round()
		}
		if s.loop.sessions.live != 1 {
			t.Fatal("it ended early")
		}
		s.later(2 * time.Second)
		s.until("the end", func() bool { return s.loop.sessions.live == 0 })
		if rec := s.desk.ended(t, 1)[0]; rec.Cause != ClientTimeout || !rec.Greeting {
			t.Errorf("record %+v", rec)
		}
	}
}

// A server that lets a client wait is told of, once per opening; a client that
// lets the server wait is not the server's fault.
func TestSlowReply(t *testing.T) {
	s := postgreSQLStepper(t)
	got := make(chan struct{})
	told := func(*net.TCPConn) error { close(got); return nil }
	s.desk.setRoute(to(act(t, want(sslRequest), say("N"), want(startup), told, wantGone), 0, 1))
	c := s.dial()
	do(t, c, say(sslRequest))
	s.until("N", func() bool {
		return s.loop.sessions.live == 1 && s.session(0).state == greeting && s.session(0).server == 0
	})
	s.later(10 * time.Second)
	do(t, c, say(startup))
	s.until("the opening", func() bool { return s.session(0).state == opening })
	await(t, "the opening", got)
	for range 20 {
		s.Recall(0)
		s.loop.round()
	}
	if len(s.desk.seen()) > 0 {
		t.Errorf("events %+v", s.desk.seen())
	}
	s.later(slowConnect)
	s.until("an event", func() bool { return len(s.desk.seen()) > 0 })
	s.later(time.Minute)
	for range 20 {
		s.Recall(0)
		s.loop.round()
	}
	if s.desk.saw(ConnectSlow) != 1 || len(s.desk.seen()) != 1 {
		t.Errorf("events %+v", s.desk.seen())
	}
	// Who leaves a server that does not answer does not keep its slot for it.
	_ = c.Close()
	s.until("the end", func() bool { return s.loop.sessions.live == 0 })
}
