//go:build package

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds every step; qemu is slow, and the machine may be busy.
const patience = 30 * time.Second

// node is a PostgreSQL node as the daemon sees it: Patroni's REST API, and a
// port that says its name and then echoes.
type node struct {
	name     string
	timeline atomic.Int64 // of the leader's reign; 0 = a replica
	rest     *httptest.Server
	sql      net.Listener
}

func newNode(t *testing.T, name string) *node {
	n := &node{name: name}
	n.rest = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		timeline := n.timeline.Load()
		if timeline == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"state": "running", "role": "replica"}`)
			return
		}
		fmt.Fprintf(w, `{"state": "running", "role": "primary", "timeline": %d}`, timeline)
	}))
	t.Cleanup(n.rest.Close)
	var err error
	if n.sql, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.sql.Close() })
	go func() {
		for {
			conn, err := n.sql.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintln(conn, n.name)
				io.Copy(conn, conn)
			}()
		}
	}()
	return n
}

// config is a UCI file for these nodes, with checks at a test's pace.
func nodesConfig(frontend, socket string, nodes ...*node) string {
	text := fmt.Sprintf(`
config global 'global'
	option control '%s'
config frontend 'front'
	list bind '%s'
	option default_backend 'back'
config backend 'back'
	option inter '200ms'
	option fastinter '100ms'
`, socket, frontend)
	for _, n := range nodes {
		text += fmt.Sprintf(`
config server '%s'
	option backend 'back'
	option address '%s'
	option check_port '%d'
`, n.name, n.sql.Addr(), n.rest.Listener.Addr().(*net.TCPAddr).Port)
	}
	return text
}

// runDaemon lets a package's program do its job once: hold a client until
// there is a leader, carry its bytes, end it when the leader changes, and
// stop when told.
func runDaemon(t *testing.T, command []string) {
	a, b := newNode(t, "a"), newNode(t, "b")
	dir := t.TempDir()
	frontend := freeAddress(t)
	file := filepath.Join(dir, "pointsman")
	if err := os.WriteFile(file, []byte(nodesConfig(frontend, filepath.Join(dir, "sock"), a, b)), 0o600); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	command = append(command, "run", "-c", file)
	daemon := exec.Command(command[0], command[1:]...)
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- daemon.Wait() }()
	stop := func(sig os.Signal) error {
		daemon.Process.Signal(sig)
		select {
		case err := <-exited:
			return err
		case <-time.After(patience):
			daemon.Process.Kill()
			return fmt.Errorf("no end %v after %v; killed: %v", patience, sig, <-exited)
		}
	}
	defer func() {
		err := stop(syscall.SIGTERM)
		if err != nil {
			t.Errorf("stopping: %v", err)
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", log.String())
		}
	}()

	held := connect(t, frontend)
	a.timeline.Store(1)
	if got := banner(t, held); got != "a" {
		t.Fatalf("connected to %q, want a", got)
	}
	echo(t, held, 4<<20)

	a.timeline.Store(0)
	b.timeline.Store(2)
	if rest, err := io.ReadAll(held); len(rest) > 0 || os.IsTimeout(err) {
		t.Fatalf("the session to the old leader: %d bytes, %v; want its end", len(rest), err)
	}
	after := connect(t, frontend)
	if got := banner(t, after); got != "b" {
		t.Fatalf("connected to %q, want b", got)
	}
	echo(t, after, 100)
}

// connect dials until somebody listens.
func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
			conn.SetDeadline(end)
			return conn
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func banner(t *testing.T, conn net.Conn) string {
	t.Helper()
	var name []byte
	for one := make([]byte, 1); one[0] != '\n'; name = append(name, one[0]) {
		if _, err := conn.Read(one); err != nil {
			t.Fatalf("waiting for a server's name: %v", err)
		}
	}
	return strings.TrimSpace(string(name))
}

// echo sends n random bytes and compares what comes back.
func echo(t *testing.T, conn net.Conn, n int64) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	sent, got := sha256.New(), sha256.New()
	failed := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.MultiWriter(conn, sent), rand.NewChaCha8([32]byte{1}), n)
		failed <- err
	}()
	if _, err := io.CopyN(got, conn, n); err != nil {
		t.Fatalf("reading an echo: %v", err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("other bytes came back than were sent")
	}
}

// freeAddress finds a port that nobody has, for a program that must be told one.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}
