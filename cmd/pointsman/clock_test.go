package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lack ends a test that needs what this machine has not; in CI that is a failure.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("lacks " + what)
	}
	t.Skip("lacks " + what)
}

// long keeps a test that takes seconds out of the quick run.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds; not with -short")
	}
}

const libfaketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"

// TestWallClockJumps sets the clock forth and back while the daemon runs, as
// NTP does on a router that boots without a battery: nobody may be cut, and
// nothing be taken for overdue. A static Go program reads the clock without
// libc, so it runs under qemu-user, whose libc calls libfaketime can falsify;
// the monotonic clock stays true, as the kernel's does.
func TestWallClockJumps(t *testing.T) {
	long(t)
	if runtime.GOARCH != "amd64" {
		lack(t, "an amd64: the falsified clock is set up for that alone")
	}
	if _, err := os.Stat(libfaketime); err != nil {
		lack(t, "libfaketime (package faketime)")
	}
	qemu, err := exec.LookPath("qemu-x86_64")
	if err != nil {
		lack(t, "qemu-x86_64 (package qemu-user)")
	}
	binary := filepath.Join(t.TempDir(), "static")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	offset := filepath.Join(t.TempDir(), "offset")
	set := func(text string) {
		if err := os.WriteFile(offset, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("+0")

	c := cluster(t)
	p := prepare(t, c.UCI("bk"))
	cmd := exec.Command(qemu, binary, "run", "-c", p.file)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+libfaketime, "FAKETIME_TIMESTAMP_FILE="+offset,
		"FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1")
	p.launch(cmd)
	p.until("leader of bk is now postgres-1")
	conn := dialWho(t, p, "postgres-1")

	started := p.status().Started
	for _, jump := range []string{"+1h", "-3d", "+10y", "+0"} {
		set(jump)
		time.Sleep(500 * time.Millisecond) // a few rounds of checks
		if s := p.status(); !s.Backends[0].Accepting || s.Backends[0].Changes != 1 || s.Backends[0].Transition {
			t.Fatalf("after %s: %+v", jump, s.Backends[0])
		} else if jump == "+1h" && s.Taken.Sub(started) < time.Hour {
			t.Fatalf("the clock did not jump: %v after the start", s.Taken.Sub(started))
		}
		// What happened before is told by the clock as it is now.
		h := p.events()
		if first := h.Events[0]; h.Taken.Sub(first.Doubt.At) > time.Minute || h.Taken.Before(first.Doubt.At) || first.Confirmed.AfterMS > 60_000 {
			t.Errorf("after %s, at %v: %+v", jump, h.Taken, first)
		}
		conn.who("postgres-1")
	}
	if log := p.out.String(); strings.Contains(log, "in doubt") || strings.Contains(log, "DOWN, reason: the check") {
		t.Error("a jump was taken for a fault")
	}
}

// TestStoppedProcess freezes the daemon for longer than all its deadlines
// together. When it goes on, everything seems overdue; nobody may be cut.
func TestStoppedProcess(t *testing.T) {
	long(t)
	c := cluster(t)
	p := prepare(t, c.UCI("bk"))
	p.write(p.uci(c.UCI("bk"), "option timeout_check '100ms'"))
	cmd := program(t, 0, "run", "-c", p.file)
	p.launch(cmd)
	p.until("leader of bk is now postgres-1")
	conn := dialWho(t, p, "postgres-1")
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(cmd.Process.Pid, s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	time.Sleep(2500 * time.Millisecond)
	signal(syscall.SIGCONT)
	conn.who("postgres-1")
	time.Sleep(300 * time.Millisecond)
	conn.who("postgres-1")
	if s := p.status(); s.Backends[0].Changes != 1 || !s.Backends[0].Accepting {
		t.Errorf("%+v", s.Backends[0])
	}
}

// TestSilentClient connects and says nothing: it costs a session and nothing
// else, and timeout_client ends it where that is wanted.
func TestSilentClient(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	p.until("leader of bk is now postgres-1")
	silent, err := net.Dial("tcp4", p.listener)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dialWho(t, p, "postgres-1")

	limited := strings.Replace(p.uci(c.UCI("bk"), ""), "option default_backend", "option timeout_client '200ms'\n\toption default_backend", 1)
	p.write(limited)
	hangup(t)
	p.until("reloaded " + p.file)
	silent.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := silent.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("a silent client reads %d, %v", n, err)
	}
}

// whoConn is a session that is asked who serves it.
type whoConn struct {
	t    *testing.T
	conn net.Conn
}

func dialWho(t *testing.T, p *process, want string) *whoConn {
	t.Helper()
	conn, err := net.Dial("tcp4", p.listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &whoConn{t, conn}
	w.who(want)
	return w
}

func (w *whoConn) who(want string) {
	w.t.Helper()
	w.conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintln(w.conn, "WHO")
	buf := make([]byte, 200)
	if n, err := w.conn.Read(buf); !strings.Contains(string(buf[:n]), want) {
		w.t.Fatalf("WHO: %q, %v; want %s", buf[:n], err, want)
	}
}

// prepare writes a configuration in front of the servers, for a daemon that
// launch starts.
func prepare(t *testing.T, servers string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{t: t, out: &lines{}, ended: make(chan int, 1), file: filepath.Join(dir, "pointsman"),
		socket: filepath.Join(dir, "control.sock"), listener: freePort(t)}
	p.write(p.uci(servers, ""))
	return p
}

// launch starts the daemon as a process of its own, and waits until it listens.
func (p *process) launch(cmd *exec.Cmd) {
	p.t.Helper()
	p.follow(cmd)
	p.until("frontend ft listens on")
}

// follow starts a process, and ends it with the test.
func (p *process) follow(cmd *exec.Cmd) {
	p.t.Helper()
	cmd.Stdout, cmd.Stderr = p.out, p.out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		p.ended <- cmd.ProcessState.ExitCode()
	}()
	p.t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.ended
		if p.t.Failed() {
			p.t.Logf("log:\n%s", p.out)
		}
	})
}
