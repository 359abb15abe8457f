package relay

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
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
	eventually(t, "a reset of the half-closed session", func() bool {
		_, err := halfServer.Write([]byte("x"))
		return err != nil
	})
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
	r.desk.ended(t, sessions)
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

// thousands makes n sessions of epoch 1 to a crowd's server, or as many as the
// limit of descriptors allows: two each, and the peers' are the crowd's.
func thousands(t testing.TB, n int) (*rig, *crowd, int) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	n = min(n, (int(limit.Max)-200)/2)
	raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	r := newRig(t, func(s *setup) { s.frontend.LogSessions = false })
	c := newCrowd(t)
	r.desk.setRoute(toAddr(c.server, 0, 1))
	return r, c, n
}

// Ten thousand sessions are killed at once: all of them end, clients with a
// FIN and servers with an RST, and nobody else's does. Meanwhile the loops
// serve others, and newcomers.
func TestFenceOfThousands(t *testing.T) {
	n := 10_000
	if raceEnabled || testing.Short() {
		n /= 10
	}
	r, c, n := thousands(t, n)
	c.connect(n, r.addr)
	r.established(n)

	r.desk.setRoute(to(serve(t, echo), 1, 2))
	stop := make(chan struct{})
	var others sync.WaitGroup
	var pings atomic.Int64
	for range 10 {
		kept := r.dial()
		ping(t, kept, "before")
		others.Go(func() {
			for text, b := "during", make([]byte, 6); ; pings.Add(1) {
				_, _ = io.WriteString(kept, text)
				if _, err := io.ReadFull(kept, b); err != nil || string(b) != text {
					t.Errorf("a session of another epoch: %q, %v", b, err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	others.Go(func() {
		for {
			c, err := net.DialTimeout("tcp", r.addr, patience)
			if err != nil {
				t.Error("a newcomer: ", err)
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(c, "x")
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Error("a newcomer: ", err)
			}
			_ = c.Close()
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	if ended := r.Fence(1, MarkedDown)(); ended != n {
		t.Errorf("%d sessions ended, want %d", ended, n)
	}
	if f := c.ended(); f.Clients.Fins != n || f.Servers.Resets != n {
		t.Errorf("of %d clients %d saw a FIN, of the servers %d an RST", n, f.Clients.Fins, f.Servers.Resets)
	}
	before := pings.Load()
	eventually(t, "pings afterwards", func() bool { return pings.Load() > before+100 })
	close(stop)
	others.Wait()
	eventually(t, "counters", func() bool {
		_, s := r.Counters()
		return s[0].Ended[MarkedDown] == uint64(n) && s[0].Current == 0 && s[1].Ended[MarkedDown] == 0
	})
}

// BenchmarkFence measures how long after the decision the last of 9,000
// clients sees the end of its session, and the last server. Each of them is
// idle; the sessions are made anew for each round.
func BenchmarkFence(b *testing.B) {
	r, c, n := thousands(b, 9_000)
	var clients, servers, worst time.Duration
	epoch := Epoch(0)
	for b.Loop() {
		b.StopTimer()
		epoch++
		r.desk.setRoute(toAddr(c.server, 0, epoch))
		c.connect(n, r.addr)
		r.established(n * int(epoch))
		b.StartTimer()
		decided := monotonic()
		r.Fence(epoch, MarkedDown)
		f := c.ended()
		clients += f.Clients.Last - decided
		servers += f.Servers.Last - decided
		worst = max(worst, f.Clients.Last-decided)
	}
	b.ReportMetric(float64(clients.Microseconds())/1000/float64(b.N), "ms/last-client")
	b.ReportMetric(float64(servers.Microseconds())/1000/float64(b.N), "ms/last-server")
	b.ReportMetric(float64(worst.Microseconds())/1000, "ms/worst-client")
	b.ReportMetric(float64(n), "sessions")
}
