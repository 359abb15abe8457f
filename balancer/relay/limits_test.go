package relay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pointsman/leaktest"
)

func TestMaxConn(t *testing.T) {
	for _, loops := range []int{1, 4} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) {
			const most = 3
			r := newRig(t, func(s *setup) { s.frontend.MaxConn = most; s.Loops = loops })
			second, err := r.Listen(0, netip.MustParseAddrPort("127.0.0.1:0"))
			if err != nil {
				t.Fatal(err)
			}
			r.desk.setRoute(to(serve(t, echo), 0, 1))
			served := make(chan *net.TCPConn, 100)
			const clients = 20
			for i := range clients {
				c := dial(t, []string{r.addr, r.Addr(second).String()}[i%2])
				go func() {
					_, _ = io.WriteString(c, "x")
					if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
						served <- c
					}
				}()
			}
			var open []*net.TCPConn
			for range most {
				open = append(open, await(t, "a served client", served))
			}
			select {
			case <-served:
				t.Error("more than MaxConn clients are served")
			case <-time.After(20 * time.Millisecond):
			}
			for range clients - most {
				_ = open[0].Close()
				open = append(open[1:], await(t, "the next client", served))
			}
			if f, _ := r.Counters(); f[0].MaxSeen != most || f[0].Current != most {
				t.Errorf("counted %+v", f[0])
			}
			// A raised limit is felt at once.
			r.SetFrontend(0, FrontendOptions{MaxConn: most + 1})
			ping(t, r.dial(), "one more")
		})
	}
}

// Descriptors run out in a child process: accepts pause and go on, connects
// that lack one are tried again, and nothing is lost.
func TestOutOfDescriptors(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a second; not with -short")
	}
	if server := os.Getenv("RELAY_CHILD"); server != "" {
		serveWithFewDescriptors(t, server)
		return
	}
	t.Parallel()
	server := serve(t, echo)
	child := exec.Command(os.Args[0], "-test.run=^TestOutOfDescriptors$", "-test.v")
	child.Env = append(os.Environ(), "RELAY_CHILD="+server.Addr().String())
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	addr := ""
	for addr == "" && lines.Scan() {
		addr, _ = strings.CutPrefix(lines.Text(), "listening ")
		if addr == lines.Text() {
			addr = ""
		}
	}
	const clients = 40
	served := make(chan *net.TCPConn, clients)
	for range clients {
		c := dial(t, addr)
		go func() {
			_, _ = io.WriteString(c, "x")
			if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
				served <- c
			}
		}()
	}
	first := await(t, "a served client", served)
	time.Sleep(800 * time.Millisecond) // the lack lasts: the child must sleep, too
	for n := 1; n < clients; n++ {
		next := await(t, fmt.Sprint("a served client after ", n), served)
		ping(t, first, "the session goes on")
		_ = first.Close()
		first = next
	}
	_ = first.Close()
	_ = stdin.Close()
	var output strings.Builder
	for lines.Scan() {
		fmt.Fprintln(&output, lines.Text())
	}
	if err := child.Wait(); err != nil {
		t.Errorf("the child: %v", err)
	}
	t.Log(output.String())
}

// serveWithFewDescriptors is the child's part: it serves until its input ends.
func serveWithFewDescriptors(t *testing.T, server string) {
	r := newRig(t, func(s *setup) { s.Loops = 2 })
	target := toAddr(netip.MustParseAddrPort(server), 0, 1)
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		if q.Failed >= 0 {
			return Ticket{Place: Held}, time.Minute
		}
		return target(q)
	})
	var usage [2]unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage[0])
	limit := unix.Rlimit{Cur: uint64(len(leaktest.Descriptors(t))) + 7, Max: 100}
	var old unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &old)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\nlistening %s\n", r.addr)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	_ = unix.Getrusage(unix.RUSAGE_SELF, &usage[1])
	spent := time.Duration(usage[1].Utime.Nano() + usage[1].Stime.Nano() - usage[0].Utime.Nano() - usage[0].Stime.Nano())
	if t.Logf("%v of CPU", spent); spent > 300*time.Millisecond {
		t.Errorf("%v of CPU: a loop spins", spent)
	}
	text := r.log.String()
	if n := strings.Count(text, "too many open files"); n < 1 || n > 4 {
		t.Errorf("%d lines tell of the lack\n%s", n, text)
	}
	if !strings.Contains(text, "raise the limit of open files") {
		t.Errorf("no advice\n%s", text)
	}
}

func TestListenErrors(t *testing.T) {
	r := newRig(t)
	_, err := r.Listen(0, netip.MustParseAddrPort(r.addr))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), r.addr) {
		t.Errorf("listening twice: %v", err)
	}
	// IP_FREEBIND: an address that is not there yet (RFC 5737's).
	id, err := r.Listen(0, netip.MustParseAddrPort("192.0.2.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	r.Unlisten(id)
}

func TestPrivilegedPort(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err == nil && strings.TrimSpace(string(text)) == "0" {
		t.Log("nothing to see: here everybody may bind every port")
		return
	}
	r := newRig(t)
	errs := make(chan error)
	go func() {
		// This thread becomes nobody, and ends with the goroutine.
		runtime.LockOSThread()
		const nobody = 65534
		unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		_, err := r.Listen(0, netip.MustParseAddrPort("127.0.0.1:1"))
		errs <- err
	}()
	if err := <-errs; !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}

// Unlisten accepts who waits in the backlog, MaxConn or not, and frees the
// address at once; sessions go on.
func TestUnlisten(t *testing.T) {
	r := newRig(t, func(s *setup) { s.frontend.MaxConn = 1 })
	r.desk.setRoute(to(serve(t, echo), 0, 1))
	a, b := r.dial(), r.dial()
	ping(t, a, "served")
	r.Unlisten(r.listener)
	ping(t, b, "served too")
	ping(t, a, "still served")
	if c, err := net.Dial("tcp", r.addr); err == nil {
		_ = c.Close()
		t.Error("somebody still listens")
	}
	id, err := r.Listen(0, netip.MustParseAddrPort(r.addr))
	if err != nil {
		t.Fatal(err)
	}
	r.Unlisten(id)
	r.Unlisten(id) // twice is harmless
}

// A listener without a frontend lets clients wait; it can change frontends.
func TestAssign(t *testing.T) {
	r := newRig(t)
	r.desk.setRoute(to(serve(t, echo), 0, 1))
	id, err := r.Listen(-1, netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, r.Addr(id).String())
	r.Assign(id, 0)
	ping(t, c, "hello")
	r.SetFrontend(5, FrontendOptions{LogSessions: true})
	r.Assign(id, 5)
	d := dial(t, r.Addr(id).String())
	ping(t, d, "hello")
	_ = d.Close()
	if rec := r.desk.ended(t, 1)[0]; rec.Frontend != 5 {
		t.Errorf("record %+v", rec)
	}
}

func TestIdleLimits(t *testing.T) {
	const limit = 60 * time.Millisecond
	cases := map[string]struct {
		setup func(*setup)
		act   func(client, server *net.TCPConn)
		cause Cause
	}{
		"client": {func(s *setup) { s.frontend.Timeout = limit }, func(c, s *net.TCPConn) {}, ClientTimeout},
		"server": {func(s *setup) { s.backend.Timeout = limit }, func(c, s *net.TCPConn) {}, ServerTimeout},
		"client half-closed": {
			func(s *setup) { s.frontend.Timeout, s.frontend.TimeoutFin = time.Minute, limit },
			func(c, s *net.TCPConn) { _ = c.CloseWrite() }, ClientTimeout,
		},
		"server half-closed": {
			func(s *setup) { s.backend.TimeoutFin = limit },
			func(c, s *net.TCPConn) { _ = s.CloseWrite() }, ServerTimeout,
		},
		"set while it runs": {func(s *setup) {}, func(c, s *net.TCPConn) {}, ServerTimeout},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				if !idleLimit(t, limit, c.setup, c.act, c.cause, name == "set while it runs") {
					return
				}
			}
			t.Error("this machine stood still for longer than the limit, five times over")
		})
	}
}

// idleLimit keeps a session alive by traffic, one way as well as the other,
// then lets it idle. It reports whether the machine stood still meanwhile, so
// that the session may rightly have ended early.
func idleLimit(t *testing.T, limit time.Duration, change func(*setup), act func(client, server *net.TCPConn), cause Cause, late bool) (stalled bool) {
	r := newRig(t, change)
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	client := r.dial()
	server := await(t, "the server's side", conns)
	if late {
		ping2(t, client, server)
		r.SetBackend(0, BackendOptions{Timeout: limit})
	}
	last := time.Now()
	for _, from := range []net.Conn{client, server} {
		to := map[net.Conn]net.Conn{client: server, server: client}[from]
		for end := time.Now().Add(limit * 5 / 4); time.Now().Before(end); time.Sleep(limit / 10) {
			last = time.Now()
			_, _ = io.WriteString(from, "hello")
			_ = to.SetReadDeadline(time.Now().Add(patience))
			_, err := io.ReadFull(to, make([]byte, 5))
			if time.Since(last) > limit/2 {
				return true
			}
			if err != nil {
				t.Fatalf("in spite of traffic: %v", err)
			}
		}
	}
	act(client, server)
	rec := r.desk.ended(t, 1)[0]
	if idle := time.Since(last); rec.Cause != cause || idle < limit || idle > patience/2 {
		t.Errorf("cause %d after %v", rec.Cause, idle)
	}
	return false
}

// Pipes that cannot be had cost speed, not bytes; those that can are pooled,
// bounded, and closed when nobody needs them.
func TestPipes(t *testing.T) {
	r := newRig(t, func(s *setup) { s.tune.scratch, s.tune.pipes, s.Loops = 4<<10, 2, 1 })
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	type end struct{ client, server *net.TCPConn }
	var ends []end
	errs := make(chan error, 100)
	const sessions, size = 6, 8 << 20
	for i := range uint64(sessions) {
		c := r.dial()
		s := await(t, "the server's side", conns)
		ends = append(ends, end{c, s})
		go func() { errs <- sendStream(c, i, size) }()
	}
	// All stall, so two hold pipes and the others chunks.
	eventually(t, "stalled sessions", func() bool {
		load := r.Loads()[0]
		return load.Pipes == 2 && load.Chunks >= 1 && load.Pipes+load.Chunks == sessions
	})
	for i, e := range ends {
		go func() { errs <- wantStream(io.LimitReader(e.server, size), uint64(i), size) }()
	}
	for range 2 * sessions {
		if err := await(t, "a stream's end", errs); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "no held bytes", func() bool { return r.Loads()[0].Chunks == 0 })
}

// What a session costs while it idles. The collector must never look at it.
func TestSessionIsSmallAndFlat(t *testing.T) {
	size := unsafe.Sizeof(session{})
	t.Logf("a session is %d bytes", size)
	if size >= 512 {
		t.Errorf("a session is %d bytes", size)
	}
	var flat func(reflect.Type) bool
	flat = func(ty reflect.Type) bool {
		switch ty.Kind() {
		case reflect.Struct:
			for i := range ty.NumField() {
				if !flat(ty.Field(i).Type) {
					return false
				}
			}
			return true
		case reflect.Array:
			return flat(ty.Elem())
		case reflect.Pointer, reflect.Slice, reflect.Map, reflect.String, reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer:
			return false
		}
		return true
	}
	if !flat(reflect.TypeFor[session]()) {
		t.Error("a session holds pointers")
	}
}
