package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEnvironment(t *testing.T) {
	got := environment([]string{"PATH=/bin", "PGHOST=elsewhere", "PGSSLMODE=require", "HOME=/"})
	if !slices.Contains(got, "PATH=/bin") || !slices.Contains(got, "HOME=/") || !slices.Contains(got, "LC_ALL=C") {
		t.Errorf("something is missing in %q", got)
	}
	for _, entry := range got {
		if strings.HasPrefix(entry, "PGHOST") || strings.HasPrefix(entry, "PGSSLMODE") {
			t.Errorf("%s stays", entry)
		}
	}
}

func TestEndedCPU(t *testing.T) {
	const stat = "4711 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 250 50 20 0 1 0 100"
	if got, err := endedCPU(stat); err != nil || got != 3*time.Second {
		t.Errorf("%s, %v; want 3 s", got, err)
	}
	for _, bad := range []string{"", "4711 (x) S 1 2", strings.Replace(stat, "250", "x", 1)} {
		if got, err := endedCPU(bad); err == nil {
			t.Errorf("%q is %s", bad, got)
		}
	}
}

func TestOutput(t *testing.T) {
	var o output
	fmt.Fprintf(&o, "ready\n") // nobody waits yet
	came := o.expect("ready")
	fmt.Fprintf(&o, "not ready\nrea")
	select {
	case <-came:
		t.Error("half a line has come")
	default:
	}
	fmt.Fprintf(&o, "dy\nready\n")
	select {
	case <-came:
	default:
		t.Error("a line in two pieces was not seen")
	}
	if got := o.String(); got != "ready\nnot ready\nready\nready" {
		t.Errorf("kept %q", got)
	}
	fmt.Fprint(&o, strings.Repeat("x", outputKept+1)+"end")
	if got := o.String(); len(got) != outputKept || !strings.HasSuffix(got, "xend") {
		t.Errorf("of a long text, %d bytes are kept: …%s", len(got), got[max(len(got)-9, 0):])
	}
}

func TestProcess(t *testing.T) {
	ctx := context.Background()
	err := run(ctx, exec.Command("sh", "-c", "echo said; echo loudly >&2; exit 3"))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "said\nloudly") {
		t.Errorf("a failure is %v", err)
	}
	canceled, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := run(canceled, exec.Command("sh", "-c", "sleep 60 & wait")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("canceled: %v", err)
	}
	// Its child holds our pipe open; it must have been killed too.
	if took := time.Since(start); took > 900*time.Millisecond {
		t.Errorf("canceling took %s", took)
	}
	if err := run(ctx, exec.Command("/no/such/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
}

// What a killed run left in memory goes; what a running one has stays.
func TestRemoveLeftovers(t *testing.T) {
	parent := t.TempDir()
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{
		fmt.Sprintf("%s%d-1", folderName, dead.Process.Pid): false,
		fmt.Sprintf("%s%d-1", folderName, os.Getpid()):      true,
		folderName + "x-1": true,
		"else":             true,
	}
	for name := range names {
		if err := os.MkdirAll(filepath.Join(parent, name, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	removeLeftovers(parent)
	for name, stays := range names {
		if _, err := os.Stat(filepath.Join(parent, name)); (err == nil) != stays {
			t.Errorf("%s: %v, should stay: %v", name, err, stays)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		o       Options
		seconds int
		want    string
	}{
		{
			Options{Script: SelectOnly, Clients: 8, Prepared: true, Warm: 500 * time.Millisecond, Measure: 4 * time.Second}, 5,
			"--builtin=select-only --protocol=prepared --log --client=8 --jobs=2 --time=5 --no-vacuum",
		},
		{
			Options{Script: TPCB, Clients: 1, Measure: 900 * time.Millisecond}, 2, // the slack
			"--builtin=tpcb-like --protocol=simple --log --client=1 --jobs=1 --time=2",
		},
		{
			Options{Script: SelectOnly, Clients: 8, Connect: true, Measure: 800 * time.Millisecond}, 1,
			"--builtin=select-only --protocol=simple --log --client=8 --jobs=8 --time=1 --no-vacuum --connect",
		},
	} {
		if got := test.o.seconds(); got != test.seconds {
			t.Errorf("%+v lasts %d s, want %d", test.o, got, test.seconds)
		}
		if got := strings.Join(test.o.args(), " "); got != test.want {
			t.Errorf("%+v becomes\n%s, want\n%s", test.o, got, test.want)
		}
	}
}
