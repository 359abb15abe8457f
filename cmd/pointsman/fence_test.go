package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"pointsman/cmd/pointsman/simulation"
)

// TestConnectsInFlightAtAFence fences a leader that answers no connect any
// more, while clients are being connected to it: all of them come to the next
// one, and not a byte of theirs to it, even when it wakes up again.
func TestConnectsInFlightAtAFence(t *testing.T) {
	// The old leader gives way, and is in doubt before it is fenced.
	t.Run("deposed", func(t *testing.T) {
		connectsInFlight(t, "", func(c *simulation.Cluster) error {
			return c.Promote(context.Background(), c.Nodes()[1])
		})
	})
	// It believes that it leads until it is fenced.
	t.Run("deposed at once", func(t *testing.T) {
		connectsInFlight(t, "option rise '1'", func(c *simulation.Cluster) error {
			c.Nodes()[1].Set(func(s *simulation.State) { s.Role, s.Timeline, s.Lock = "primary", 2, true })
			return nil
		})
	})
}

func connectsInFlight(t *testing.T, option string, depose func(*simulation.Cluster) error) {
	c := cluster(t)
	old := c.Nodes()[0]
	p := spawn(t, c.UCI("bk"), option)
	p.until("leader of bk is now postgres-1")
	old.Set(func(s *simulation.State) { s.SQL = simulation.Frozen })
	c.TakeWrites()
	const clients = 20
	var conns []net.Conn
	for i := range clients {
		conn, err := net.Dial("tcp4", p.listener)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintln(conn, "WRITE row", i)
		conns = append(conns, conn)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if b := p.status().Backends[0]; b.Current == clients && b.Servers[0].Total == 0 { // all in flight
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not all connects are in flight: %+v", p.status().Backends[0])
		}
	}
	if err := depose(c); err != nil {
		t.Fatal(err)
	}
	p.until("leader of bk is now postgres-2 (timeline 2), was postgres-1: rival confirmed")
	old.Set(func(s *simulation.State) { s.SQL = simulation.Open })
	for i, conn := range conns {
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(answer, "OK postgres-2") {
			t.Fatalf("client %d: %q, %v", i, answer, err)
		}
	}
	for _, w := range c.TakeWrites() {
		if w.Node != "postgres-2" {
			t.Errorf("%s reached %s", w.Text, w.Node)
		}
	}
}

// TestBackFromTheDead wakes up a leader that was given up, with its sessions
// open, its timeline old, and its belief that it leads unshaken.
func TestBackFromTheDead(t *testing.T) {
	c := cluster(t)
	old := c.Nodes()[0]
	p := spawn(t, c.UCI("bk"), "option timeout_check '300ms'")
	p.until("leader of bk is now postgres-1")
	v := p.wantNode("postgres-1")
	old.Freeze()
	p.until("bk has no leader, was postgres-1")
	if err := c.Promote(context.Background(), c.Nodes()[1]); err != nil {
		t.Fatal(err)
	}
	p.until("leader of bk is now postgres-2 (timeline 2)")
	p.wantNode("postgres-2").leave()
	c.TakeWrites()
	old.Set(func(s *simulation.State) { s.SQL, s.REST = simulation.Open, simulation.Open })
	const refusal = "postgres-1 (timeline 1) claims to lead; refused, because timeline 2 was seen"
	p.until("leader of bk is postgres-2: stays: " + refusal)
	if b := p.status().Backends[0]; b.Leader != "postgres-2" || !strings.Contains(b.Reason, refusal) || b.Servers[0].Current != 0 {
		t.Errorf("status: %+v", b)
	}
	if node := v.leave(); node != "" {
		t.Errorf("a session of before is with %q", node)
	}
	for range 20 {
		p.wantNode("postgres-2").leave()
	}
	// The new leader is lost, and the old one is still no leader.
	c.Nodes()[1].Crash()
	p.until("bk has no leader, was postgres-2: " + refusal)
	waiting := come(p.listener)
	c.Nodes()[2].Set(func(s *simulation.State) { s.Role, s.Timeline, s.Lock = "primary", 3, true })
	if node := waiting.wait(); node != "postgres-3" {
		t.Errorf("who waited is with %q: %v", node, waiting.err)
	}
	waiting.leave()
}
