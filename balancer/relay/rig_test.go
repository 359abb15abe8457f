package relay

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pointsman/leaktest"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCrowd) != "" {
		if err := serveCrowd(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// As the daemon has it: one more than the loops.
	runtime.GOMAXPROCS(maxLoops + 1)
	os.Exit(m.Run())
}

// patience is how long a test waits for what must happen; none waits so long
// unless it fails.
var patience = envDuration("RELAY_PATIENCE", 10*time.Second)

// eventually waits until ok, and fails the test if that never comes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never came: %s", what)
}

// desk is the tests' Director. It keeps books of the places.
type desk struct {
	mu      sync.Mutex
	route   func(Request) (Ticket, time.Duration)
	places  [Slotted + 1]int
	asked   int
	events  []Event
	firsts  []Event
	accepts int // ServerAccepts
	records []Record
	fault   error
	release func()        // called on the loop's thread at each Release
	take    func(*Record) // gets the records, instead of keeping them
}

func (d *desk) Route(q Request) (Ticket, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	t, limit := d.route(q)
	d.move(q.Have.Place, t.Place)
	return t, limit
}

func (d *desk) move(from, to Place) {
	if from != Nowhere {
		d.places[from]--
		if d.places[from] < 0 {
			d.fault = fmt.Errorf("place %d was given back twice", from)
		}
	}
	if to != Nowhere {
		d.places[to]++
	}
}

func (d *desk) Excuse(int32) string { return "no server" }

func (d *desk) Release(t Ticket, _ Cause) {
	if d.release != nil {
		d.release()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t.Place == Nowhere {
		d.fault = errors.New("Release of no place")
	}
	d.move(t.Place, Nowhere)
}

func (d *desk) Observe(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.Kind {
	case FirstSession: // of sessions' beginnings, so apart
		d.firsts = append(d.firsts, e)
		return
	case ServerAccepts:
		d.accepts++
		return
	}
	d.events = append(d.events, e)
}

func (d *desk) Ended(r *Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.take != nil {
		d.take(r)
		return
	}
	d.records = append(d.records, *r)
}

func (d *desk) setRoute(route func(Request) (Ticket, time.Duration)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.route = route
}

func (d *desk) count(p Place) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.places[p]
}

// seen returns the events so far.
func (d *desk) seen() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.events)
}

func (d *desk) saw(kind EventKind) (n int) {
	for _, e := range d.seen() {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// ended waits for n records and returns them.
func (d *desk) ended(t testing.TB, n int) []Record {
	t.Helper()
	var got []Record
	eventually(t, fmt.Sprintf("%d ended sessions", n), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		got = append(got[:0], d.records...)
		return len(got) >= n
	})
	if len(got) > n {
		t.Fatalf("%d sessions ended, want %d: %+v", len(got), n, got)
	}
	return got
}

// to sends every client to one server.
func to(server net.Listener, number int32, epoch Epoch) func(Request) (Ticket, time.Duration) {
	return toAddr(addrOf(server), number, epoch)
}

func toAddr(addr netip.AddrPort, number int32, epoch Epoch) func(Request) (Ticket, time.Duration) {
	return func(Request) (Ticket, time.Duration) {
		return Ticket{Place: Slotted, Target: Target{Addr: addr, Server: number, Epoch: epoch}}, 0
	}
}

// hold lets every client wait.
func hold(limit time.Duration) func(Request) (Ticket, time.Duration) {
	return func(Request) (Ticket, time.Duration) { return Ticket{Place: Held}, limit }
}

func addrOf(l net.Listener) netip.AddrPort {
	return netip.MustParseAddrPort(l.Addr().String())
}

// rig is an engine with one frontend (0), one backend (0), and a desk.
type rig struct {
	*Engine
	t        testing.TB
	desk     *desk
	log      *logBuffer
	listener ListenerID
	addr     string
}

type setup struct {
	Options
	frontend FrontendOptions
	backend  BackendOptions
	listen   string
}

// newRig starts an engine that is ended, with all that it has, by the test's
// end, and then must have left nothing behind.
func newRig(t testing.TB, change ...func(*setup)) *rig {
	t.Helper()
	leaktest.Check(t)
	s := setup{
		frontend: FrontendOptions{LogSessions: true},
		backend:  BackendOptions{TimeoutConnect: 3 * time.Second, Retry: 20 * time.Millisecond},
		listen:   "127.0.0.1:0",
	}
	s.tune = machineTuning()
	for _, c := range change {
		c(&s)
	}
	r := &rig{t: t, desk: &desk{route: hold(time.Minute)}, log: &logBuffer{}}
	s.Director, s.Log = r.desk, slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.Engine, err = New(s.Options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	r.SetFrontend(0, s.frontend)
	r.SetBackend(0, s.backend)
	if r.listener, err = r.Listen(0, netip.MustParseAddrPort(s.listen)); err != nil {
		t.Fatal(err)
	}
	r.addr = r.Addr(r.listener).String()
	return r
}

func (r *rig) end() {
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	if r.desk.fault != nil {
		r.t.Error(r.desk.fault)
	}
	if r.desk.places != [Slotted + 1]int{} {
		r.t.Errorf("places that were never given back: %v", r.desk.places)
	}
	for i, load := range r.Loads() {
		if load != (Load{}) {
			r.t.Errorf("loop %d ended with %+v", i, load)
		}
	}
	frontends, servers := r.Counters()
	if frontends[0].Current != 0 || servers[0].Current != 0 {
		r.t.Errorf("after the end there are %d clients, %d sessions", frontends[0].Current, servers[0].Current)
	}
}

// established waits until server 0 had n sessions.
func (r *rig) established(n int) {
	r.t.Helper()
	eventually(r.t, "established sessions", func() bool { _, s := r.Counters(); return s[0].Total == uint64(n) })
}

// dial connects a client.
func (r *rig) dial() *net.TCPConn { return dial(r.t, r.addr) }

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	return c.(*net.TCPConn)
}

// serve runs handle for each connection, until the test ends.
func serve(t testing.TB, handle func(*net.TCPConn)) net.Listener {
	return serveOn(t, "127.0.0.1:0", handle)
}

func serveOn(t testing.TB, addr string, handle func(*net.TCPConn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	serveAt(t, l, handle)
	return l
}

// serveAt is serve on a listener that is there already.
func serveAt(t testing.TB, l net.Listener, handle func(*net.TCPConn)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(3 * patience))
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// connectTCP starts a connect from a raw socket.
func connectTCP(at endpoint) (fd int32, errno syscall.Errno) {
	fd, errno = socketTCP(at.family())
	if errno == 0 {
		errno = connectFD(fd, at)
	}
	return fd, errno
}

// accepted serves by handing the connections to the test.
func accepted(t testing.TB) (net.Listener, <-chan *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return acceptedOn(t, l)
}

// acceptedOn is accepted on a listener that is there already.
func acceptedOn(t testing.TB, l net.Listener) (net.Listener, <-chan *net.TCPConn) {
	conns := make(chan *net.TCPConn, 1024)
	done := make(chan struct{})
	serveAt(t, l, func(c *net.TCPConn) {
		conns <- c
		<-done
	})
	t.Cleanup(func() { close(done) }) // runs before serveAt's
	return l, conns
}

// await receives what must come.
func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

// echo sends back what it reads, and then the end.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, c)
	_ = c.CloseWrite()
}

// ping sends text and wants it back.
func ping(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	wantText(t, c, text)
}

func wantText(t testing.TB, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("read %q (%v), want %q", got[:n], err, text)
	}
}

// wantEnd wants the end of the stream now: EOF or, with rst, a reset.
func wantEnd(t testing.TB, c net.Conn, rst bool) {
	t.Helper()
	n, err := io.Copy(io.Discard, c)
	if n != 0 {
		t.Fatalf("read %d bytes before the end", n)
	}
	if rst && !errors.Is(err, syscall.ECONNRESET) || !rst && err != nil {
		t.Fatalf("the stream ended with %v; reset wanted: %v", err, rst)
	}
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
