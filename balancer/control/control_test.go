package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pointsman/balancer"
	"pointsman/leaktest"
)

// serve runs a server until the test ends, and returns its socket.
func serve(t *testing.T) string {
	t.Helper()
	leaktest.Check(t)
	path := filepath.Join(t.TempDir(), "run", "control.sock")
	s, err := Listen(path, Source{
		Snapshot: func() *balancer.Snapshot { return &balancer.Snapshot{Version: "1.2.3"} },
		History:  func() *balancer.History { return &balancer.History{Events: []balancer.LeaderEvent{{Number: 7}}} },
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

func TestAsk(t *testing.T) {
	s, err := Ask(serve(t))
	if err != nil || s.Version != "1.2.3" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestAskEvents(t *testing.T) {
	h, err := AskEvents(serve(t))
	if err != nil || len(h.Events) != 1 || h.Events[0].Number != 7 {
		t.Errorf("%+v, %v", h, err)
	}
}

// A daemon that is stopping has nothing to tell any more.
func TestAskOneThatIsStopping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	s, err := Listen(path, Source{History: func() *balancer.History { return nil }}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	if _, err := AskEvents(path); err == nil || err.Error() != "the daemon is stopping" {
		t.Errorf("%v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAnswersAsAStatsSocketDoes(t *testing.T) {
	c := dial(t, serve(t))
	fmt.Fprintf(c, "show  pointsman json ; show\x07stat; show pointsman events json\n")
	out, err := io.ReadAll(c) // one line, and the connection ends
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(string(out), "\n\n")
	if len(answers) != 4 || !strings.HasPrefix(answers[0], `{"version":"1.2.3"`) || !strings.HasPrefix(answers[1], `Unknown command: 'show\astat'`) ||
		!strings.HasPrefix(answers[2], `{"taken":`) {
		t.Errorf("%q", answers)
	}
}

func TestOnlyItsOwnerMayAsk(t *testing.T) {
	info, err := os.Stat(serve(t))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestLongLineIsNotAnswered(t *testing.T) {
	c := dial(t, serve(t))
	fmt.Fprint(c, strings.Repeat("x", 2*maxLine))
	if out, _ := io.ReadAll(c); len(out) != 0 {
		t.Errorf("%q", out)
	}
}

func TestClientsAreBounded(t *testing.T) {
	path := serve(t)
	for range maxClients {
		c := dial(t, path) // says nothing, and keeps its place
		defer c.Close()
	}
	// One more is closed at once; which connection that is, the kernel's order tells.
	c := dial(t, path)
	if _, err := bufio.NewReader(c).ReadByte(); err != io.EOF {
		t.Errorf("one too many: %v", err)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as a killed daemon leaves it
	s, err := Listen(path, Source{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.listener.Close()
}

func TestFileInTheWayIsNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Listen(path, Source{}, slog.New(slog.DiscardHandler)); err == nil {
		s.listener.Close()
		t.Error("no error")
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file now holds %q", text)
	}
}
