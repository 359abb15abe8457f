package relay

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// heldBytes is a session in slot 0 of the first of two loops, all of whose
// client's bytes, a source of seed 1, were read, but not taken by its server.
func heldBytes(t *testing.T, size int64) (s *stepper, server int32) {
	t.Helper()
	s = newStepperOf(t, 2, func(tune *tuning) { tune.sndbuf = 4 << 10 })
	l, err := listenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFD(l) })
	setsockopt(l, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10)
	at, err := localAddr(l)
	if err != nil {
		t.Fatal(err)
	}
	s.desk.setRoute(toAddr(at, 0, 1))
	client := s.dial()
	s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
	server, _, errno := accept(l)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { closeFD(server) })
	if err := sendStream(client, 1, size); err != nil {
		t.Fatal(err)
	}
	s.until("held bytes", func() bool {
		d := &s.session(0).side[clientSide]
		return d.holds() && !d.is(readable)
	})
	return s, server
}

// A server takes more at last, and says something in the same moment. What
// waits for it must not be forgotten over that.
func TestHeldBytesBesideAMessage(t *testing.T) {
	const size = 40_000
	s, server := heldBytes(t, size)
	got := newSink(1)
	b := make([]byte, size)
	said := 0
	s.until("all bytes", func() bool {
		if n, errno := recv(server, b); errno == 0 {
			if _, err := got.Write(b[:n]); err != nil {
				t.Fatal(err)
			}
		}
		if said++; said < 10 { // more would fill the small buffer towards the client
			_, _ = send(server, []byte("x"))
		}
		return got.n == size
	})
}

// A session that holds bytes stays with the loop that has them.
func TestHeldBytesStay(t *testing.T) {
	s, _ := heldBytes(t, 40_000)
	s.loop.giveSessions(s.loops[1], true)
	if s.loop.sessions.live != 1 || s.session(0).state != relaying {
		t.Error("it was given to the other loop")
	}
}
