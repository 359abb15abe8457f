//go:build !race

package relay

import (
	"net/netip"
	"runtime"
	"syscall"
	"testing"
)

const raceEnabled = false

// Accepting, connecting, relaying and closing allocate nothing once the slabs
// are there.
func TestNoAllocations(t *testing.T) {
	r := newRig(t, func(s *setup) { s.frontend.LogSessions, s.tune.finDelay, s.tune.working = false, 0, 1 })
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
	addr := packEndpoint(r.Engine.Addr(r.listener))
	// Raw sockets, so that what is counted is the engine's.
	b := make([]byte, 64)
	until := func(f func() (int, syscall.Errno)) int {
		for {
			n, errno := f()
			if errno == 0 {
				return n
			}
			runtime.Gosched()
		}
	}
	once := func() {
		c, _ := connectTCP(addr)
		s := int32(until(func() (int, syscall.Errno) { fd, _, errno := accept(server); return int(fd), errno }))
		for range 10 {
			until(func() (int, syscall.Errno) { return send(c, b) })
			until(func() (int, syscall.Errno) { return recv(s, b) })
			until(func() (int, syscall.Errno) { return send(s, b) })
			until(func() (int, syscall.Errno) { return recv(c, b) })
		}
		closeFD(c)
		until(func() (int, syscall.Errno) { return recv(s, b) })
		closeFD(s)
	}
	for range 50 {
		once()
	}
	// testing.AllocsPerRun would leave one processor for the loop and the peers.
	const sessions = 50
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range sessions {
		once()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > sessions/2 {
		t.Errorf("%d allocations in %d sessions of 10 messages", n, sessions)
	}
}
