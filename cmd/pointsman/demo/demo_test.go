package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pointsman/balancer"
	"pointsman/leaktest"
)

// forwarder stands in for the daemon where only the demonstration around it
// is looked at: it puts every client onto the first server.
func forwarder(ctx context.Context, configFile string, log io.Writer, ready func(func() *balancer.Snapshot)) error {
	text, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	find := func(key string) string {
		return string(regexp.MustCompile(key + ` '(.*)'`).FindSubmatch(text)[1])
	}
	ln, err := net.Listen("tcp", find("bind"))
	if err != nil {
		return err
	}
	fmt.Fprintln(log, "forwarding")
	ready(func() *balancer.Snapshot { return nil })
	var running sync.WaitGroup
	defer running.Wait()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		client, err := ln.Accept()
		if err != nil {
			fmt.Fprintln(log, "stopped")
			return nil
		}
		running.Go(func() {
			defer client.Close()
			server, err := net.Dial("tcp", find("address"))
			if err != nil {
				return
			}
			defer server.Close()
			running.Go(func() { io.Copy(server, client); server.(*net.TCPConn).CloseWrite() })
			io.Copy(client, server)
		})
	}
}

// leavesNothing fails the test if a file, a goroutine or a descriptor is left behind.
func leavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	leaktest.Check(t)
	t.Cleanup(func() {
		if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func TestRunLines(t *testing.T) {
	leavesNothing(t)
	var out bytes.Buffer
	if err := Run(t.Context(), Options{Out: &out, Clients: 2, For: 600 * time.Millisecond, Daemon: forwarder}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{"config server 'postgres_3'\n", "# write through it by hand: nc 127.0.0.1 ", "  daemon: forwarding\n", "  daemon: stopped\n\nfailovers    0 in 1 s\n", ", 0 of them lost\nerrors       0, of them 0 read-only\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(text, "\x1b") || strings.Contains(text, "\n0 acknowledged") {
		t.Errorf("escapes on what is no terminal, or no writes:\n%s", text)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// The leader changes and the forwarder does not follow: the failover is told,
// and what went wrong counted.
func TestRunFailover(t *testing.T) {
	leavesNothing(t)
	var out bytes.Buffer
	o := Options{Out: &out, JSON: true, Clients: 2, FailoverEvery: 300 * time.Millisecond, For: 2200 * time.Millisecond, Daemon: forwarder}
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"event":"stopping","text":"postgres-1 stops: `,
		`"event":"client_error","client":"client-1","text":"waiting for an answer: `,
		`"event":"promoted","text":"postgres-2 takes writes on timeline 2, 1.`,
		`"event":"failover","text":"failover postgres-1 -> postgres-2: no leader for 1.`,
		`"event":"summary","text":"failovers    1 in 2 s`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is missing", want)
		}
	}
	last := out.String()[strings.LastIndex(out.String(), `"event":"summary"`):]
	figures := regexp.MustCompile(`"errors":(\d+),"read_only_errors":0,"lost_acknowledged_writes":0,"longest_gap_ms":1\d\d\d`).FindStringSubmatch(last)
	if figures == nil || figures[1] == "0" {
		t.Errorf("figures: %v", figures)
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestRunWithoutDaemon(t *testing.T) {
	for _, test := range []struct {
		name   string
		daemon func(ctx context.Context, ready func(func() *balancer.Snapshot)) error
		want   string
	}{
		{"cannot start", func(context.Context, func(func() *balancer.Snapshot)) error { return errors.New("no port") }, "starting the daemon: no port"},
		{"says nothing", func(context.Context, func(func() *balancer.Snapshot)) error { return nil }, "starting the daemon: it stopped by itself"},
		{"breaks down", func(_ context.Context, ready func(func() *balancer.Snapshot)) error {
			ready(func() *balancer.Snapshot { return nil })
			return errors.New("no memory")
		}, "running the daemon: no memory"},
		{"stops badly", func(ctx context.Context, ready func(func() *balancer.Snapshot)) error {
			ready(func() *balancer.Snapshot { return nil })
			<-ctx.Done()
			return errors.New("cannot close")
		}, "running the daemon: cannot close"},
	} {
		t.Run(test.name, func(t *testing.T) {
			leavesNothing(t)
			err := Run(t.Context(), Options{Out: io.Discard, Clients: 1, For: 200 * time.Millisecond,
				Daemon: func(ctx context.Context, _ string, _ io.Writer, ready func(func() *balancer.Snapshot)) error {
					return test.daemon(ctx, ready)
				}})
			if err == nil || err.Error() != test.want {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

// openTerminal returns a terminal of 80 x 24, and what was written to it once
// it is closed.
func openTerminal(t *testing.T) (tty *os.File, written func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	}
	if err == nil {
		tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(&all, master) // ends with EIO once the other side is closed
	}()
	return tty, func() string {
		tty.Close()
		<-drained
		master.Close()
		return all.String()
	}
}

func TestRunOnTerminal(t *testing.T) {
	for name, value := range map[string]string{"TERM": "xterm", "NO_COLOR": "", "LC_ALL": "C.UTF-8"} {
		t.Setenv(name, value)
	}
	leavesNothing(t)
	tty, written := openTerminal(t)
	err := Run(t.Context(), Options{Out: tty, Clients: 3, For: 800 * time.Millisecond, FailoverEvery: 10 * time.Second, Daemon: forwarder})
	text := written()
	if err != nil {
		t.Fatal(err)
	}
	before, rest, entered := strings.Cut(text, enterView)
	frames, after, left := strings.Cut(rest, leaveView)
	if !entered || !left {
		t.Fatalf("the terminal was not taken and given back: %q", text)
	}
	if !strings.Contains(before, "config backend 'bk_postgres_primary'") {
		t.Errorf("before: %q", before)
	}
	if n := strings.Count(frames, home); n < 3 || !strings.Contains(frames, "connects anew") || !strings.Contains(frames, "■") || !strings.Contains(frames, "\x1b[32m") {
		t.Errorf("%d frames: %q", n, frames)
	}
	if strings.Contains(frames, "."+clearLine) || !strings.Contains(frames, "\r\n"+clearLine) {
		t.Error("a line is cleared once it is written, its last column with it")
	}
	if !strings.HasPrefix(after, "\r\nfailovers    0 in 1 s") {
		t.Errorf("after: %q", after)
	}
}

func TestTerminalOn(t *testing.T) {
	tty, written := openTerminal(t)
	defer written()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, test := range []struct {
		name string
		out  io.Writer
		env  map[string]string
		want *paint // nil = no terminal
	}{
		{"buffer", &bytes.Buffer{}, nil, nil},
		{"device", null, nil, nil},
		{"dumb", tty, map[string]string{"TERM": "dumb"}, nil},
		{"plain", tty, map[string]string{"LANG": "C"}, &paint{colours: true}},
		{"no colours", tty, map[string]string{"NO_COLOR": "1", "LANG": "de_DE.utf8"}, &paint{unicode: true}},
		{"LC_ALL first", tty, map[string]string{"LC_ALL": "C", "LANG": "C.UTF-8"}, &paint{colours: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{"TERM", "NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG"} {
				t.Setenv(name, test.env[name])
			}
			term := terminalOn(test.out)
			switch {
			case (term == nil) != (test.want == nil):
				t.Errorf("terminal: %v", term)
			case term != nil && term.paint != *test.want:
				t.Errorf("%+v, want %+v", term.paint, *test.want)
			}
		})
	}
}
