package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pointsman/balancer"
	"pointsman/cmd/pointsman/simulation"
)

// lines is what a program wrote, readable while it still writes.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

// call runs the program to its end.
func call(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs lines
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	status = pointsman(ctx, env{&out, &errs}, append([]string{"pointsman"}, args...))
	return status, out.String(), errs.String()
}

// process is the program while it runs.
type process struct {
	t        *testing.T
	out      *lines // both streams
	ended    chan int
	file     string
	socket   string
	listener string
}

// spawn starts `run` on a configuration in front of the servers given, and
// waits until it listens. head is put into the backend's section.
func spawn(t *testing.T, servers, head string) *process {
	t.Helper()
	p := prepare(t, servers)
	p.write(p.uci(servers, head))
	ctx, cancel := context.WithCancel(context.Background())
	go func() { p.ended <- pointsman(ctx, env{p.out, p.out}, []string{"pointsman", "run", "-c", p.file}) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			t.Error("the daemon does not end")
		}
		if t.Failed() {
			t.Logf("log:\n%s", p.out)
		}
	})
	p.until("frontend ft listens on")
	return p
}

func (p *process) uci(servers, head string) string {
	return fmt.Sprintf(`
config global 'global'
	option control '%s'
config frontend 'ft'
	list bind '%s'
	option default_backend 'bk'
config backend 'bk'
	option inter '200ms'
	option fastinter '20ms'
	%s
%s`, p.socket, p.listener, head, servers)
}

func (p *process) write(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for a text in the log.
func (p *process) until(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(p.out.String(), text); time.Sleep(2 * time.Millisecond) {
		select {
		case status := <-p.ended:
			p.ended <- status
			p.t.Fatalf("the daemon ended with status %d:\n%s", status, p.out)
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("never logged %q:\n%s", text, p.out)
		}
	}
}

func (p *process) status() *balancer.Snapshot {
	p.t.Helper()
	status, out, errs := call(p.t, "status", "--socket", p.socket, "--json")
	var s balancer.Snapshot
	if err := json.Unmarshal([]byte(out), &s); status != 0 || err != nil {
		p.t.Fatalf("status %d, %v: %s%s", status, err, out, errs)
	}
	return &s
}

func cluster(t *testing.T) *simulation.Cluster {
	t.Helper()
	c, err := simulation.NewCluster("postgres-1", "postgres-2", "postgres-3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.Handover, c.Promotion, c.Return = 20*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
	return c
}

func TestMainJob(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	p.until("leader of bk is now postgres-1 (timeline 1), was nobody")
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	var all []*simulation.Client
	for i, style := range []simulation.Style{simulation.Keeps, simulation.Anew} {
		client := simulation.NewClient(fmt.Sprint("client-", i), style, p.listener, func(error) {})
		all = append(all, client)
		clients.Go(func() { client.Run(ctx) })
	}
	defer clients.Wait()
	defer cancel()
	c.TakeWrites()
	for i := range 3 {
		change, err := c.Failover(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p.until(fmt.Sprintf("leader of bk is now %s (timeline %d), was %s", change.To, change.Timeline, change.From))
		confirmed := time.Now()
		time.Sleep(200 * time.Millisecond) // let them write
		for _, w := range c.TakeWrites() {
			if w.At.After(confirmed) && w.Node != change.To {
				t.Errorf("failover %d: a write reached %s after %s was confirmed", i, w.Node, change.To)
			}
		}
	}
	for _, client := range all {
		if s := client.Stats(); s.ReadOnly > 0 || s.Writes == 0 {
			t.Errorf("%s: %+v", client.Name, s)
		}
	}
}

func TestStatus(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	p.until("leader of bk is now postgres-1")
	s := p.status()
	if s.Backends[0].Leader != "postgres-1" || s.Version != version || s.Config != p.file {
		t.Errorf("%+v", s)
	}
	status, out, errs := call(t, "status", "-c", p.file)
	for _, want := range []string{"frontend ft -> bk", "backend bk, policy leader: leader postgres-1 for ", "* postgres-1", p.listener, "replica"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s%s", want, out, errs)
		}
	}
	for _, line := range strings.Split(out, "\n") {
		if len(line) > 100 {
			t.Errorf("a line of %d bytes: %s", len(line), line)
		}
	}
	if status != 0 {
		t.Errorf("exit status %d", status)
	}
	if status, out, _ := call(t, "status", "--socket", p.socket, "--healthy"); status != 0 || out != "" {
		t.Errorf("--healthy with a leader: %d %q", status, out)
	}
	for _, n := range c.Nodes() {
		n.Crash()
	}
	p.until("bk has no leader, was postgres-1")
	if status, _, _ := call(t, "status", "--socket", p.socket, "--healthy"); status != 1 {
		t.Errorf("--healthy without a leader: %d", status)
	}
	if _, out, _ := call(t, "status", "--socket", p.socket); !strings.Contains(out, "NO LEADER for") {
		t.Errorf("status:\n%s", out)
	}
}

func TestStatusWithoutDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	status, _, errs := call(t, "status", "--socket", socket)
	if status != 1 || !strings.Contains(errs, "no daemon answers at "+socket) {
		t.Errorf("%d: %s", status, errs)
	}
	if status, out, errs := call(t, "status", "--socket", socket, "--healthy"); status != 1 || out+errs != "" {
		t.Errorf("--healthy: %d %q", status, out+errs)
	}
}

func TestReload(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	p.until("leader of bk is now postgres-1")
	conn, err := net.Dial("tcp4", p.listener)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func() string {
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprintln(conn, "WHO")
		buf := make([]byte, 200)
		n, _ := conn.Read(buf)
		return string(buf[:n])
	}
	if got := ask(); !strings.Contains(got, "postgres-1") {
		t.Fatalf("WHO: %q", got)
	}

	p.write(p.uci(c.UCI("bk"), "option chek_uri '/primary'"))
	hangup(t)
	p.until("reload refused, the running configuration goes on")
	p.until("chek_uri")
	if s := p.status(); !strings.Contains(s.ReloadErr, "check_uri") {
		t.Errorf("reload_error: %q", s.ReloadErr)
	}
	if got := ask(); !strings.Contains(got, "postgres-1") {
		t.Fatalf("after a bad file: %q", got)
	}

	p.write(strings.Replace(p.uci(c.UCI("bk"), "option fall '5'"), "option control", "option loops '1'\n\toption control", 1))
	hangup(t)
	p.until("reloaded " + p.file)
	p.until("options 'control' and 'loops' are read at the start only")
	if s := p.status(); s.ReloadErr != "" {
		t.Errorf("reload_error: %q", s.ReloadErr)
	}
	if got := ask(); !strings.Contains(got, "postgres-1") {
		t.Fatalf("after a good file: %q", got)
	}
	// Still managed: the next leader change ends the session of before.
	if _, err := c.Failover(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.until("was postgres-1")
	if got := ask(); got != "" {
		t.Errorf("after the leader changed: %q", got)
	}
}

// hangup sends this process, in which the daemon runs, what procd sends.
func hangup(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

func TestBadStarts(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := func(bind, global string) string {
		return fmt.Sprintf("config global 'global'\n\toption control '%s'\nconfig frontend 'ft'\n\tlist bind '%s'\n\toption default_backend 'bk'\n"+
			"config backend 'bk'\nconfig server 's'\n\toption backend 'bk'\n\toption address '127.0.0.1:1'\n", global, bind)
	}
	notASocket := file("file", "")
	free, release, err := simulation.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	for _, c := range []struct{ name, file, want string }{
		{"no such file", filepath.Join(dir, "none"), "none"},
		{"a folder", dir, dir},
		{"empty", file("empty", ""), "no frontend"},
		{"port in use", file("taken", config(taken.Addr().String(), "")), taken.Addr().String() + ": "},
		{"a typo", file("typo", "config frontend 'ft'\n\tlist bnd ':1'\n"), filepath.Join(dir, "typo") + ":2:"},
		{"control below a file", file("control", config(free.String(), notASocket+"/control.sock")), "control"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out, errs := call(t, "run", "-c", c.file)
			if status != 1 || !strings.Contains(errs, c.want) {
				t.Errorf("exit status %d, want 1 and %q:\n%s%s", status, c.want, out, errs)
			}
		})
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	other := strings.Replace(p.uci(c.UCI("bk"), ""), p.listener, "127.0.0.2:"+p.listener[strings.LastIndex(p.listener, ":")+1:], 1)
	file := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(file, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := call(t, "run", "-c", file); status != 1 || !strings.Contains(errs, "another pointsman answers there") {
		t.Errorf("%d: %s", status, errs)
	}
	if p.status().Backends[0].Name != "bk" {
		t.Error("the first one no longer answers")
	}
}

func TestVersionAndUnknownCommand(t *testing.T) {
	if status, out, _ := call(t, "--version"); status != 0 || !strings.Contains(out, version) {
		t.Errorf("--version: %d %q", status, out)
	}
	if status, _, errs := call(t, "stauts"); status != 1 || !strings.Contains(errs, "stauts") {
		t.Errorf("a typo: %d %q", status, errs)
	}
}

// TestSeveralBinds listens on both families at once; their wildcards do not
// get into each other's way.
func TestSeveralBinds(t *testing.T) {
	c := cluster(t)
	p := prepare(t, c.UCI("bk"))
	port := p.listener[strings.LastIndex(p.listener, ":")+1:]
	p.write(strings.Replace(p.uci(c.UCI("bk"), ""), fmt.Sprintf("list bind '%s'", p.listener),
		fmt.Sprintf("list bind ':%s'\n\tlist bind '[::]:%s'", port, port), 1))
	p.launch(program(t, 0, "run", "-c", p.file))
	p.until("leader of bk is now postgres-1")
	for _, addr := range []string{"127.0.0.1:" + port, "[::1]:" + port} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		w := &whoConn{t, conn}
		w.who("postgres-1")
		conn.Close()
	}
	f := p.status().Frontends[0]
	for deadline := time.Now().Add(5 * time.Second); f.Total < 2 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		f = p.status().Frontends[0] // the loops' counters may be 250 ms old
	}
	if f.Total != 2 || len(f.Binds) != 2 {
		t.Errorf("%+v", f)
	}
}
