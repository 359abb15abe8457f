package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"pointsman/leaktest"
)

// demoLine is a line of `pointsman demo --json`.
type demoLine struct {
	Event   string `json:"event"`
	Text    string `json:"text"`
	Figures struct {
		Failovers    int     `json:"failovers"`
		Writes       uint64  `json:"writes"`
		Errors       uint64  `json:"errors"`
		ReadOnly     uint64  `json:"read_only_errors"`
		Lost         uint64  `json:"lost_acknowledged_writes"`
		LongestGapMS float64 `json:"longest_gap_ms"`
		NoLeaderMS   float64 `json:"no_leader_ms"`
	} `json:"figures"`
}

// runDemo fails the test if the daemon or the simulation leaves a goroutine or
// a descriptor behind.
func runDemo(t *testing.T, ctx context.Context, args ...string) []demoLine {
	t.Helper()
	// The runtime keeps a goroutine for signals once some were asked for.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	signal.Stop(signals)
	leaktest.Check(t)
	var out, errs bytes.Buffer
	if status := pointsman(ctx, env{&out, &errs}, append([]string{"pointsman", "demo", "--json"}, args...)); status != 0 {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	var lines []demoLine
	for text := range strings.Lines(out.String()) {
		var line demoLine
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		lines = append(lines, line)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return lines
}

// The whole daemon in front of the simulated cluster: a failover reaches every
// client soon after the new leader can write, and no client reads "read-only".
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 4 s")
	}
	lines := runDemo(t, t.Context(), "--failover-every", "2s", "--for", "4200ms")
	events := map[string]int{}
	for _, line := range lines {
		events[line.Event]++
		if f := line.Figures; line.Event == "failover" && f.LongestGapMS-f.NoLeaderMS > 1500 {
			// At least two answers fastinter apart confirm a leader; the rest is a slow machine.
			t.Errorf("the clients waited %.0f ms longer than the cluster: %s", f.LongestGapMS-f.NoLeaderMS, line.Text)
		}
	}
	if events["start"] != 1 || events["failover"] == 0 || events["log"] == 0 {
		t.Errorf("events: %v", events)
	}
	sum := lines[len(lines)-1]
	if f := sum.Figures; sum.Event != "summary" || f.Failovers != 1 || f.Writes < 50 || f.ReadOnly != 0 || f.Lost != 0 {
		t.Errorf("the end: %+v", sum)
	}
}

func TestDemoInterrupted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	lines := runDemo(t, ctx, "--clients", "1", "--failover-every", "0")
	if sum := lines[len(lines)-1]; sum.Event != "summary" {
		t.Errorf("the end: %+v", sum)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %v to end", took)
	}
}

func TestDemoFlags(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--failover-every 1s", "--failover-every 1s: "},
		{"--failover-every -1s", "--failover-every -1s: "},
		{"--clients 0", "--clients 0: 1 to 500"},
		{"--clients 501", "--clients 501: 1 to 500"},
		{"--for -1s", "--for -1s: must not be negative"},
		{"now", "demo takes no argument: 'now'"},
	} {
		var out, errs bytes.Buffer
		status := pointsman(t.Context(), env{&out, &errs}, append([]string{"pointsman", "demo"}, strings.Fields(test.args)...))
		if status != 1 || !strings.HasPrefix(errs.String(), "pointsman: "+test.want) {
			t.Errorf("%s: status %d, %q", test.args, status, errs.String())
		}
	}
}
