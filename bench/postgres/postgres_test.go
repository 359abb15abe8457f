package postgres

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
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

// TestPostgres runs every kind of measurement once, briefly, on a small
// database. Its parts look at different things of one server.
func TestPostgres(t *testing.T) {
	if _, err := programs(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx := context.Background()
	s, err := Start(ctx, Config{Place: exec.Command, Listen: freePort(t), Clients: netip.MustParsePrefix("127.0.0.0/8"), Scale: 1})
	if err != nil {
		t.Fatal(err)
	}
	dir, pid := s.dir, s.main.cmd.Process.Pid
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("process %d is left: %v", pid, err)
		}
	})
	before, err := s.CPU()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("measurements", func(t *testing.T) {
		t.Run("select-only", func(t *testing.T) { t.Parallel(); testPgbench(t, s, SelectOnly, false) })
		t.Run("connect", func(t *testing.T) { t.Parallel(); testPgbench(t, s, SelectOnly, true) })
		t.Run("TPC-B", func(t *testing.T) { t.Parallel(); testPgbench(t, s, TPCB, false) })
		t.Run("copy", func(t *testing.T) { t.Parallel(); testCopy(t, s) })
		t.Run("cut", func(t *testing.T) { t.Parallel(); testCut(t, s) })
		t.Run("late", func(t *testing.T) { t.Parallel(); testLate(t, s) })
		t.Run("refused", func(t *testing.T) { t.Parallel(); testRefused(t, s) })
		t.Run("interrupted", func(t *testing.T) { t.Parallel(); testInterrupted(t, s) })
	})
	after, err := s.CPU()
	if err != nil || after-before < 100*time.Millisecond || after-before > time.Minute {
		t.Errorf("the server used %s, %v", after-before, err)
	}
}

func freePort(t *testing.T) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// clientOf is one whose meter checks whom it is given, and when.
func clientOf(t *testing.T, target netip.AddrPort, program string) (Client, *int) {
	calls := new(int)
	look := func(expected int) func(int) error {
		return func(pid int) error {
			name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
			if err != nil || strings.TrimSpace(string(name)) != program || *calls != expected {
				t.Errorf("call %d of the meter is for %q, %v", *calls, name, err)
			}
			*calls++
			return nil
		}
	}
	return Client{exec.Command, target, Meter{look(0), look(1)}}, calls
}

func testPgbench(t *testing.T, s *Server, script Script, connect bool) {
	o := Options{Script: script, Clients: 2, Connect: connect, Prepared: script == SelectOnly, Warm: 400 * time.Millisecond, Measure: 400 * time.Millisecond}
	c, calls := clientOf(t, s.Address(), "pgbench")
	r, err := s.Pgbench(context.Background(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	if *calls != 2 {
		t.Errorf("the meter was called %d times", *calls)
	}
	if r.Seconds < 0.4 || r.Seconds > 0.5 {
		t.Errorf("measured for %g s", r.Seconds)
	}
	// Two clients that never pause: their latencies fill the measured part,
	// but for what pgbench does between two transactions.
	sum := time.Duration(0)
	for _, d := range r.Latencies {
		sum += d
	}
	if full := sum.Seconds() / r.Seconds / 2; full < 0.3 || full > 2 {
		t.Errorf("%d transactions took %s in %g s: %.2f of the time of two clients", len(r.Latencies), sum, r.Seconds, full)
	}
	if r.Quantile(0.5) <= 0 || r.Quantile(0.99) < r.Quantile(0.5) {
		t.Errorf("p50 %s, p99 %s", r.Quantile(0.5), r.Quantile(0.99))
	}
	if logs, _ := filepath.Glob(s.dir + "/logs-*/*"); connect && len(logs) > 3*2 {
		t.Errorf("logs are left: %q", logs)
	}
}

// relay counts what passes, and ends all of it after limit bytes, unless 0.
func relay(t *testing.T, target netip.AddrPort, limit int64) (at netip.AddrPort, passed *atomic.Int64) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	passed = new(atomic.Int64)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp4", target.String())
			if err != nil {
				client.Close()
				continue
			}
			pass := func(from, to net.Conn) {
				defer from.Close()
				defer to.Close()
				buf := make([]byte, 32<<10)
				for {
					n, err := from.Read(buf)
					if all := passed.Add(int64(n)); err != nil || limit > 0 && all > limit {
						return
					}
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
			}
			go pass(client, server)
			go pass(server, client)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), passed
}

func testCopy(t *testing.T, s *Server) {
	const size = 20e6
	ctx := context.Background()
	for name, do := range map[string]func(context.Context, Client, int64) (Transfer, error){"out": s.CopyOut, "in": s.CopyIn} {
		at, passed := relay(t, s.Address(), 0)
		c, calls := clientOf(t, at, "psql")
		tr, err := do(ctx, c, size)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *calls != 2 || tr.Seconds <= 0 {
			t.Errorf("%s: %d calls, %+v", name, *calls, tr)
		}
		// The protocol adds 5 bytes to each message of up to 8 kB.
		if wire := passed.Load(); tr.Bytes < 0.999*size || tr.Bytes > size || wire < tr.Bytes || float64(wire) > 1.002*float64(tr.Bytes) {
			t.Errorf("%s: %d bytes of rows, %d on the wire", name, tr.Bytes, wire)
		}
	}
}

// A connection that breaks is an error, and not a faster transaction.
func testCut(t *testing.T, s *Server) {
	ctx := context.Background()
	at, _ := relay(t, s.Address(), 200_000)
	c := Client{Place: exec.Command, Target: at}
	if r, err := s.Pgbench(ctx, c, Options{Script: SelectOnly, Clients: 2, Measure: 800 * time.Millisecond}); err == nil {
		t.Errorf("pgbench ended well: %d transactions", len(r.Latencies))
	}
	for name, do := range map[string]func(context.Context, Client, int64) (Transfer, error){"out": s.CopyOut, "in": s.CopyIn} {
		at, _ := relay(t, s.Address(), 200_000)
		if tr, err := do(ctx, Client{Place: exec.Command, Target: at}, 20e6); err == nil {
			t.Errorf("COPY %s ended well: %+v", name, tr)
		}
	}
}

// Clients that have not begun before the measured part would hide their start
// in it.
func testLate(t *testing.T, s *Server) {
	c := Client{Place: exec.Command, Target: s.Address()}
	_, err := s.Pgbench(context.Background(), c, Options{Script: TPCB, Clients: 40, Measure: 800 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "longer warm-up") {
		t.Errorf("40 clients without a warm-up: %v", err)
	}
}

func testRefused(t *testing.T, s *Server) {
	ctx := context.Background()
	c := Client{Place: exec.Command, Target: freePort(t)}
	if _, err := s.Pgbench(ctx, c, Options{Script: SelectOnly, Clients: 1, Measure: time.Second}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("pgbench: %v", err)
	}
	if _, err := s.CopyOut(ctx, c, 1e6); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("psql: %v", err)
	}
}

func testInterrupted(t *testing.T, s *Server) {
	for name, do := range map[string]func(context.Context, Client) error{
		"pgbench": func(ctx context.Context, c Client) error {
			_, err := s.Pgbench(ctx, c, Options{Script: SelectOnly, Clients: 1, Warm: 200 * time.Millisecond, Measure: 20 * time.Second})
			return err
		},
		"psql": func(ctx context.Context, c Client) error {
			_, err := s.CopyOut(ctx, c, 10e9)
			return err
		},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		pid := 0
		err := do(ctx, Client{Place: exec.Command, Target: s.Address(), Meter: Meter{Begin: func(client int) error {
			pid = client
			time.AfterFunc(50*time.Millisecond, cancel)
			return nil
		}}})
		if !errors.Is(err, context.Canceled) || pid == 0 {
			t.Errorf("%s, process %d: %v", name, pid, err)
		}
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Start(ctx, Config{Place: exec.Command, Listen: freePort(t), Clients: netip.MustParsePrefix("127.0.0.0/8")}); !errors.Is(err, context.Canceled) {
		t.Errorf("a server: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.dir), folderName+strconv.Itoa(os.Getpid())+"-*")); len(left) != 1 {
		t.Errorf("of two servers, these are there: %q", left)
	}
}
