package balancer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pointsman/config"
)

func TestHoldsUntilALeaderIsConfirmed(t *testing.T) {
	w := start(t, nil, "a", "b", "c")
	s := w.dial()
	fmt.Fprintln(s.conn, "sent before there was a leader")
	w.until("one client held", func(s *Snapshot) bool { return s.Backends[0].Held == 1 })
	w.lead(1, 5)
	s.wantNode("b")
	if got := s.line(); got != "sent before there was a leader" {
		t.Errorf("echo: %q", got)
	}
	w.untilLog("leader of bk is now b (timeline 5), was nobody: confirmed; 0 sessions ended, 1 held clients connected")
	if held := w.b.Snapshot().Backends[0].Held; held != 0 {
		t.Errorf("%d held", held)
	}
}

func TestHoldEnds(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Hold = 100 * time.Millisecond }, "a")
	began := time.Now()
	if got := w.dial().line(); got != "" {
		t.Fatalf("read %q", got)
	}
	if d := time.Since(began); d < 90*time.Millisecond {
		t.Errorf("refused after %v", d)
	}
}

func TestHeldClientThatLeavesIsForgotten(t *testing.T) {
	w := start(t, nil, "a")
	s := w.dial()
	w.until("held", func(s *Snapshot) bool { return s.Backends[0].Held == 1 })
	s.conn.Close()
	w.until("forgotten", func(s *Snapshot) bool { return s.Backends[0].Held == 0 && s.Frontends[0].Current == 0 })
}

func TestRivalDeposesAtOnce(t *testing.T) {
	w := start(t, nil, "a", "b", "c")
	w.lead(0, 5)
	w.untilLeader("a")
	var old []*session
	for range 20 {
		s := w.dial()
		s.wantNode("a")
		old = append(old, s)
	}
	before := w.b.Snapshot().Backends[0].Epoch
	// a still claims, with the older timeline: it is frozen in that belief.
	w.nodes[1].set(true, 6)
	for _, s := range old {
		if got := s.line(); got != "" {
			t.Fatalf("an old session reads %q", got)
		}
	}
	s := w.dial()
	s.wantNode("b")
	s.echo("hello")
	if after := w.b.Snapshot().Backends[0].Epoch; after <= before {
		t.Errorf("epoch %d after %d", after, before)
	}
	w.untilLog("leader of bk is now b (timeline 6), was a: rival confirmed; 20 sessions ended")
	w.untilLog("a (timeline 5) claims to lead; refused, because timeline 6 was seen")
	w.until("the refusal in the status", func(s *Snapshot) bool {
		return s.Backends[0].Reason == "stays: a (timeline 5) claims to lead; refused, because timeline 6 was seen"
	})
}

func TestLeaderInDoubtKeepsItsSessions(t *testing.T) {
	w := start(t, func(c *config.Config) {
		c.Backends[0].Inter = time.Minute // its SQL port accepts: counted once a minute
	}, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	s := w.dial()
	s.wantNode("a")
	w.nodes[0].set(false, 5)
	w.b.do(func() { w.b.hint(w.b.backends[0], hint{byDCS, "test", "asked"}) })
	w.until("in doubt", func(s *Snapshot) bool { return !s.Backends[0].Accepting })
	s.echo("still here")
	held := w.dial()
	w.until("a newcomer held", func(s *Snapshot) bool { return s.Backends[0].Held == 1 })
	w.nodes[0].set(true, 5)
	held.wantNode("a")
	s.echo("and still")
	w.untilLog("leader a of bk: in doubt: Layer7 wrong status, code: 503")
	w.untilLog("leader a of bk is vouched for again after")
	if n := w.b.Snapshot().Backends[0].Changes; n != 1 {
		t.Errorf("%d leader changes, want 1", n)
	}
}

func TestDeadLeadersSessionsEnd(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	s := w.dial()
	s.wantNode("a")
	w.nodes[0].stop()
	if got := s.line(); got != "" {
		t.Fatalf("read %q", got)
	}
	held := w.dial() // before anybody knows, or after: it must not fail
	w.until("without a leader", func(s *Snapshot) bool { return s.Backends[0].Leader == "" })
	w.untilLog("bk has no leader, was a: no server claims to lead")
	w.untilLog("Server bk/a is DOWN, reason: Layer4 connection problem")
	w.nodes[1].set(true, 6)
	held.wantNode("b")
}

func TestOnMarkedDownNoneKeepsSessionsUntilARival(t *testing.T) {
	w := start(t, func(c *config.Config) {
		c.Backends[0].OnMarkedDown = config.KeepSessions
		c.Backends[0].Inter = 20 * time.Millisecond
	}, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	s := w.dial()
	s.wantNode("a")
	w.nodes[0].set(false, 5)
	w.until("without a leader", func(s *Snapshot) bool { return s.Backends[0].Leader == "" })
	s.echo("kept")
	w.lead(0, 5) // back, and nobody else led meanwhile: the same reign
	w.untilLeader("a")
	s.echo("kept on")
	w.lead(1, 6)
	if got := s.line(); got != "" {
		t.Fatalf("after the rival: %q", got)
	}
}

func TestOneLeaderWhenAllClaim(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Hold = 300 * time.Millisecond }, "a", "b", "c")
	for _, n := range w.nodes {
		n.set(true, 5)
	}
	if got := w.dial().line(); got != "" {
		t.Fatalf("served by %q", got)
	}
	w.untilLog("no leader is chosen: a (timeline 5) and b (timeline 5) and c (timeline 5) claim to lead")
}

func TestRefusedConnectGoesBackToHolding(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Inter = time.Minute }, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	w.nodes[0].sql.Close() // its REST still vouches, as Patroni's does during a restart
	s := w.dial()
	w.until("held", func(s *Snapshot) bool { return s.Backends[0].Held == 1 && s.Backends[0].Servers[0].Refused > 0 })
	w.untilLog("hint: asking all servers now")
	w.lead(1, 6)
	s.wantNode("b")
}

func TestNoProbeStormWithoutALeader(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].FastInter = 50 * time.Millisecond }, "a", "b")
	w.until("asked", func(s *Snapshot) bool { return !s.Backends[0].Servers[1].Checked.IsZero() })
	count := func() (n int) {
		for _, n2 := range w.nodes {
			n2.mu.Lock()
			n += n2.probes
			n2.mu.Unlock()
		}
		return n
	}
	before, began := count(), time.Now()
	time.Sleep(500 * time.Millisecond)
	most := 2 * (int(time.Since(began)/(50*time.Millisecond)) + 2)
	if got := count() - before; got > most || got < 2 {
		t.Errorf("%d probes, want 2 to %d", got, most)
	}
}

func TestSnapshotTellsRolesAndReasons(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 7)
	s := w.untilLeader("a")
	a, b := s.Backends[0].Servers[0], s.Backends[0].Servers[1]
	if a.State != "UP" || a.Role != "primary" || a.Timeline != 7 {
		t.Errorf("a: %+v", a)
	}
	if b.State != "DOWN" || b.Role != "replica" || !strings.Contains(b.Result, "503") {
		t.Errorf("b: %+v", b)
	}
}

func TestDeposedByTwoRivalsAtOnce(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].OnMarkedDown = config.KeepSessions }, "a", "b", "c")
	w.lead(0, 5)
	w.untilLeader("a")
	s := w.dial()
	s.wantNode("a")
	w.nodes[1].set(true, 6)
	w.nodes[2].set(true, 6)
	// Whichever of the two it is: a, though UP and claiming, leads no more.
	if got := s.line(); got != "" {
		t.Fatalf("the deposed leader's session reads %q", got)
	}
}
