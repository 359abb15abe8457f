package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary plays the parts of the program that it starts itself for.
func TestMain(m *testing.M) {
	if role, _ := role(os.Args[1:]); role != "" {
		main()
		return
	}
	// Under the race detector a program lingers for a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// harnesses counts them: no two runs at once may have the same addresses.
var harnesses atomic.Int32

func newHarness(t *testing.T) *harness {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &harness{runs: 100 * int(harnesses.Add(1)), self: self, dir: t.TempDir(), sites: map[string]site{}, warm: 20 * time.Millisecond, measure: 100 * time.Millisecond, settle: 20 * time.Millisecond}
}

// Every kind of work, through the relay that is always there.
func TestRun(t *testing.T) {
	copies, err := pick("proxy", allProxies, "copy")
	if err != nil {
		t.Fatal(err)
	}
	few := workload{name: "few", kind: pingPong, sessions: 5, size: 100}
	short := workload{name: "short", kind: connectClose, sessions: 5, size: 1}
	for _, w := range []workload{
		few, few.fixed(500), short, short.fixed(300),
		{name: "tiny", kind: pingPong, sessions: 2, size: 1},
		{name: "long", kind: pingPong, sessions: 3, size: 1 << 20}, // longer than any socket's buffer
		{name: "streams", kind: bulk, sessions: 3},
		{name: "silent", kind: idle, sessions: 50, size: 100},
	} {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			p := copies[0]
			p.program = h.self
			s, err := h.run(t.Context(), p, w, "")
			if err != nil {
				t.Fatal(err)
			}
			if s.Ops == 0 {
				t.Errorf("nothing was counted: %+v", s)
			}
			if w.kind == idle {
				if s.Idle <= 0 || s.Idle > 1<<20 || s.Resident < 1<<20 {
					t.Errorf("a session takes %v bytes, the relay %v", s.Idle, s.Resident)
				}
				return
			}
			if s.Seconds < 0.1 || s.CPU <= 0 || s.CPU > 2*threads*s.Seconds || s.Client <= 0 || s.Server <= 0 {
				t.Errorf("used: %+v", s.usage)
			}
			if w.rate > 0 && (rate(s) < 0.2*w.rate || rate(s) > 2*w.rate) {
				t.Errorf("%.0f requests per second, not %.0f", rate(s), w.rate)
			}
			if w.kind != bulk && (s.Times.count != s.Ops || s.P50 <= 0 || s.P99 < s.P50 || s.P999 < s.P99) {
				t.Errorf("p50 %v, p99 %v, p99.9 %v us", s.P50, s.P99, s.P999)
			}
		})
	}
}

// A relay that damages, loses or ends the stream must not look like a fast one.
func TestClientNotices(t *testing.T) {
	flip := func(p []byte) []byte { p[len(p)-1] ^= 1; return p }
	for _, c := range []struct {
		name   string
		kind   kind
		size   int
		answer func(net.Conn)
		want   string
	}{
		{"a flipped bit", pingPong, 100, echoOf(100, flip), "a reply differs"},
		{"another's reply", pingPong, 100, echoOf(100, func(p []byte) []byte { p[0]++; return p }), "a reply differs"},
		{"an end", pingPong, 100, func(conn net.Conn) { io.ReadFull(conn, make([]byte, 100)) }, "the session was closed"},
		{"a flipped byte", connectClose, 1, echoOf(1, flip), "sent one byte"},
		{"two bytes for one", connectClose, 1, echoOf(1, func(p []byte) []byte { return append(p, p...) }), "sent one byte"},
		{"a lost page", bulk, 0, func(conn net.Conn) {
			conn.Write(pattern(64 << 10))
			conn.Write(pattern(64 << 10)[4096-64<<10%patternLength:])
			io.Copy(io.Discard, conn)
		}, "of the stream is"},
		{"an end of the stream", bulk, 0, func(conn net.Conn) { conn.Write(pattern(1000)) }, "reading the stream: 0 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := job{Kind: c.kind, Target: answering(t, c.answer), Size: c.size, Sessions: 1, Measure: time.Second, Server: os.Getpid()}
			h := newHarness(t)
			_, err := h.load(t.Context(), site{lan: here}, h.dir, j)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the client says %v, want %q", err, c.want)
			}
		})
	}
}

// answering returns the address of a listener that handles one session at a time.
func answering(t *testing.T, answer func(net.Conn)) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func echoOf(size int, change func([]byte) []byte) func(net.Conn) {
	return func(conn net.Conn) {
		p := make([]byte, size)
		if _, err := io.ReadFull(conn, p); err == nil {
			conn.Write(change(p))
			io.ReadFull(conn, p)
		}
	}
}

// More than all the buffers hold comes back as it was, late as it is read.
func TestEchoOfMoreThanBuffersHold(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	addr, err := freeAddress(0)
	if err != nil {
		t.Fatal(err)
	}
	at := site{servers: here}
	server, err := h.serve(t.Context(), at, workload{kind: pingPong}, setup{Dir: h.dir, Target: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer server.stop()
	conn, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := pattern(32 << 20)
	done := make(chan error)
	go func() {
		_, err := conn.Write(sent)
		done <- err
	}()
	// Until the writer is stuck: nothing moves any more.
	time.Sleep(100 * time.Millisecond)
	back := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, back); err != nil || !bytes.Equal(sent, back) {
		t.Errorf("it came back differently, %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A proxy's workers end with it, also where it forgets them.
func TestStopLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	p, err := start(here, dir, "shell", "sh", nil, "-c", "sleep 100 & echo started; wait")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for limit := time.Now().Add(5 * time.Second); len(pids) < 2; {
		if pids, err = p.pids(); err != nil || time.Now().After(limit) {
			t.Fatalf("waiting for the shell's child: %v, %v", pids, err)
		}
	}
	p.stop()
	for limit := time.Now().Add(5 * time.Second); alive(pids[1]); {
		if time.Now().After(limit) {
			t.Fatalf("process %d still runs", pids[1])
		}
	}
}

// alive reports whether a process runs; one that nobody waited for does not.
func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && unix.Kill(pid, 0) == nil && !strings.Contains(string(text), ") Z ")
}

func TestInterrupt(t *testing.T) { interrupted(t, onLoopback) }

func interrupted(t *testing.T, place string) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	out := filepath.Join(t.TempDir(), "result.json")
	begin := time.Now()
	err := bench(ctx, []string{"-place", place, "-proxies", "copy", "-only", "bulk-1", "-seconds", "60", "-out", out}, io.Discard, io.Discard)
	if err == nil || err.Error() != "interrupted" {
		t.Errorf("an interrupted bench says %v", err)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("it took %s to end", took)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("an interrupted bench wrote a result")
	}
	for _, pid := range children(t) {
		t.Errorf("process %d still runs", pid)
	}
}

// children returns the processes that this one started and has not waited for.
func children(t *testing.T) []int {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended meanwhile
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, pid)
		}
	}
	return out
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // part of the error; "" = none
	}{
		{"", ""},
		{"-only bulk-1,idle -proxies nginx", ""},
		{"-only bulky", `no workload "bulky"; there are: ping-pong-1, `},
		{"-proxies haproxy,squid", `no proxy "squid"; there are: haproxy, `},
		{"-rounds 0", "must be above 0"},
		{"-seconds -1", "must be above 0"},
		{"-place moon", `no place "moon"`},
		{"-place loopback -proxies dnat", "none of these proxies can"},
		{"-only fence -proxies nginx", "none of these proxies can"},
		{"quickly", `unexpected argument "quickly"`},
	} {
		_, err := parse(strings.Fields(c.args), io.Discard)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
	o, err := parse([]string{"-only", "idle, bulk-1"}, io.Discard)
	if err != nil || len(o.workloads) != 2 || o.workloads[0].name != "bulk-1" {
		t.Errorf("picked %v, %v", o.workloads, err)
	}
}

// Each configuration names the addresses, and its servers once.
func TestConfigurations(t *testing.T) {
	for _, servers := range []int{0, 3} {
		for _, p := range allProxies {
			if servers > 0 && !(workload{servers: servers}).can(p) {
				continue
			}
			dir := t.TempDir()
			s := setup{
				Listen: netip.MustParseAddrPort("127.0.0.2:1111"), Target: netip.MustParseAddrPort("127.0.0.3:2222"),
				Servers: servers, Inter: "200ms", Dir: dir,
			}
			args, err := p.command(s)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "config"))
			if err != nil {
				t.Fatal(err)
			}
			all := string(text) + strings.Join(args, " ")
			for _, addr := range []string{"127.0.0.2", "127.0.0.3:2222"} {
				if strings.Count(all, addr) != 1 {
					t.Errorf("%s: %s is there %d times:\n%s", p.name, addr, strings.Count(all, addr), all)
				}
			}
			if servers > 0 {
				for _, part := range []string{"127.0.0.3:2223", "127.0.0.3:2224", "2322", "2323", "2324"} {
					if strings.Count(all, part) != 1 {
						t.Errorf("%s: %s is there %d times:\n%s", p.name, part, strings.Count(all, part), all)
					}
				}
			}
			if strings.ContainsAny(strings.Join(args, " "), "{}") || strings.Contains(all, "{{") || strings.Contains(all, "<no value>") {
				t.Errorf("%s: not filled in: %v\n%s", p.name, args, all)
			}
		}
	}
}
