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
	r := newRig(t, func(s *setup) { s.frontend.LogSessions = false; s.tune.finDelay = 0 })
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
	if n := testing.AllocsPerRun(50, once); n > 0.5 {
		t.Errorf("%v allocations per session of 10 messages", n)
	}
}
