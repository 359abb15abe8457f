package healthcheck

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pointsman/config"
	"pointsman/leaktest"
)

const childEnv = "POINTSMAN_TEST_MONITOR"

func TestMain(m *testing.M) {
	if addr := os.Getenv(childEnv); addr != "" {
		watchAndPrint(netip.MustParseAddrPort(addr))
		return
	}
	os.Exit(m.Run())
}

// watchAndPrint is the child process: a monitor that prints its reports until
// its standard input ends.
func watchAndPrint(addr netip.AddrPort) {
	m := NewMonitor(MonitorOptions{
		Prober: &HTTP{request: []byte("GET / HTTP/1.0\r\n\r\n"), expect: config.StatusSet{{From: 200, To: 200}}}, Addr: addr,
		Inter: 20 * ms, FastInter: 20 * ms, Timeout: 500 * ms, Rise: 1, Fall: 1,
	}, func(r Report) { fmt.Println(r.Up, r.Reason) })
	ctx, cancel := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }()
	m.Run(ctx)
}

// The process is stopped in the midst of a probe, for longer than the probe
// may take, and goes on: with fall 1, one false failure would be a false DOWN.
func TestStoppedProcess(t *testing.T) {
	const stopAt, stopFor = 5, 1000 * ms
	leaktest.Check(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(self)
	pid := make(chan int, 1)
	var probes, before, after atomic.Int32
	peer := serve(t, func(c net.Conn) {
		readRequest(c)
		if probes.Add(1) == stopAt {
			id := <-pid
			syscall.Kill(id, syscall.SIGSTOP)
			time.Sleep(stopFor)
			before.Store(probes.Load())
			syscall.Kill(id, syscall.SIGCONT)
			time.Sleep(100 * ms) // five times inter
			after.Store(probes.Load())
		}
		io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n")
	})
	child.Env = append(os.Environ(), childEnv+"="+peer.addr.String())
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
	pid <- child.Process.Pid
	reports := 0
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		reports++
		if !strings.HasPrefix(lines.Text(), "true ") {
			t.Errorf("report %d: %s", reports, lines.Text())
		}
		if reports == 4*stopAt {
			stdin.Close()
		}
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if n := after.Load() - before.Load(); n > 6 {
		t.Errorf("%d probes in the 100 ms after the stop", n)
	}
}

// A monitor over real sockets, from DOWN to UP to DOWN, leaves nothing behind.
func TestMonitorOverSockets(t *testing.T) {
	leaktest.Check(t)
	var role atomic.Value
	role.Store("primary")
	rest := serve(t, func(c net.Conn) { answer(patroni(200, role.Load().(string), "running", 5))(c) })
	sql := serve(t, stay)
	reports := make(chan Report, 100)
	m := NewMonitor(MonitorOptions{
		Prober: httpProber(t), Addr: rest.addr, SQLAddr: sql.addr, Witness: true,
		Inter: 50 * ms, FastInter: 10 * ms, Timeout: 2 * time.Second, Rise: 2, Fall: 3,
	}, func(r Report) { reports <- r })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	defer func() { cancel(); <-done }()
	await := func(what string, ok func(Report) bool) {
		t.Helper()
		limit := time.After(4 * time.Second)
		for {
			select {
			case r := <-reports:
				if ok(r) {
					return
				}
			case <-limit:
				t.Fatalf("never %s", what)
			}
		}
	}
	await("UP", func(r Report) bool { return r.Changed && r.Up && r.Timeline == 5 })
	role.Store("replica")
	await("DOWN with PostgreSQL alive", func(r Report) bool {
		return r.Changed && !r.Up && r.SQLAlive && r.Reason == "Layer7 wrong role: replica, state: running, code: 200, timeline: 5"
	})
}
