package main

import (
	"runtime/debug"
	"testing"
)

// TestCollector has the daemon's own setting of the collector, unless the
// environment has one.
func TestCollector(t *testing.T) {
	const before = 70
	for _, c := range []struct {
		gogc string
		want int
	}{
		{"", heapGrowth},
		{"200", before}, // the runtime took it up at the start of the process
		{"off", before},
	} {
		t.Setenv("GOGC", c.gogc)
		was := debug.SetGCPercent(before)
		tuneCollector()
		if got := debug.SetGCPercent(was); got != c.want {
			t.Errorf("with GOGC=%q the heap may grow by %d %%, want %d", c.gogc, got, c.want)
		}
	}
}
