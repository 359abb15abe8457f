package main

import (
	"net"
	"os"
	"testing"
	"time"
)

// The schedule goes on whatever happens, and does not drift.
func TestPacer(t *testing.T) {
	p := newPacer(3, 1)
	p.start = time.Second
	for _, step := range []struct {
		now  time.Duration
		due  int // requests that are taken now
		wait time.Duration
	}{
		{0, 0, time.Second},
		{time.Second, 1, time.Second / 3},
		{time.Second + time.Second/3 - 1, 0, 1},
		{2 * time.Second, 3, time.Second / 3},
		{12 * time.Second, 30, time.Second / 3},
	} {
		taken := 0
		for _, ok := p.take(step.now); ok; _, ok = p.take(step.now) {
			taken++
		}
		if wait := p.wait(step.now); taken != step.due || wait < step.wait-2 || wait > step.wait+2 {
			t.Errorf("at %s: %d requests are due and the next in %s, want %d and %s", step.now, taken, wait, step.due, step.wait)
		}
	}
	if k, ok := p.take(13 * time.Second); !ok || k != 34 || p.due(k) != time.Second+11_333_333_333 {
		t.Errorf("took request %d, due at %s", k, p.due(k))
	}
}

// With many sessions requests are due in groups, at the same rate over all.
func TestPacerGroups(t *testing.T) {
	for _, c := range []struct {
		rate     float64
		sessions int
		group    uint64
	}{
		{100_000, 1, 1}, {100_000, 16, 4}, {100_000, 1024, 20}, {1000, 1024, 1},
	} {
		p := newPacer(c.rate, c.sessions)
		if p.group != c.group {
			t.Errorf("%.0f/s in %d sessions: %d at once, want %d", c.rate, c.sessions, p.group, c.group)
		}
		if p.due(0) != p.due(c.group-1) || p.due(c.group) != time.Duration(float64(c.group)*1e9/c.rate) {
			t.Errorf("%.0f/s in %d sessions: due at %s, %s and %s", c.rate, c.sessions, p.due(0), p.due(c.group-1), p.due(c.group))
		}
		taken := uint64(0)
		for _, ok := p.take(time.Second - 1); ok; _, ok = p.take(time.Second - 1) {
			taken++
		}
		if taken < uint64(c.rate)-c.group || taken > uint64(c.rate)+c.group {
			t.Errorf("%.0f/s in %d sessions: %d in a second", c.rate, c.sessions, taken)
		}
	}
}

// A server that stands still for 100 ms in a second delays every tenth request
// by up to 100 ms. At a fixed rate that is what is seen; in a closed loop the
// client waits too, and one request out of all of them is slow.
func TestStallShowsAtAFixedRate(t *testing.T) {
	const stall = 100 * time.Millisecond
	for _, c := range []struct {
		name     string
		rate     float64
		p50      time.Duration // at most
		p99      [2]time.Duration
		sessions int
	}{
		{"fixed rate", 1000, stall / 2, [2]time.Duration{stall * 7 / 10, stall * 2}, 1},
		{"closed loop", 0, stall / 2, [2]time.Duration{0, stall / 2}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := answering(t, func(conn net.Conn) {
				p := make([]byte, 100)
				begin, stalled := time.Now(), false
				for {
					if _, err := conn.Read(p); err != nil {
						return
					}
					if !stalled && time.Since(begin) > 400*time.Millisecond {
						time.Sleep(stall)
						stalled = true
					}
					conn.Write(p)
				}
			})
			h := newHarness(t)
			s, err := h.load(t.Context(), site{lan: here}, h.dir, job{
				Kind: pingPong, Target: addr, Size: 100, Sessions: c.sessions, Rate: c.rate, Measure: time.Second, Server: os.Getpid(),
			})
			if err != nil {
				t.Fatal(err)
			}
			p50, p99 := s.Times.quantile(0.5), s.Times.quantile(0.99)
			if p50 > c.p50 || p99 < c.p99[0] || p99 > c.p99[1] {
				t.Errorf("p50 %s, p99 %s, want at most %s, and %s", p50, p99, c.p50, c.p99)
			}
			if s.Typical99 <= 0 || c.rate > 0 && s.Typical99 > float64(stall.Microseconds())/2 {
				t.Errorf("the p99 of the median slice is %v us, that of all %v", s.Typical99, s.P99)
			}
			if worst := s.Times.quantile(1); worst < stall*9/10 {
				t.Errorf("the slowest took %s", worst)
			}
		})
	}
}
