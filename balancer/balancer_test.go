package balancer

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pointsman/config"
	"pointsman/leaktest"
)

// node is a PostgreSQL node to a balancer's eyes: a REST API that answers as
// Patroni does, and a port that greets each session with the node's name and
// the number that it last led under, then echoes lines.
type node struct {
	name string
	sql  net.Listener
	rest net.Listener
	http *http.Server

	mu       sync.Mutex
	leads    bool
	timeline int
	mute     bool // REST accepts and answers nothing
	lags     bool // GET /replica is 503
	standby  bool // the cluster follows another: its leader is a standby_leader
	probes   int
	conns    map[net.Conn]bool
}

func startNode(t *testing.T, name string) *node {
	t.Helper()
	n := &node{name: name, sql: listen(t), rest: listen(t), conns: map[net.Conn]bool{}}
	n.http = &http.Server{Handler: n}
	go n.http.Serve(n.rest)
	go n.serveSQL()
	t.Cleanup(n.stop)
	return n
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// stop is the death of the host's processes.
func (n *node) stop() {
	n.http.Close()
	n.sql.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.Close()
	}
}

// vanish is the death of the host as its clients see it: nobody listens any
// more, and what was open stays so.
func (n *node) vanish() {
	n.http.Close()
	n.sql.Close()
}

func (n *node) set(leads bool, timeline int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leads, n.timeline = leads, timeline
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	leads, timeline, mute, lags, standby := n.leads, n.timeline, n.mute, n.lags, n.standby
	n.probes++
	n.mu.Unlock()
	if mute {
		<-r.Context().Done()
		return
	}
	role, fits := "replica", leads
	if leads {
		role = "primary"
	}
	if leads && standby {
		role = "standby_leader"
	}
	switch r.URL.Path {
	case "/primary":
		fits = leads && !standby
	case "/replica":
		fits = !leads && !lags
	}
	if !fits {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintf(w, `{"state": "running", "role": %q, "timeline": %d}`, role, timeline)
}

func (n *node) serveSQL() {
	for {
		c, err := n.sql.Accept()
		if err != nil {
			return
		}
		n.mu.Lock()
		n.conns[c] = true
		n.mu.Unlock()
		go func() {
			fmt.Fprintf(c, "%s\n", n.name)
			// Without the pipes of splice, which the net package keeps for later.
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			c.Close()
			n.mu.Lock()
			delete(n.conns, c)
			n.mu.Unlock()
		}()
	}
}

// world is a balancer in front of nodes.
type world struct {
	t     *testing.T
	b     *Balancer
	nodes []*node
	cfg   config.Config
	log   *logBuffer
	end   context.CancelFunc
	ended chan error
}

// start runs a balancer with fast checks in front of nodes of these names.
func start(t *testing.T, change func(*config.Config), names ...string) *world {
	t.Helper()
	leaktest.Check(t)
	w := &world{t: t, log: &logBuffer{}, ended: make(chan error, 1)}
	for _, name := range names {
		w.nodes = append(w.nodes, startNode(t, name))
	}
	w.cfg = w.config()
	if change != nil {
		change(&w.cfg)
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	w.b, err = New(Options{Version: "test", Loops: 2, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.end = cancel
	go func() { w.ended <- w.b.Run(ctx) }()
	t.Cleanup(w.stop)
	if err := w.b.Apply(w.cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) stop() {
	if w.end == nil {
		return
	}
	w.end()
	w.end = nil
	select {
	case err := <-w.ended:
		if err != nil {
			w.t.Error(err)
		}
	case <-time.After(10 * time.Second):
		w.t.Fatal("the balancer does not end")
	}
	if w.t.Failed() {
		w.t.Logf("log:\n%s", w.log.String())
	}
}

func (w *world) config() config.Config {
	f := config.NewFrontend("ft")
	f.DefaultBackend = "bk"
	free := listen(w.t)
	f.Binds = append(f.Binds, free.Addr().(*net.TCPAddr).AddrPort())
	free.Close()
	b := config.NewBackend("bk")
	b.Inter, b.FastInter, b.TimeoutCheck = 200*time.Millisecond, 20*time.Millisecond, 300*time.Millisecond
	for _, n := range w.nodes {
		s := config.NewServer(n.name)
		s.Backend = "bk"
		s.Address = config.HostPort{Host: "127.0.0.1", Port: portOf(n.sql)}
		s.CheckPort = portOf(n.rest)
		b.Servers = append(b.Servers, s)
	}
	return config.Config{Global: config.NewGlobal(), Frontends: []config.Frontend{f}, Backends: []config.Backend{b}}
}

func portOf(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// lead makes node i the leader and the others replicas, as Patroni would.
func (w *world) lead(i, timeline int) {
	for j, n := range w.nodes {
		n.set(j == i, timeline)
	}
}

// session is a client's.
type session struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (w *world) dial() *session {
	w.t.Helper()
	c, err := net.Dial("tcp4", w.cfg.Frontends[0].Binds[0].String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return &session{w.t, c, bufio.NewReader(c)}
}

// line reads one line; "" is the session's end.
func (s *session) line() string {
	s.t.Helper()
	text, err := s.in.ReadString('\n')
	if os.IsTimeout(err) {
		s.t.Fatal("nothing to read")
	}
	return strings.TrimSuffix(text, "\n")
}

// echo checks that the session is alive and loses nothing.
func (s *session) echo(text string) {
	s.t.Helper()
	fmt.Fprintln(s.conn, text)
	if got := s.line(); got != text {
		s.t.Fatalf("echo of %q is %q", text, got)
	}
}

func (s *session) wantNode(name string) {
	s.t.Helper()
	if got := s.line(); got != name {
		s.t.Fatalf("the session is with %q, want %q", got, name)
	}
}

// until waits for a snapshot that is as wanted.
func (w *world) until(what string, is func(*Snapshot) bool) *Snapshot {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s := w.b.Snapshot()
		if s == nil {
			w.t.Fatal("the balancer has ended")
		}
		if is(s) {
			return s
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("never %s: %+v", what, s.Backends)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (w *world) untilLeader(name string) *Snapshot {
	w.t.Helper()
	return w.until("led by "+name, func(s *Snapshot) bool { return s.Backends[0].Leader == name && s.Backends[0].Accepting })
}

func (w *world) untilLog(text string) {
	w.t.Helper()
	w.until("a log line with "+text, func(*Snapshot) bool { return strings.Contains(w.log.String(), text) })
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
