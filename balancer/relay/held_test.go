package relay

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// slowServer is a session in slot 0 of the first of two loops, whose server and
// whose buffers take little.
func slowServer(t *testing.T) (s *stepper, client *net.TCPConn, server int32) {
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
	client = s.dial()
	s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
	server, _, errno := accept(l)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { closeFD(server) })
	return s, client, server
}

// heldBytes is such a session whose client has sent size bytes of a source of
// seed 1. All of them were read, but not taken by the server, which has got some.
func heldBytes(t *testing.T, size int64) (s *stepper, server int32, got *sink) {
	t.Helper()
	s, client, server := slowServer(t)
	source, got := newSource(1), newSink(1)
	d := &s.session(0).side[clientSide]
	// More than one read, as a socket takes what a single write brings even
	// beyond its buffer.
	if _, err := io.CopyN(struct{ io.Writer }{client}, source, size); err != nil {
		t.Fatal(err)
	}
	s.until("held bytes", d.holds)
	// The rest is read when the server has taken what was held before.
	s.until("all read, and held", func() bool {
		if d.holds() && !d.is(readable) {
			return true
		}
		s.hear(server, got)
		return false
	})
	return s, server, got
}

// hear reads what there is of a stream.
func (s *stepper) hear(fd int32, into *sink) {
	b := make([]byte, 64<<10)
	if n, errno := recv(fd, b); errno == 0 {
		if _, err := into.Write(b[:n]); err != nil {
			s.t.Fatal(err)
		}
	}
}

// A server takes more at last, and says something in the same moment. What
// waits for it must not be forgotten over that.
func TestHeldBytesBesideAMessage(t *testing.T) {
	const size = 80_000
	s, server, got := heldBytes(t, size)
	said := 0
	s.until("all bytes", func() bool {
		s.hear(server, got)
		if said++; said < 10 { // more would fill the small buffer towards the client
			_, _ = send(server, []byte("x"))
		}
		return got.n == size
	})
}

// A message meets a socket that takes a part of it, or nothing.
func TestMessageMeetsFullSocket(t *testing.T) {
	s, client, server := slowServer(t)
	source, got := newSource(1), newSink(1)
	d := &s.session(0).side[clientSide]
	var sent int64
	for !d.holds() {
		n, err := client.Write(source.next(1500))
		if err != nil {
			t.Fatal(err)
		}
		sent += int64(n)
		s.until("the message", func() bool { return d.holds() || d.passed == uint64(sent) })
	}
	s.until("all bytes", func() bool { s.hear(server, got); return got.n == sent })
}

// A session that holds bytes stays with the loop that has them.
func TestHeldBytesStay(t *testing.T) {
	s, _, _ := heldBytes(t, 80_000)
	s.loop.giveSessions(s.loops[1], true)
	if s.loop.sessions.live != 1 || s.session(0).state != relaying {
		t.Error("it was given to the other loop")
	}
}
