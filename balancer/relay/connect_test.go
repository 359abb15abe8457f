package relay

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is an address where connects are refused.
func nobody(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return addrOf(l)
}

// blackHole is an address where connects stay without an answer: a listener
// whose backlog is full. answer opens it: the next SYN is accepted.
func blackHole(t testing.TB) (at netip.AddrPort, fd int32) {
	t.Helper()
	fd, err := listenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(fd) })
	if err := unix.Listen(int(fd), 0); err != nil {
		t.Fatal(err)
	}
	at, err = localAddr(fd)
	if err != nil {
		t.Fatal(err)
	}
	// A backlog of 0 takes one; the second completes on its side only in
	// kernels that answer the SYN first, so fill until nothing connects.
	for range 10 {
		c, err := net.DialTimeout("tcp", at.String(), 50*time.Millisecond)
		if err != nil {
			return at, fd
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the backlog never filled")
	return
}

// takeAll accepts everything that waits at a black hole, and returns what the
// peers wrote there.
func takeAll(t testing.TB, fd int32) (bytes int) {
	t.Helper()
	for {
		conn, _, errno := accept(fd)
		if errno != 0 {
			return bytes
		}
		b := make([]byte, 1024)
		n, _ := recv(conn, b)
		bytes += n
		closeFD(conn)
	}
}

func TestHeldClientKeepsItsBytes(t *testing.T) {
	r := newRig(t)
	r.desk.setRoute(hold(time.Minute))
	c := r.dial()
	const size = 8 << 20
	sent := make(chan error, 1)
	go func() { sent <- sendStream(c, 9, size) }()
	eventually(t, "a held client", func() bool { return r.desk.count(Held) == 1 })
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	r.Wake(0)
	s := await(t, "the server's side", conns)
	if err := wantStream(io.LimitReader(s, size), 9, size); err != nil {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	ping2(t, c, s)
	if got := r.desk.count(Held); got != 0 {
		t.Errorf("%d places are still held", got)
	}
	_ = c.Close()
	_ = s.Close()
	if rec := r.desk.ended(t, 1)[0]; rec.In != size+4 || rec.Out != 4 {
		t.Errorf("record %+v", rec)
	}
}

// ping2 sends a word each way.
func ping2(t testing.TB, client, server net.Conn) {
	t.Helper()
	_, _ = io.WriteString(client, "ping")
	wantText(t, server, "ping")
	_, _ = io.WriteString(server, "pong")
	wantText(t, client, "pong")
}

func TestHeldClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"fin":            func(c *net.TCPConn) { _ = c.Close() },
		"fin after data": func(c *net.TCPConn) { _, _ = io.WriteString(c, "hello"); _ = c.Close() },
		"reset":          func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := r.dial()
			eventually(t, "a held client", func() bool { return r.desk.count(Held) == 1 })
			leave(c)
			rec := r.desk.ended(t, 1)[0]
			if rec.Cause != ClientAborted || rec.Connected || rec.Ticket.Place != Held || rec.Ticket.Target.Server != -1 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A client that left while its connect was under way is not held afterwards.
func TestClientLeavesBeforeItIsHeld(t *testing.T) {
	hole, _ := blackHole(t)
	r := newRig(t)
	r.desk.setRoute(toAddr(hole, 0, 1))
	c := r.dial()
	eventually(t, "a connect", func() bool { return r.desk.count(Slotted) == 1 })
	_ = c.Close()
	time.Sleep(5 * time.Millisecond) // the FIN alone ends no connect
	if r.desk.count(Slotted) != 1 {
		t.Error("a FIN ended a connect")
	}
	r.desk.setRoute(hold(time.Minute))
	r.Recall(1)
	if rec := r.desk.ended(t, 1)[0]; rec.Cause != ClientAborted {
		t.Errorf("cause %d", rec.Cause)
	}
}

// A client that resets while its connect is under way ends it.
func TestClientResetsConnect(t *testing.T) {
	hole, _ := blackHole(t)
	r := newRig(t, func(s *setup) { s.backend.TimeoutConnect = time.Minute })
	r.desk.setRoute(toAddr(hole, 0, 1))
	c := r.dial()
	eventually(t, "a connect", func() bool { return r.desk.count(Slotted) == 1 })
	_ = c.SetLinger(0)
	_ = c.Close()
	if rec := r.desk.ended(t, 1)[0]; rec.Cause != ClientAborted || rec.Connected {
		t.Errorf("record %+v", rec)
	}
}

func TestHoldLimit(t *testing.T) {
	r := newRig(t)
	r.desk.setRoute(hold(60 * time.Millisecond))
	begin := time.Now()
	c := r.dial()
	wantEnd(t, c, false)
	if took := time.Since(begin); took < 60*time.Millisecond {
		t.Errorf("closed after %v", took)
	}
	rec := r.desk.ended(t, 1)[0]
	if rec.Cause != ServerTimeout || rec.Waited < 60*time.Millisecond {
		t.Errorf("record %+v", rec)
	}
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	if r.desk.asked < 3 {
		t.Errorf("asked %d times in three times Retry", r.desk.asked)
	}
}

func TestRefusedByRoute(t *testing.T) {
	r := newRig(t)
	r.desk.setRoute(func(Request) (Ticket, time.Duration) { return Ticket{}, 0 })
	wantEnd(t, r.dial(), false)
	if rec := r.desk.ended(t, 1)[0]; rec.Cause != Denied {
		t.Errorf("cause %d", rec.Cause)
	}
	eventually(t, "a count", func() bool { f, _ := r.Counters(); return f[0].Refused == 1 && f[0].Ended[Denied] == 1 })
}

func TestRefusedConnectGoesBackToRoute(t *testing.T) {
	r := newRig(t)
	bad, good := nobody(t), serve(t, echo)
	second := make(chan Request, 1)
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		if q.Failures == 0 {
			return toAddr(bad, 3, 5)(q)
		}
		second <- q
		return to(good, 4, 6)(q)
	})
	c := r.dial()
	ping(t, c, "hello")
	q := <-second
	if q.Failed != 3 || q.Failures != 1 || q.Have.Place != Slotted || q.Have.Target.Addr != bad || q.Have.Target.Epoch != 5 {
		t.Errorf("asked again with %+v", q)
	}
	if got := r.desk.seen(); len(got) != 1 || got[0] != (Event{ConnectRefused, 3, 5}) {
		t.Errorf("events %+v", got)
	}
	_ = c.Close()
	rec := r.desk.ended(t, 1)[0]
	if rec.Failures != 1 || rec.Ticket.Target.Server != 4 || rec.Cause != Normal {
		t.Errorf("record %+v", rec)
	}
	eventually(t, "a count", func() bool { _, s := r.Counters(); return s[3].Refused == 1 && s[4].Ended[Normal] == 1 })
}

// A client that was held is known as such when its connect failed, so that it is
// counted once.
func TestWasHeld(t *testing.T) {
	r := newRig(t)
	bad := nobody(t)
	var asked []bool
	last := make(chan []bool, 1)
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		switch asked = append(asked, q.WasHeld); len(asked) {
		case 1:
			return Ticket{Place: Held}, time.Minute
		case 2:
			return toAddr(bad, 3, 5)(q)
		}
		last <- asked
		return Ticket{}, 0
	})
	wantEnd(t, r.dial(), false)
	if got := <-last; got[0] || !got[1] || !got[2] {
		t.Errorf("WasHeld %v at the three questions", got)
	}
}

// A Route that always answers the same dead server must not make the loop spin.
func TestRefusedForEver(t *testing.T) {
	for name, servers := range map[string]int32{"one server": 1, "two in turn": 2} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			bad := nobody(t)
			r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
				if q.Waited > 200*time.Millisecond {
					return Ticket{}, 0
				}
				return toAddr(bad, int32(q.Failures)%servers, 1)(q)
			})
			wantEnd(t, r.dial(), false)
			rec := r.desk.ended(t, 1)[0]
			if rec.Cause != ServerAborted && rec.Cause != Denied {
				t.Errorf("cause %d", rec.Cause)
			}
			if rec.Failures < 2 || rec.Failures > 40 {
				t.Errorf("%d connects in 200 ms, with a rest of 20 ms", rec.Failures)
			}
		})
	}
}

func TestConnectTimeoutAndSlow(t *testing.T) {
	hole, _ := blackHole(t)
	r := newRig(t, func(s *setup) { s.backend.TimeoutConnect = 350 * time.Millisecond })
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		if q.Failures > 0 {
			return Ticket{}, 0
		}
		return toAddr(hole, 0, 7)(q)
	})
	wantEnd(t, r.dial(), false)
	rec := r.desk.ended(t, 1)[0]
	if rec.Cause != ServerTimeout || rec.Connected || rec.Lasted < 350*time.Millisecond || rec.Lasted > 3*time.Second {
		t.Errorf("record %+v", rec)
	}
	if got := r.desk.seen(); len(got) != 2 || got[0] != (Event{ConnectSlow, 0, 7}) || got[1] != (Event{ConnectTimeout, 0, 7}) {
		t.Errorf("events %+v", got)
	}
}

// A connect in flight is checked against the epoch again: by Fence and by
// Recall. The client keeps its bytes, and the old server gets none.
func TestConnectInFlight(t *testing.T) {
	for name, order := range map[string]func(*rig){
		"fence":  func(r *rig) { r.Fence(1, MarkedDown)() },
		"recall": func(r *rig) { r.Recall(1) },
	} {
		t.Run(name, func(t *testing.T) {
			hole, fd := blackHole(t)
			r := newRig(t, func(s *setup) { s.backend.TimeoutConnect = time.Minute })
			r.desk.setRoute(toAddr(hole, 0, 1))
			var clients []*net.TCPConn
			for range 5 {
				c := r.dial()
				_, _ = io.WriteString(c, "INSERT")
				clients = append(clients, c)
			}
			eventually(t, "connects", func() bool { return r.desk.count(Slotted) == 5 })
			good := serve(t, echo)
			r.desk.setRoute(to(good, 1, 2)) // the owner publishes first
			order(r)
			for _, c := range clients {
				wantText(t, c, "INSERT")
				ping(t, c, "and on")
			}
			if n := takeAll(t, fd); n != 0 {
				t.Errorf("the old server got %d bytes", n)
			}
		})
	}
}

// Recall leaves established sessions alone.
func TestRecallSparesSessions(t *testing.T) {
	r := newRig(t)
	r.desk.setRoute(to(serve(t, echo), 0, 1))
	c := r.dial()
	ping(t, c, "before")
	r.Recall(1)
	ping(t, c, "after")
}

// Clients that wait for a slot get one as soon as there is one, in turn.
func TestQueue(t *testing.T) {
	const slots, clients = 2, 12
	r := newRig(t, func(s *setup) {
		s.backend.Retry = time.Minute // only Wake helps
		s.Loops = 2
	})
	good := serve(t, echo)
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		taken := r.desk.places[Slotted]
		if q.Have.Place == Slotted {
			taken--
		}
		if taken >= slots {
			return Ticket{Place: Queued}, time.Minute
		}
		return to(good, 0, 1)(q)
	})
	var conns []*net.TCPConn
	for range clients {
		conns = append(conns, r.dial())
	}
	eventually(t, "queued clients", func() bool { return r.desk.count(Queued) == clients-slots })
	served := make(chan *net.TCPConn, clients)
	for _, c := range conns {
		go func() {
			_, _ = io.WriteString(c, "x")
			if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
				served <- c
			}
		}()
	}
	for i := range clients {
		c := await(t, "a served client", served)
		_ = c.Close()
		r.desk.ended(t, i+1)
		r.Wake(0)
	}
	if _, s := r.Counters(); s[0].MaxSeen > slots {
		t.Errorf("%d sessions at once", s[0].MaxSeen)
	}
}

// Wake asks only for the backend that it names.
func TestWakeByBackend(t *testing.T) {
	r := newRig(t, func(s *setup) { s.Loops = 1 })
	r.SetFrontend(1, FrontendOptions{})
	r.SetBackend(0, BackendOptions{Retry: time.Minute})
	r.SetBackend(1, BackendOptions{Retry: time.Minute})
	id, err := r.Listen(1, netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	var asked [2]int
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		asked[q.Frontend]++
		return Ticket{Place: Held, Backend: q.Frontend}, time.Minute
	})
	r.dial()
	dial(t, r.Addr(id).String())
	eventually(t, "two held clients", func() bool { return r.desk.count(Held) == 2 })
	count := func() [2]int {
		r.desk.mu.Lock()
		defer r.desk.mu.Unlock()
		return asked
	}
	r.Wake(1)
	eventually(t, "a second question", func() bool { return count() == [2]int{1, 2} })
	r.Wake(-1)
	eventually(t, "a third", func() bool { return count() == [2]int{2, 3} })
}
