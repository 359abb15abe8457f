package balancer

import (
	"strings"
	"testing"
	"time"

	"pointsman/config"
)

// untilEvent waits until event n is as wanted.
func (w *world) untilEvent(n int, what string, is func(LeaderEvent) bool) LeaderEvent {
	w.t.Helper()
	var e LeaderEvent
	w.until("event "+what, func(*Snapshot) bool {
		events := w.b.History().Events
		if len(events) < n {
			return false
		}
		e = events[n-1]
		return is(e)
	})
	return e
}

// TestRecordOfAFailover: a leader with sessions dies, clients wait, and another
// leads.
func TestRecordOfAFailover(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	for range 3 {
		w.dial().wantNode("a")
	}
	first := w.untilEvent(1, "of the start", func(e LeaderEvent) bool { return e.FirstSession != nil })
	if first.Outcome != LeaderChanged || first.Old.Server != "" || first.New.Server != "a" || first.New.Timeline != 5 || first.Doubt.By != "start" {
		t.Errorf("the start: %+v", first)
	}
	w.nodes[0].stop()
	w.until("without a leader", func(s *Snapshot) bool { return s.Backends[0].Leader == "" })
	held, leaves := w.dial(), w.dial()
	w.until("two held", func(s *Snapshot) bool { return s.Backends[0].Held == 2 })
	open := w.untilEvent(2, "under way", func(e LeaderEvent) bool { return e.Held.Clients >= 2 })
	if open.Outcome != Ongoing || open.Fenced == nil || open.Confirmed != nil || open.NoLeaderMS <= 0 {
		t.Errorf("while it lasts: %+v", open)
	}
	leaves.conn.Close()
	w.until("one held", func(s *Snapshot) bool { return s.Backends[0].Held == 1 })
	w.nodes[1].set(true, 6)
	held.wantNode("b")

	w.untilLog("failover 2 of bk: a -> b: doubt by hint: a: ")
	e := w.untilEvent(2, "over", func(e LeaderEvent) bool { return e.Outcome == LeaderChanged })
	if e.Old.Server != "a" || e.Old.Timeline != 5 || e.New.Server != "b" || e.New.Timeline != 6 || e.New.Epoch <= e.Old.Epoch {
		t.Errorf("from %+v to %+v", e.Old, e.New)
	}
	if e.Doubt.By != "session" || e.Doubt.Source != "a" {
		t.Errorf("doubt by %+v", e.Doubt)
	}
	// Before the doubt or just after it, but in this order.
	phases := []*Moment{e.Stopped, e.Fenced, e.Claimed, e.Confirmed, e.FirstSession}
	for i, m := range phases {
		if m == nil || i > 0 && m.AfterMS < phases[i-1].AfterMS {
			t.Fatalf("phase %d: %+v", i, e)
		}
		if d := m.At.Sub(e.Doubt.At).Seconds()*1000 - m.AfterMS; d > 2 || d < -2 {
			t.Errorf("phase %d: %v is not %v ms after %v", i, m.At, m.AfterMS, e.Doubt.At)
		}
	}
	if e.LastGood == nil || e.LastGood.AfterMS > e.Stopped.AfterMS {
		t.Errorf("last good answer: %+v", e.LastGood)
	}
	// Two clients wait for sure; one of the three sessions' ends may be the
	// client's own before the fence.
	if h := e.Held; h.Clients != 2 || h.Most != 2 || h.Left != 1 || h.Late+h.Full != 0 || h.LongestMS <= 0 || h.LongestMS > e.NoLeaderMS {
		t.Errorf("held: %+v, no leader for %v ms", e.Held, e.NoLeaderMS)
	}
}

func TestRecordOfARival(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	for range 3 {
		w.dial().wantNode("a")
	}
	w.nodes[1].set(true, 6) // a goes on claiming
	w.untilLeader("b")
	w.dial().wantNode("b")
	w.untilLog("failover 2 of bk: a -> b: doubt by check: b: claims to lead at ")
	e := w.b.History().Events[1]
	if e.SessionsEnded != 3 || e.Fenced == nil || e.Fenced.AfterMS < e.Confirmed.AfterMS || e.FirstSession.AfterMS < e.Confirmed.AfterMS {
		t.Errorf("%+v", e)
	}
}

func TestRecordCountsRefusals(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Hold, c.Backends[0].HoldMax = 100*time.Millisecond, 1 }, "a")
	first, second := w.dial(), w.dial()
	first.line()
	second.line() // one of them finds no place
	e := w.untilEvent(1, "with refusals", func(e LeaderEvent) bool { return e.Held.Late == 1 && e.Held.Full == 1 })
	if e.Outcome != Ongoing || e.Held.Clients != 1 || e.Held.Most != 1 || e.Held.LongestMS < 100 {
		t.Errorf("%+v", e.Held)
	}
}

// TestRecordCountsAClientOnce: a held client whose connects fail goes back to
// holding, over and over.
func TestRecordCountsAClientOnce(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Inter = time.Minute }, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	w.nodes[0].sql.Close() // its REST still vouches
	s := w.dial()
	w.until("refused twice", func(s *Snapshot) bool { return s.Backends[0].Servers[0].Refused >= 2 })
	w.lead(1, 6)
	s.wantNode("b")
	w.untilLog("failover 2 of bk: a -> b")
	if e := w.b.History().Events[1]; e.Held.Clients != 1 || e.Doubt.Text != "connect refused" {
		t.Errorf("%+v, doubt by %v", e.Held, e.Doubt)
	}
}

func TestRecordOfADoubtThatPasses(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	w.nodes[0].set(false, 5)
	w.untilEvent(2, "a doubt", func(e LeaderEvent) bool { return e.Stopped != nil })
	w.nodes[0].set(true, 5)
	e := w.untilEvent(2, "over", func(e LeaderEvent) bool { return e.Outcome == VouchedAgain })
	if !strings.HasPrefix(e.Doubt.String(), "check: a: Layer7 wrong status, code: 503") || e.Over == nil || e.Fenced != nil || e.New.Server != "" {
		t.Errorf("%+v", e)
	}
	if w.stop(); strings.Contains(w.log.String(), "failover") {
		t.Error("a doubt that passed is no failover")
	}
}

func TestRecordOfAReload(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	cfg := w.cfg
	cfg.Backends = append([]config.Backend(nil), cfg.Backends...)
	cfg.Backends[0].Servers = cfg.Backends[0].Servers[1:]
	if err := w.b.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	e := w.untilEvent(2, "without a", func(e LeaderEvent) bool { return e.Outcome == Ongoing })
	if e.Doubt.By != "reload" || e.Old.Server != "a" {
		t.Errorf("%+v", e)
	}
	cfg.Backends[0].Policy = config.RoundRobin
	if err := w.b.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	if e := w.b.History().Events[1]; e.Outcome != Abandoned {
		t.Errorf("of another policy: %+v", e)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range 3 * maxEvents {
		outcome := VouchedAgain
		if i%10 == 0 {
			outcome = LeaderChanged
		}
		h.add(&event{outcome: outcome, finished: true})
	}
	changes := 0
	for _, e := range h.events {
		if e.outcome == LeaderChanged {
			changes++
		}
	}
	// Doubts that passed leave room for half of what is kept.
	if len(h.events) != maxEvents || changes != 3*maxEvents/10 || h.events[maxEvents-1].number != 3*maxEvents {
		t.Errorf("%d events, %d of them changes; the last is number %d", len(h.events), changes, h.events[len(h.events)-1].number)
	}
	for range maxEvents {
		h.add(&event{outcome: LeaderChanged, finished: true})
	}
	if len(h.events) != maxEvents {
		t.Errorf("%d events", len(h.events))
	}
}

func TestTextsAreCut(t *testing.T) {
	long := cut(strings.Repeat("ü", maxNote))
	if len(long) > maxNote || !strings.HasSuffix(long, "ü…") || strings.ContainsRune(long, '\uFFFD') {
		t.Errorf("%q", long)
	}
	e := &event{}
	for range 2 {
		for i := range 2 * maxNotes {
			e.note(time.Time{}, strings.Repeat("x", i))
		}
	}
	if len(e.notes) != maxNotes || e.lost == 0 {
		t.Errorf("%d notes, %d lost", len(e.notes), e.lost)
	}
}
