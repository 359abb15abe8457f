package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test's binary the program itself, for tests that need a
// process of its own: with other rights, other limits, and a death.
const asProgram = "POINTSMAN_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(pointsman(ctx, env{os.Stdout, os.Stderr}, os.Args))
}

// program returns a command that runs the program from where everybody may.
// limit is a shell's ulimit -n, 0 = as it is.
func program(t *testing.T, limit int, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	path := filepath.Join(publicDir(t), "pointsman")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(file, self); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	script := `exec "$0" "$@"`
	if limit > 0 {
		script = fmt.Sprintf("ulimit -n %d && %s", limit, script)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, path}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// publicDir is a temporary folder that everybody may look into; those of
// testing are not.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pointsman-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// spawnProgram is spawn in a process of its own, with so many descriptors.
func spawnProgram(t *testing.T, servers string, descriptors int) (*process, *exec.Cmd) {
	t.Helper()
	p := prepare(t, servers)
	cmd := program(t, descriptors, "run", "-c", p.file)
	p.launch(cmd)
	return p, cmd
}

// TestDescriptorsExhausted fills the process with sessions: newcomers wait,
// sessions live, and checks still find the next leader.
func TestDescriptorsExhausted(t *testing.T) {
	c := cluster(t)
	p, _ := spawnProgram(t, c.UCI("bk"), 160)
	p.until("leader of bk is now postgres-1")
	var conns []net.Conn
	for range 100 {
		conn, err := net.Dial("tcp4", p.listener)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		conns = append(conns, conn)
	}
	p.until("new sessions must wait")
	who := func(conn net.Conn) string {
		fmt.Fprintln(conn, "WHO")
		buf := make([]byte, 200)
		n, _ := conn.Read(buf)
		return string(buf[:n])
	}
	if got := who(conns[0]); !strings.Contains(got, "postgres-1") {
		t.Fatalf("an established session: %q", got)
	}
	if s := p.status(); !s.Backends[0].Accepting {
		t.Fatalf("the leader is doubted for our own lack: %+v", s.Backends[0])
	}
	if _, err := c.Failover(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.until("leader of bk is now postgres-2 (timeline 2), was postgres-1")
	// The old sessions are gone, and who waited in the backlog has its turn.
	if got := who(conns[80]); !strings.Contains(got, "postgres-2") {
		t.Errorf("one who waited: %q", got)
	}
}

func TestTermEndsWithSuccess(t *testing.T) {
	c := cluster(t)
	p, cmd := spawnProgram(t, c.UCI("bk"), 0)
	p.until("leader of bk is now postgres-1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case status := <-p.ended:
		p.ended <- status
		if status != 0 || !strings.Contains(p.out.String(), "stopped") {
			t.Errorf("exit status %d", status)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if _, err := os.Stat(p.socket); !os.IsNotExist(err) {
		t.Errorf("the control socket is left: %v", err)
	}
}

func TestStartAfterAKill(t *testing.T) {
	c := cluster(t)
	p, cmd := spawnProgram(t, c.UCI("bk"), 0)
	p.until("leader of bk is now postgres-1")
	cmd.Process.Kill()
	status := <-p.ended
	p.ended <- status
	again := program(t, 0, "run", "-c", p.file)
	out := &lines{}
	again.Stdout, again.Stderr = out, out
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	defer again.Wait()
	defer again.Process.Kill()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), "leader of bk is now postgres-1"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the socket that was left behind is in the way:\n%s", out)
		}
	}
}

// TestWithoutPrivileges is the program as nobody, in a network namespace of
// its own, where ports below 1024 are privileged whatever this machine says.
func TestWithoutPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		lack(t, "root, to become nobody")
	}
	dir := publicDir(t)
	text := func(port int, control string) string {
		return fmt.Sprintf("config global 'global'\n\toption control '%s'\nconfig frontend 'ft'\n\tlist bind '127.0.0.1:%d'\n\toption default_backend 'bk'\n"+
			"config backend 'bk'\nconfig server 's'\n\toption backend 'bk'\n\toption address '127.0.0.1:1'\n", control, port)
	}
	for _, c := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"a privileged port", text(543, "none"), 0o644, "listening on 127.0.0.1:543: permission denied: ports below 1024 need root or the capability NET_BIND_SERVICE"},
		{"an unreadable file", text(5432, "none"), 0o600, "permission denied"},
		{"a folder for the control socket that cannot be made", text(5432, "/proc/pointsman/control.sock"), 0o644, "control socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, strings.ReplaceAll(c.name, " ", "-"))
			if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
			cmd := program(t, 0, "run", "-c", file)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s\nwant exit status 1 and %q", err, out, c.want)
			}
		})
	}
}
