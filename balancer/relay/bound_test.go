package relay

import (
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A reader that never reads stops the sender: what is on its way is in the
// sockets' buffers and in one chunk or one pipe.
func TestStalledReaderStopsSender(t *testing.T) {
	for name, pipes := range map[string]int{"chunk": 0, "pipe": 4} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(s *setup) { s.tune.pipes, s.Loops = pipes, 1 })
			l, conns := accepted(t)
			r.desk.setRoute(to(l, 0, 1))
			client := r.dial()
			server := await(t, "the server's side", conns)
			var sent atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				b := make([]byte, 64<<10)
				for {
					n, err := client.Write(b)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
			}()
			var load Load
			eventually(t, "a sender that stands still", func() bool {
				before := sent.Load()
				time.Sleep(100 * time.Millisecond)
				load = r.Loads()[0]
				return before > 0 && sent.Load() == before && load.Chunks+load.Pipes > 0
			})
			if load.Chunks+load.Pipes != 1 {
				t.Errorf("held in %d chunks and %d pipes", load.Chunks, load.Pipes)
			}
			_, servers := r.Counters()
			// The kernel's buffers of both connections count towards nobody's.
			held := sent.Load() - int64(servers[0].In)
			most := int64(socketBuffer(t, client, unix.SO_SNDBUF)) + maxReceive(t) + int64(r.tune.pipeSize)
			if t.Logf("%d bytes sent, %d passed on", sent.Load(), servers[0].In); held > most {
				t.Errorf("%d bytes are held, of at most %d", held, most)
			}
			_ = client.SetLinger(0)
			_ = client.Close()
			_ = server.SetLinger(0)
			_ = server.Close()
			<-done
		})
	}
}

func socketBuffer(t *testing.T, c *net.TCPConn, name int) (size int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, name) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// maxReceive is how large the kernel lets a receive buffer grow.
func maxReceive(t *testing.T) int64 {
	t.Helper()
	return procNumbers(t, "/proc/sys/net/ipv4/tcp_rmem")[2]
}

// A user who has used up its share of pipe memory gets pipes of one or two
// pages, which are worth nothing, and then none. The bytes are copied.
func TestPoorUsersPipes(t *testing.T) {
	soft := procNumbers(t, "/proc/sys/fs/pipe-user-pages-soft")[0]
	if soft == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("no limit of pipe memory here")
		}
		t.Skip("no limit of pipe memory here")
	}
	s := newStepper(t, func(tune *tuning) { tune.scratch = 4 << 10 }) // soon promoted
	l, conns := accepted(t)
	s.desk.setRoute(to(l, 0, 1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // this thread becomes a poor user, and ends with the goroutine
		poor := uintptr(60000 + unix.Getpid()%5000)
		unix.RawSyscall(unix.SYS_SETRESUID, poor, poor, poor)
		var taken []pipe
		defer func() {
			for _, p := range taken {
				p.close()
			}
		}()
		pages := int64(unix.Getpagesize())
		for used := int64(0); used < soft*pages; {
			p, ok := openPipe(1 << 20)
			if !ok {
				break
			}
			taken = append(taken, p)
			used += int64(p.size)
		}
		if p, ok := openPipe(256 << 10); ok {
			taken = append(taken, p)
			t.Errorf("%d pipes, and another of %d bytes", len(taken), p.size)
			return
		}
		const size = 4 << 20
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Error(err)
			return
		}
		var ends sync.WaitGroup
		ends.Go(func() {
			_ = sendStream(c, 1, size)
			_ = c.Close()
		})
		var read error
		ends.Go(func() {
			server := <-conns
			read = wantStream(server, 1, size)
			_ = server.Close()
		})
		over := make(chan struct{})
		go func() { ends.Wait(); close(over) }()
		s.until("the stream's end", func() bool {
			select {
			case <-over:
				return s.loop.sessions.live == 0
			default:
				return false
			}
		})
		if read != nil || s.loop.pipesOpen != 0 || s.loop.pipes.retryAt == 0 {
			t.Errorf("%v; %d pipes are open, and the next is asked for at %v", read, s.loop.pipesOpen, s.loop.pipes.retryAt)
		}
	}()
	<-done
}

// Once a fence is over no byte that is sent then reaches the old server, from
// whichever session, held client, connect under way or backlog it comes.
func TestNoByteAfterFence(t *testing.T) {
	const before, after = 'b', 'a'
	r := newRig(t)
	var late, fresh atomic.Int64
	count := func(into *atomic.Int64) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			b := make([]byte, 4096)
			for {
				n, err := c.Read(b)
				for _, x := range b[:n] {
					if x == after {
						into.Add(1)
					}
				}
				if err != nil {
					return
				}
			}
		}
	}
	old, next := serve(t, count(&late)), serve(t, count(&fresh))
	asked := 0
	by := func(l net.Listener, epoch Epoch) func(Request) (Ticket, time.Duration) {
		return func(q Request) (Ticket, time.Duration) {
			if asked++; asked%5 == 0 && q.Failures == 0 {
				return Ticket{Place: Held}, time.Minute
			}
			return to(l, int32(epoch), epoch)(q)
		}
	}
	r.desk.setRoute(by(old, 1))
	var word atomic.Uint32
	word.Store(before)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 150 { // more than are ended in one go
		clients.Go(func() {
			for {
				c, err := net.DialTimeout("tcp", r.addr, patience)
				if err != nil {
					t.Error(err)
					return
				}
				for n := 0; n < 50 && err == nil; n++ {
					_, err = c.Write([]byte{byte(word.Load())})
					select {
					case <-stop:
						_ = c.Close()
						return
					case <-time.After(time.Duration(n%3) * time.Millisecond):
					}
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		})
	}
	eventually(t, "sessions", func() bool { _, s := r.Counters(); return s[1].In > 500 })
	r.desk.setRoute(by(next, 2)) // the owner publishes first
	ended := r.Fence(1, MarkedDown)()
	word.Store(after)
	eventually(t, "bytes for the new server", func() bool { return fresh.Load() > 500 })
	close(stop)
	clients.Wait()
	if n := late.Load(); n > 0 || ended == 0 {
		t.Errorf("%d sessions ended; the old server got %d bytes that were sent after", ended, n)
	}
}

// procNumbers reads the numbers of a file in /proc/sys.
func procNumbers(t *testing.T, path string) (numbers []int64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// A session dies while a pipe holds its bytes. They must not come to the next
// session that is spliced.
func TestPipeOfTheDead(t *testing.T) {
	r := newRig(t, func(s *setup) { s.tune.scratch, s.tune.pipes, s.Loops = 4<<10, 1, 1 })
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	const size = 4 << 20
	for seed := range uint64(3) {
		client := r.dial()
		server := await(t, "the server's side", conns)
		go func() { _ = sendStream(client, seed, 1<<40) }()
		if err := wantStream(io.LimitReader(server, size), seed, size); err != nil {
			t.Fatalf("session %d: %v", seed, err)
		}
		eventually(t, "a pipe that holds bytes", func() bool { return r.Loads()[0] == Load{Sessions: 1, Pipes: 1, Unsure: 1} })
		time.Sleep(10 * time.Millisecond)
		_ = server.SetLinger(0)
		_ = server.Close()
		r.desk.ended(t, int(seed)+1)
	}
}

// Pipes that nobody has used for a while are closed.
func TestPipesAreGivenBack(t *testing.T) {
	s := newStepper(t, func(tune *tuning) { tune.scratch = 4 << 10 })
	l, conns := accepted(t)
	s.desk.setRoute(to(l, 0, 1))
	client := s.dial()
	s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
	server := await(t, "the server's side", conns)
	const size = 1 << 20
	errs := make(chan error, 2)
	go func() { errs <- sendStream(client, 1, size) }()
	go func() { errs <- wantStream(io.LimitReader(server, size), 1, size) }()
	s.until("all read", func() bool { return len(errs) == 2 })
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if s.loop.pipesOpen == 0 {
		t.Error("nothing was spliced")
	}
	s.loop.pipes.used -= pipeKeep
	s.loop.pipes.trimAt = s.loop.now
	s.loop.housekeep()
	if s.loop.pipesOpen != 0 || s.loop.pipes.trimAt != never {
		t.Errorf("%d pipes are open; the next look is at %v", s.loop.pipesOpen, s.loop.pipes.trimAt)
	}
}
