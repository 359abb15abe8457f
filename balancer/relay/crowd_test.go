package relay

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A crowd is thousands of clients and their server in a process of its own,
// since one alone may not have descriptors for both sides of the proxy too. It
// moves no bytes: it waits on one epoll descriptor, and knows when each end came.
type crowd struct {
	t       testing.TB
	child   *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Scanner
	server  netip.AddrPort
}

// asCrowd is set in the environment of a crowd's process.
const asCrowd = "RELAY_CROWD"

// fate is what became of one side of a crowd.
type fate struct {
	Fins, Resets int
	Last         time.Duration // of the monotonic clock: the last end
}

type fates struct{ Clients, Servers fate }

// monotonic is a clock that processes share.
func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

func newCrowd(t testing.TB) *crowd {
	t.Helper()
	c := &crowd{t: t, child: exec.Command(os.Args[0])}
	c.child.Env = append(os.Environ(), asCrowd+"=1")
	c.child.Stderr = os.Stderr
	var err error
	if c.orders, err = c.child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	answers, err := c.child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.answers = bufio.NewScanner(answers)
	if err := c.child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.orders.Close()
		if err := c.child.Wait(); err != nil {
			t.Errorf("the crowd: %v", err)
		}
	})
	c.hear(&c.server)
	return c
}

func (c *crowd) hear(v any) {
	c.t.Helper()
	if !c.answers.Scan() {
		c.t.Fatal("the crowd is silent")
	}
	if err := json.Unmarshal(c.answers.Bytes(), v); err != nil {
		c.t.Fatalf("the crowd said %q: %v", c.answers.Text(), err)
	}
}

// connect has n clients connect to addr, and waits until the crowd's server has
// accepted as many. From then on the crowd waits for their ends.
func (c *crowd) connect(n int, addr string) {
	c.t.Helper()
	fmt.Fprintln(c.orders, n, addr)
	var got int
	if c.hear(&got); got != n {
		c.t.Fatalf("%d of %d sessions came about", got, n)
	}
}

// ended waits until every client and the server's sides have seen their end.
func (c *crowd) ended() (f fates) {
	c.t.Helper()
	c.hear(&f)
	return f
}

// serveCrowd is the crowd's process.
func serveCrowd() error {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	limit.Cur = limit.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	server, err := listenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		return err
	}
	at, err := localAddr(server)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	_ = answers.Encode(at)
	for {
		var n int
		var addr string
		if _, err := fmt.Scan(&n, &addr); err != nil {
			return nil
		}
		m := member{server: server, kinds: map[int32]*fate{}}
		m.gather(n, packEndpoint(netip.MustParseAddrPort(addr)))
		_ = answers.Encode(m.accepted)
		if m.accepted < n {
			return fmt.Errorf("%d of %d sessions", m.accepted, n)
		}
		_ = answers.Encode(m.watch())
	}
}

// member is one crowd's sockets.
type member struct {
	server, epoll int32
	accepted      int
	kinds         map[int32]*fate // by descriptor, while it is open
	fates         fates
}

// gather makes the sessions.
func (m *member) gather(n int, addr endpoint) {
	fd, _ := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	m.epoll = int32(fd)
	for made, end := 0, time.Now().Add(6*patience); m.accepted < n && time.Now().Before(end); {
		// Fewer at once than any backlog is long.
		for ; made < n && made < m.accepted+200; made++ {
			fd, errno := connectTCP(addr)
			if errno != 0 && errno != unix.EINPROGRESS {
				return
			}
			m.add(fd, &m.fates.Clients)
		}
		fd, _, errno := accept(m.server)
		if errno != 0 {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		m.add(fd, &m.fates.Servers)
		m.accepted++
	}
}

func (m *member) add(fd int32, kind *fate) {
	m.kinds[fd] = kind
	_ = unix.EpollCtl(int(m.epoll), unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: fd})
}

// watch waits for all ends. It does nothing else meanwhile: its processor's
// time is not to be the measured one's.
func (m *member) watch() fates {
	var events [512]unix.EpollEvent
	for left := len(m.kinds); left > 0; {
		n, err := unix.EpollWait(int(m.epoll), events[:], -1)
		now := monotonic()
		if err != nil && err != syscall.EINTR {
			panic(err)
		}
		for _, ev := range events[:max(n, 0)] {
			kind := m.kinds[ev.Fd]
			if kind == nil || ev.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
				continue
			}
			if ev.Events&unix.EPOLLERR != 0 {
				kind.Resets++
			} else {
				kind.Fins++
			}
			kind.Last = now
			m.kinds[ev.Fd] = nil
			left--
		}
	}
	for fd := range m.kinds {
		closeFD(fd)
	}
	closeFD(m.epoll)
	return m.fates
}
