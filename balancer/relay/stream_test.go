package relay

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPing(t *testing.T) {
	r := newRig(t)
	r.desk.setRoute(to(serve(t, echo), 0, 1))
	c := r.dial()
	for i := range 100 {
		ping(t, c, fmt.Sprint("message ", i))
	}
	_ = c.Close()
	rec := r.desk.ended(t, 1)[0]
	if rec.Cause != Normal || !rec.Connected || rec.In != rec.Out || rec.In == 0 {
		t.Errorf("record %+v", rec)
	}
	if got := rec.Client.String(); got != c.LocalAddr().String() {
		t.Errorf("client %s, want %s", got, c.LocalAddr())
	}
}

// Random amounts both ways at once, in each mode of moving them.
func TestBothWaysExact(t *testing.T) {
	modes := map[string]func(*setup){
		"rule":        func(*setup) {},
		"copy":        func(s *setup) { s.tune.pipes = 0 },
		"splice":      func(s *setup) { s.tune.scratch = 1 << 10 }, // soon filled three times
		"flip":        func(s *setup) { flipping(s, 3) },
		"small turns": func(s *setup) { s.tune.turn = 1; flipping(s, 5) },
		"short":       func(s *setup) { s.tune.sndbuf = 4 << 10 },
		"tiny":        func(s *setup) { s.tune.sndbuf = 4 << 10; flipping(s, 7) },
		"little pipe": func(s *setup) { s.tune.pipeSize = minPipe; s.tune.scratch = 4 << 10 },
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, mode)
			const sessions = 8
			errs := make(chan error, 4*sessions)
			size := func(n int) int64 { return int64(n) * 123_457 }
			var server atomic.Int64
			l := serve(t, func(c *net.TCPConn) {
				// The first byte names the session.
				id := make([]byte, 1)
				if _, err := io.ReadFull(c, id); err != nil {
					errs <- err
					return
				}
				n := uint64(id[0])
				server.Add(1)
				errs <- bothWays(c, n, size(int(n)), n+100, size(sessions-int(n)))
			})
			r.desk.setRoute(to(l, 0, 1))
			for n := range uint64(sessions) {
				c := r.dial()
				if _, err := c.Write([]byte{byte(n)}); err != nil {
					t.Fatal(err)
				}
				go func() { errs <- bothWays(c, n+100, size(sessions-int(n)), n, size(int(n))) }()
			}
			for range 2 * sessions {
				if err := await(t, "a stream's end", errs); err != nil {
					t.Error(err)
				}
			}
			var in, out uint64
			for _, rec := range r.desk.ended(t, sessions) {
				if rec.Cause != Normal {
					t.Errorf("cause %d", rec.Cause)
				}
				in += rec.In
				out += rec.Out
			}
			want := uint64(size(sessions * (sessions - 1) / 2))
			if in != want+sessions || out != uint64(size(sessions))+want {
				t.Errorf("counted %d in, %d out; want %d, %d", in, out, want+sessions, uint64(size(sessions))+want)
			}
		})
	}
}

func flipping(s *setup, every int) {
	s.tune.flip, s.tune.flips = every, new(atomic.Int32)
}

// bothWays reads one stream and writes another, at once.
func bothWays(c *net.TCPConn, readSeed uint64, read int64, writeSeed uint64, written int64) error {
	errs := make(chan error, 1)
	go func() {
		err := sendStream(c, writeSeed, written)
		if err == nil {
			err = c.CloseWrite()
		}
		errs <- err
	}()
	if err := wantStream(c, readSeed, read); err != nil {
		return fmt.Errorf("reading stream %d: %w", readSeed, err)
	}
	return <-errs
}

func TestMessageBeforeAccept(t *testing.T) {
	r := newRig(t)
	r.desk.setRoute(to(serve(t, echo), 0, 1))
	id, err := r.Listen(-1, netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, r.Addr(id).String())
	if _, err := io.WriteString(c, "early"); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	for range 2 { // when an order is obeyed, the events before the one before it were seen
		r.KillFrontend(1, Killed)()
	}
	r.Assign(id, 0)
	wantText(t, c, "early")
	wantEnd(t, c, false)
	r.desk.ended(t, 1)
}

// An urgent byte stays in the stream, and what follows it does not hang.
func TestUrgentByte(t *testing.T) {
	r := newRig(t)
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	one := r.dial()
	other := await(t, "the server's side", conns)
	for range 40 { // it takes luck for both writes to be there at the first read
		raw, err := one.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Write(func(fd uintptr) bool {
			_ = unix.Sendto(int(fd), []byte("abc!"), unix.MSG_OOB, nil)
			_ = unix.Sendto(int(fd), []byte("def"), 0, nil)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		wantText(t, other, "abc!def")
		one, other = other, one
	}
}

func TestAddressFamilies(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no IPv6 here: ", err)
		}
		t.Skip("no IPv6 here: ", err)
	} else {
		_ = l.Close()
	}
	for _, c := range [][2]string{{"127.0.0.1:0", "[::1]:0"}, {"[::1]:0", "127.0.0.1:0"}, {"[::1]:0", "[::1]:0"}} {
		t.Run(c[0]+" to "+c[1], func(t *testing.T) {
			r := newRig(t, func(s *setup) { s.listen = c[0] })
			r.desk.setRoute(to(serveOn(t, c[1], echo), 0, 1))
			client := r.dial()
			ping(t, client, "hello")
			_ = client.Close()
			if got := r.desk.ended(t, 1)[0].Client.String(); got != client.LocalAddr().String() {
				t.Errorf("client %s, want %s", got, client.LocalAddr())
			}
		})
	}
}

func TestMultipathClient(t *testing.T) {
	d := net.Dialer{}
	d.SetMultipathTCP(true)
	r := newRig(t)
	r.desk.setRoute(to(serve(t, echo), 0, 1))
	c, err := d.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if multi, _ := c.(*net.TCPConn).MultipathTCP(); multi {
		t.Error("the listener spoke MPTCP")
	}
	ping(t, c, "hello")
}

// What is set on the listener must reach the accepted sockets.
func TestInheritedOptions(t *testing.T) {
	fd, err := listenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	at, err := localAddr(fd)
	if err != nil {
		t.Fatal(err)
	}
	dial(t, at.String())
	var conn int32
	eventually(t, "a client", func() bool {
		var errno syscall.Errno
		conn, _, errno = accept(fd)
		return errno == 0
	})
	defer closeFD(conn)
	for _, o := range []struct{ level, name, want int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0}, // until keep
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 6},
	} {
		if got, err := unix.GetsockoptInt(int(conn), o.level, o.name); err != nil || (got != 0) != (o.want != 0) || o.want > 1 && got != o.want {
			t.Errorf("option %d/%d is %d (%v), want %d", o.level, o.name, got, err, o.want)
		}
	}
}

// Many short sessions of random lengths; afterwards nothing is left, and the
// counters are what the two ends saw.
func TestManySessions(t *testing.T) {
	sessions := 1000
	if raceEnabled {
		sessions = 600
	}
	r := newRig(t, func(s *setup) { s.tune.scratch, s.tune.finDelay = 4<<10, 0 })
	var serverIn, serverOut, served atomic.Int64
	r.desk.setRoute(to(serve(t, func(c *net.TCPConn) {
		served.Add(1)
		n, err := io.Copy(io.Discard, c)
		if err != nil {
			t.Error(err)
		}
		serverIn.Add(n)
		serverOut.Add(n / 2)
		if err := sendStream(c, 5, n/2); err != nil {
			t.Error(err)
		}
	}), 0, 1))
	var wg sync.WaitGroup
	var clientIn, clientOut atomic.Int64
	for w := range 16 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for range sessions / 16 {
				n := random.Int64N(1 << random.IntN(18))
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Error(err)
					return
				}
				if err := sendStream(c, 1, n); err != nil {
					t.Error(err)
				}
				_ = c.(*net.TCPConn).CloseWrite()
				if err := wantStream(c, 5, n/2); err != nil {
					t.Error(err)
				}
				clientOut.Add(n)
				clientIn.Add(n / 2)
				_ = c.Close()
			}
		})
	}
	wg.Wait()
	all := int64(sessions / 16 * 16)
	var f, s Counters
	eventually(t, "counters", func() bool {
		frontends, servers := r.Counters()
		f, s = frontends[0], servers[0]
		return f.Ended[Normal] == uint64(all)
	})
	if clientOut.Load() != serverIn.Load() || clientIn.Load() != serverOut.Load() {
		t.Errorf("client sent %d, server got %d; server sent %d, client got %d", clientOut.Load(), serverIn.Load(), serverOut.Load(), clientIn.Load())
	}
	for _, c := range []Counters{f, s} {
		if c.Current != 0 || c.Total != uint64(all) || c.In != uint64(clientOut.Load()) || c.Out != uint64(clientIn.Load()) || c.MaxSeen > 17 || c.MaxSeen < 1 || c.Ended[Normal] != uint64(all) {
			t.Errorf("counted %+v, want %d sessions, %d in, %d out", c, all, clientOut.Load(), clientIn.Load())
		}
	}
}
