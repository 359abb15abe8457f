package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A fence reaches sessions in every state, and no other epoch's.
func TestFenceReachesAll(t *testing.T) {
	r := newRig(t, func(s *setup) { s.backend.TimeoutConnect = time.Minute })
	l, conns := accepted(t)
	hole, _ := blackHole(t)
	connectTo := func(route func(Request) (Ticket, time.Duration)) (*net.TCPConn, *net.TCPConn) {
		r.desk.setRoute(route)
		c := r.dial()
		return c, await(t, "the server's side", conns)
	}
	other, otherServer := connectTo(to(l, 0, 2))
	idle, idleServer := connectTo(to(l, 0, 1))
	active, activeServer := connectTo(to(l, 0, 1))
	full, fullServer := connectTo(to(l, 0, 1))   // the client has stalled
	stuck, stuckServer := connectTo(to(l, 0, 1)) // the server has stalled
	half, halfServer := connectTo(to(l, 0, 1))   // the client is done, the server is not
	_ = half.CloseWrite()
	wantEnd(t, halfServer, false)
	var wg sync.WaitGroup
	for _, c := range []*net.TCPConn{active, activeServer, fullServer, stuck} {
		wg.Go(func() { _ = sendStream(c, 1, 1<<40) })
	}
	for _, c := range []*net.TCPConn{active, activeServer} {
		wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
	}
	r.established(6)
	// Stalled means that even its sender stands still.
	eventually(t, "stalled sessions", func() bool {
		_, before := r.Counters()
		n := 0
		for _, load := range r.Loads() {
			n += load.Chunks + load.Pipes
		}
		return n >= 2 && before[0].In > 0
	})
	r.desk.setRoute(toAddr(hole, 0, 1))
	connecting := r.dial()
	eventually(t, "a connect", func() bool { return r.desk.count(Slotted) == 7 })

	r.desk.setRoute(to(serve(t, echo), 1, 3))
	if n := r.Fence(1, MarkedDown)(); n != 5 {
		t.Errorf("%d sessions ended, want 5", n)
	}
	wg.Wait()
	wantEnd(t, idle, false)
	for _, c := range []*net.TCPConn{idleServer, stuckServer} {
		if _, err := io.Copy(io.Discard, c); err == nil {
			t.Error("a server saw a clean end")
		}
	}
	// A FIN had come before the RST, so only a write tells.
	if _, err := halfServer.Write([]byte("x")); err == nil {
		t.Error("a server could still write")
	}
	for _, c := range []*net.TCPConn{full, stuck, half} {
		_, _ = io.Copy(io.Discard, c)
	}
	ping(t, connecting, "to the new server")
	ping2(t, other, otherServer)
	for _, rec := range r.desk.ended(t, 5) {
		if rec.Cause != MarkedDown || rec.Ticket.Target.Epoch != 1 {
			t.Errorf("record %+v", rec)
		}
	}
}

// All clients of an epoch see its end before any server does. The first
// session's Release keeps the loop from going on until they have.
func TestFenceClientsFirst(t *testing.T) {
	const sessions = 40
	r := newRig(t, func(s *setup) { s.Loops = 1 })
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	var clients []*net.TCPConn
	for range sessions {
		clients = append(clients, r.dial())
		await(t, "the server's side", conns)
	}
	r.established(sessions)
	know := make(chan struct{}, sessions)
	for _, c := range clients {
		go func() {
			_, _ = c.Read(make([]byte, 1))
			know <- struct{}{}
		}()
	}
	first := true
	r.desk.release = func() {
		if !first {
			return
		}
		first = false
		for n := range sessions {
			select {
			case <-know:
			case <-time.After(patience / 5):
				t.Errorf("%d of %d clients know of the end when the first server is told", n, sessions)
				return
			}
		}
	}
	r.Fence(1, MarkedDown)()
}

func TestKillFrontendAndAll(t *testing.T) {
	for name, kill := range map[string]func(*rig) func() int{
		"frontend": func(r *rig) func() int { return r.KillFrontend(0, Killed) },
		"all":      func(r *rig) func() int { return r.KillAll(Killed) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.desk.setRoute(to(serve(t, echo), 0, 1))
			served := r.dial()
			ping(t, served, "hello")
			r.desk.setRoute(hold(time.Minute))
			held := r.dial()
			eventually(t, "a held client", func() bool { return r.desk.count(Held) == 1 })
			if n := r.KillFrontend(1, Killed)(); n != 0 {
				t.Errorf("%d sessions of another frontend ended", n)
			}
			ping(t, served, "still there")
			if n := kill(r)(); n != 1 {
				t.Errorf("%d sessions ended, want 1", n)
			}
			wantEnd(t, served, false)
			wantEnd(t, held, false)
			for _, rec := range r.desk.ended(t, 2) {
				if rec.Cause != Killed {
					t.Errorf("cause %d", rec.Cause)
				}
			}
		})
	}
}

// Ten thousand sessions, or as many as the limit of descriptors allows (four
// each, as both peers are here too), killed at once.
func TestFenceOfThousands(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n := min(10_000, (int(limit.Max)-200)/4)
	if raceEnabled {
		n /= 10
	}
	raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)

	r := newRig(t, func(s *setup) { s.frontend.LogSessions = false })
	server, err := listenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(server)
	at, err := localAddr(server)
	if err != nil {
		t.Fatal(err)
	}
	r.desk.setRoute(toAddr(at, 0, 1))
	// Raw sockets for the peers: this is about the engine's time, not Go's.
	var fds []int32
	defer func() {
		for _, fd := range fds {
			closeFD(fd)
		}
	}()
	var clients []int32
	for len(clients) < n {
		for range min(500, n-len(clients)) {
			fd, errno := connectTCP(packEndpoint(r.Engine.Addr(r.listener)))
			if errno != 0 && errno != unix.EINPROGRESS {
				t.Fatal(errno)
			}
			clients = append(clients, fd)
			fds = append(fds, fd)
		}
		want := len(clients)
		eventually(t, "sessions", func() bool {
			for {
				fd, _, errno := accept(server)
				if errno != 0 {
					break
				}
				fds = append(fds, fd)
			}
			return len(fds) == len(clients)+want
		})
	}
	r.established(n)

	begin := time.Now()
	ended := r.Fence(1, MarkedDown)()
	obeyed := time.Since(begin)
	left := len(clients)
	for _, fd := range clients {
		b := make([]byte, 1)
		eventually(t, "a client's end", func() bool {
			n, errno := recv(fd, b)
			return n == 0 && errno == 0 || errors.Is(errno, syscall.ECONNRESET)
		})
		left--
	}
	t.Logf("%d sessions fenced in %v by %d loops; the last client knew after %v", n, obeyed, min(runtime.NumCPU(), maxLoops), time.Since(begin))
	if ended != n || left != 0 {
		t.Errorf("%d ended, %d clients do not know", ended, left)
	}
	if got := r.desk.count(Slotted); got != 0 {
		t.Errorf("%d slots are still taken", got)
	}
}
