package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pointsman/leaktest"
)

// stepper is an engine of one loop that runs only when a test says so, so that
// several things have come up before the loop looks, in a known order.
type stepper struct {
	*rig
	loop *loop
}

func newStepper(t *testing.T, change ...func(*tuning)) *stepper {
	return newStepperOf(t, 1, change...)
}

// newStepperOf has several loops; the first has the clients.
func newStepperOf(t *testing.T, loops int, change ...func(*tuning)) *stepper {
	leaktest.Check(t)
	tune := machineTuning()
	for _, c := range change {
		c(tune)
	}
	s := &stepper{rig: &rig{t: t, desk: &desk{}}}
	e, err := prepare(Options{Loops: loops, Director: s.desk, tune: tune})
	if err != nil {
		t.Fatal(err)
	}
	s.Engine, s.loop = e, e.loops[0]
	t.Cleanup(func() {
		for _, l := range e.loops {
			l.close()
		}
		s.end()
	})
	e.SetFrontend(0, FrontendOptions{LogSessions: true})
	e.SetBackend(0, BackendOptions{TimeoutConnect: time.Minute})
	if s.listener, err = e.Listen(0, netip.MustParseAddrPort("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	s.addr = e.Addr(s.listener).String()
	return s
}

// until steps until ok. Its own order keeps each round from sleeping.
func (s *stepper) until(what string, ok func() bool) {
	s.t.Helper()
	eventually(s.t, what, func() bool {
		s.Recall(0)
		s.loop.round()
		return ok()
	})
}

func (s *stepper) session(slot int32) *session { return s.loop.sessions.at(slot) }

// A session ends and its slot is taken again by a new client, while an event of
// its server is already among those that are being handled. The event must not
// be taken for one of the new session's.
func TestStaleEvent(t *testing.T) {
	s := newStepper(t)
	l, conns := accepted(t)
	s.desk.setRoute(to(l, 0, 1))
	old := s.dial()
	s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
	oldServer := await(t, "the server's side", conns)

	hole, _ := blackHole(t)
	s.desk.setRoute(toAddr(hole, 0, 1))
	_ = old.SetLinger(0)
	_ = old.Close()
	s.dial()
	_, _ = io.WriteString(oldServer, "late")
	s.until("a new session", func() bool { return s.desk.asked == 2 })
	if got := s.session(0).state; got != connecting {
		t.Errorf("the new session is in state %d, want %d: it took the old one's event", got, connecting)
	}
}

// Bytes that come when a fence has been ordered go nowhere, though their session
// is not among the first to be closed.
func TestDoomedStandStill(t *testing.T) {
	s := newStepper(t)
	l, conns := accepted(t)
	s.desk.setRoute(to(l, 0, 1))
	const sessions = 3 * endBatch
	var clients []*net.TCPConn
	for n := range sessions {
		clients = append(clients, s.dial())
		s.until("a session", func() bool { return s.loop.sessions.live == n+1 && s.session(int32(n)).state == relaying })
	}
	for _, c := range clients {
		_, _ = io.WriteString(c, "late")
	}
	s.Fence(1, MarkedDown)
	s.until("the end", func() bool { return s.loop.sessions.live == 0 })
	for range sessions {
		if n, err := io.Copy(io.Discard, await(t, "the server's side", conns)); n > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a server got %d bytes, and %v", n, err)
		}
	}
	for _, rec := range s.desk.ended(t, sessions) {
		if rec.In > 0 || rec.Cause != MarkedDown {
			t.Errorf("record %+v", rec)
		}
	}
}

// The server says why it ends and resets, but the loop first tries to write to
// it, and learns by that. The client must get the reason, and no clean end.
func TestWriteMeetsReset(t *testing.T) {
	for _, words := range []string{"FATAL: the reason", ""} {
		s := newStepper(t)
		l, conns := accepted(t)
		s.desk.setRoute(to(l, 0, 1))
		client := s.dial()
		s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
		server := await(t, "the server's side", conns)

		_, _ = io.WriteString(client, "query")
		_, _ = io.WriteString(server, words)
		_ = server.SetLinger(0)
		_ = server.Close()
		s.until("the end", func() bool { return s.loop.sessions.live == 0 })
		wantText(t, client, words)
		if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client saw %v, want a reset", err)
		}
	}
}

// The same, but the server resets when the client's event is at hand already,
// and its last words take more than a turn. The event of the reset comes then,
// and as the write has used up the error it looks like that of a FIN.
func TestResetBehindAWrite(t *testing.T) {
	s := newStepperOf(t, 1, func(tune *tuning) { tune.turn, tune.scratch = 1, 4<<10 })
	l, conns := accepted(t)
	s.desk.setRoute(to(l, 0, 1))
	client := s.dial()
	s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
	server := await(t, "the server's side", conns)
	for s.loop.poll() > 0 { // what the session's beginning has left
	}

	_, _ = io.WriteString(client, "query")
	n := 0
	eventually(t, "the client's event", func() bool { n = s.loop.poll(); return n > 0 })
	words := strings.Repeat("FATAL: the reason ", 600)
	_, _ = io.WriteString(server, words)
	_ = server.SetLinger(0)
	_ = server.Close()
	for i := range n {
		s.loop.dispatch(&s.loop.events[i])
	}
	s.until("the end", func() bool { return s.loop.sessions.live == 0 })
	wantText(t, client, words)
	if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want a reset", err)
	}
}

// A server that ends by itself when the client says goodbye closes first, and
// the TIME_WAIT is its own.
func TestNoTimeWaitTowardsServer(t *testing.T) {
	r := newRig(t, func(s *setup) { s.tune.finDelay = patience }) // this machine may be slow
	const sessions = 20
	ours := make(chan netip.AddrPort, sessions) // the proxy's ends of the connections
	l := serve(t, func(c *net.TCPConn) {
		ours <- netip.MustParseAddrPort(c.RemoteAddr().String())
		_, _ = io.ReadFull(c, make([]byte, 7))
	})
	r.desk.setRoute(to(l, 0, 1))
	for range sessions {
		c := r.dial()
		_, _ = io.WriteString(c, "goodbye")
		_ = c.Close()
	}
	r.desk.ended(t, sessions)
	waits := timeWaits(t)
	n := 0
	for range sessions {
		if waits[[2]uint16{(<-ours).Port(), addrOf(l).Port()}] {
			n++
		}
	}
	if n > 0 {
		t.Errorf("%d of %d connections are in TIME_WAIT on the proxy's side", n, sessions)
	}
}

// timeWaits returns the local and remote ports of the sockets in TIME_WAIT.
func timeWaits(t *testing.T) map[[2]uint16]bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	waits := map[[2]uint16]bool{}
	for line := range strings.Lines(string(table)) {
		const timeWait = " 06 " // enum in Linux's include/net/tcp_states.h
		if !strings.Contains(line, timeWait) {
			continue
		}
		var slot, local, remote uint64
		var ports [2]uint16
		if n, _ := fmt.Sscanf(line, "%d: %x:%x %x:%x 06", &slot, &local, &ports[0], &remote, &ports[1]); n == 5 {
			waits[ports] = true
		}
	}
	return waits
}
