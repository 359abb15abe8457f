//go:build e2e

package e2e

import (
	"net/netip"
	"testing"
	"time"
)

// The judges of chaos are judged here: on accounts that were made up.

const oldNode, newNode, thirdNode = "10.100.2.5", "10.100.3.185", "10.100.1.83"

func TestSurviving(t *testing.T) {
	// Timeline 2 of the old node forked at 1000; the new node leads on 3.
	forks := map[uint32]uint64{1: 500, 2: 1000}
	row := func(tli uint32, lsn uint64, node string) fact {
		return fact{Event: "ack", Who: "keep", Seq: 7, TLI: tli, LSN: lsn, Node: node, Began: 10, At: 10.1}
	}
	later := func(lsn uint64) fact {
		return fact{Event: "ack", Who: "anew", Seq: 3, TLI: 2, LSN: lsn, Node: oldNode, Began: 10.2, At: 10.3}
	}
	tests := []struct {
		name    string
		row     fact
		others  []fact
		present map[reign]bool
		want    bool // it should be there
	}{
		{"behind the fork", row(2, 1000, oldNode), []fact{later(1100)}, nil, false},
		{"before it, and a later row too", row(2, 900, oldNode), []fact{later(950)}, nil, true},
		{"before it, and a later row at it", row(2, 900, oldNode), []fact{later(1000)}, nil, true},
		{"just before it, its commit may be behind", row(2, 990, oldNode), []fact{later(1001)}, nil, false},
		{"the very last", row(2, 990, oldNode), nil, nil, false},
		{"the leader's own timeline", row(3, 1200, newNode), nil, nil, true},
		{"the leader's timeline, of one who was promoted to the same", row(3, 1200, thirdNode), nil, nil, false},
		{"a timeline that nobody followed", row(4, 1200, thirdNode), nil, map[reign]bool{{4, thirdNode}: true}, false},
		{"an old timeline, owner unknown, none of its rows there", row(1, 100, oldNode), nil, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLedger()
			l.owners = map[uint32]string{2: oldNode, 3: newNode}
			l.acks = append([]fact{test.row}, test.others...)
			if why := l.surviving(test.row, 3, forks, test.present); (why != "") != test.want {
				t.Errorf("should be there: %v (%s), want %v", why != "", why, test.want)
			}
		})
	}
}

func TestZombies(t *testing.T) {
	second := func(s float64) time.Time { return moment(1000 + s) }
	leaders := []confirmation{
		{second(0), netip.MustParseAddr(oldNode)},
		{second(10), netip.MustParseAddr(newNode)},
		{second(20), netip.MustParseAddr(oldNode)},
	}
	ack := func(node string, began, at float64) fact {
		return fact{Event: "ack", Who: "keep", Node: node, Began: 1000 + began, At: 1000 + at}
	}
	tests := []struct {
		name string
		ack  fact
		want int
	}{
		{"the leader", ack(oldNode, 5, 5.01), 0},
		{"before anybody was confirmed", ack(thirdNode, -2, -1), 0},
		{"sent to the old one after the new was confirmed", ack(oldNode, 10.01, 10.02), 1},
		{"sent before, acknowledged by the old one long after", ack(oldNode, 9.9, 10.5), 1},
		{"sent before, read by a busy client after", ack(oldNode, 9.9, 10.2), 0},
		{"by the new one, whose line was read late", ack(newNode, 9.8, 9.9), 0},
		{"by the new one, long before its line", ack(newNode, 8, 8.1), 1},
		{"by one that never led", ack(thirdNode, 15, 15.1), 1},
		{"by the one that returned", ack(oldNode, 20.1, 20.2), 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if n, example := zombies([]fact{test.ack}, leaders); n != test.want {
				t.Errorf("%d (%s), want %d", n, example, test.want)
			}
		})
	}
}

func TestDraw(t *testing.T) {
	one, err := draw(5, 40, "")
	if err != nil || len(one) != 40 {
		t.Fatalf("%d faults: %v", len(one), err)
	}
	again, _ := draw(5, 40, "")
	seen := map[string]int{}
	for i := range one {
		if one[i].name != again[i].name {
			t.Errorf("fault %d is %s, and again %s", i, one[i].name, again[i].name)
		}
		seen[one[i].name]++
	}
	for _, f := range faults {
		if seen[f.name] < 2 { // of two whole packs
			t.Errorf("%s was drawn %d times of 40", f.name, seen[f.name])
		}
	}
	if _, err := draw(5, 4, "switchover,earthquake"); err == nil {
		t.Error("an unknown fault is no error")
	}
}
