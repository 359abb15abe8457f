package balancer

import (
	"slices"
	"time"

	"pointsman/balancer/relay"
	"pointsman/config"
	"pointsman/healthcheck"
)

// onReport takes in what a monitor found.
func (b *Balancer) onReport(r report) {
	s := b.servers[r.Server]
	if s == nil || s.generation != r.generation {
		return
	}
	b.learn(s, r.Report)
}

// learn makes a report the server's latest, and acts on what it changes.
func (b *Balancer) learn(s *server, r healthcheck.Report) {
	was, first := s.last, !s.asked
	s.last, s.asked = r, true
	if !r.OK() {
		s.bad++
	}
	if was.Up != r.Up || first {
		s.changed = r.At
		if was.Up && !r.Up {
			s.downs++
		}
	}
	bk := s.backend
	if bk.follower != nil {
		bk.recorder.answer(r.At, s.cfg.Name, r.OK(), r.Reason)
		b.follow(bk, bk.follower.observe(r.At, s.index, r), func(ended int) { b.logHealth(s, was, first, ended) })
	} else {
		ended := 0
		if was.Up != r.Up || (r.Dead && !was.Dead) {
			ended = b.serve(bk)
		}
		b.logHealth(s, was, first, ended)
	}
	b.pace(bk)
	s.expect()
}

// expect sets the deadline of the server's next report.
func (s *server) expect() {
	if s.monitor != nil {
		s.due = time.Now().Add(s.monitor.MaxSilence(s.backend.transition))
	}
}

// follow carries out what an answer changed for a backend of policy leader.
// logged is called, with the number of sessions that ended, before the
// leader's own lines: first why, then what follows.
func (b *Balancer) follow(bk *backend, c change, logged func(ended int)) {
	was, f, began := bk.nameOf(c.from), bk.follower, time.Now()
	leader, ended, reigns := bk.leader(), 0, len(bk.reigns)
	held := bk.waiting.held.Load()
	switch {
	case c.reign && leader != nil:
		bk.changes++
		bk.lastLeader = leader.cfg.Name
		// Sessions of this server that were never fenced, because
		// on_marked_down is none, stay in the reign that they belong to.
		if c.from == c.to || leader.epoch == 0 {
			b.newReign(leader)
			reigns++
		}
		b.publish()
		count := b.fence(bk, func(r reign) bool { return r.epoch != leader.epoch })
		b.engine.Wake(bk.id)
		ended = count()
	case c.reign:
		b.publish()
		old := bk.servers[c.from]
		// One that is still UP was deposed, by rivals of whom none stands out:
		// on_marked_down has no say in that.
		if old.last.Up || bk.cfg.OnMarkedDown == config.ShutdownSessions {
			ended = b.fence(bk, func(r reign) bool { return r.server == old.id })()
		} else {
			b.engine.Recall(old.epoch)
		}
	case c.accepting:
		b.publish()
		if f.accepting {
			b.engine.Wake(bk.id)
		} else {
			b.engine.Recall(leader.epoch)
		}
	}
	fenced := time.Time{}
	if len(bk.reigns) < reigns {
		fenced = time.Now()
	}
	logged(ended)
	b.logLeader(bk, c, was, ended, held)
	b.logEvent(bk, bk.recorder.look(began, bk.leading(), fenced, ended, bk.tally()))
}

// serve carries out a change of health for the other policies: each server
// that is UP has a reign of its own. It returns how many sessions ended.
func (b *Balancer) serve(bk *backend) (ended int) {
	for _, s := range bk.servers {
		if s.last.Up && s.epoch == 0 {
			b.newReign(s)
		}
	}
	b.publish()
	for _, s := range bk.servers {
		if s.last.Up || s.epoch == 0 {
			continue
		}
		if s.ends() {
			ended += b.fence(bk, func(r reign) bool { return r.server == s.id })()
		} else {
			b.engine.Recall(s.epoch)
		}
	}
	b.engine.Wake(bk.id)
	return ended
}

// newReign gives the server a new epoch.
func (b *Balancer) newReign(s *server) {
	b.lastEpoch++
	s.epoch = b.lastEpoch
	s.backend.reigns = append(s.backend.reigns, reign{s.epoch, s.id})
}

// fence orders the end of all sessions of the backend's reigns that match. New
// state is published before. The returned function waits until the loops have
// obeyed, and tells how many sessions that ended.
func (b *Balancer) fence(bk *backend, match func(reign) bool) (count func() int) {
	var counts []func() int
	bk.reigns = slices.DeleteFunc(bk.reigns, func(r reign) bool {
		if !match(r) {
			return false
		}
		if s := b.servers[r.server]; s != nil && s.epoch == r.epoch {
			s.epoch = 0
		}
		counts = append(counts, b.engine.Fence(r.epoch, relay.MarkedDown))
		return true
	})
	return func() (ended int) {
		for _, count := range counts {
			ended += count()
		}
		return ended
	}
}

// pace puts the backend's checks at the pace that its state asks for.
func (b *Balancer) pace(bk *backend) {
	transition := bk.follower != nil && !bk.follower.settled()
	transition = transition || (!bk.hinted.IsZero() && time.Since(bk.hinted) < bk.cfg.Inter)
	for _, s := range bk.servers {
		transition = transition || s.counting()
	}
	if transition == bk.transition {
		return
	}
	bk.transition = transition
	for _, s := range bk.servers {
		if s.monitor != nil {
			s.monitor.SetTransition(transition)
			s.expect()
		}
	}
}

// onTick looks at what only time changes.
func (b *Balancer) onTick(now time.Time) {
	// A process that did not run (a stopped machine, a frozen container)
	// finds every report overdue; that says nothing about the servers.
	late := now.Sub(b.ticked) - tick
	b.ticked = now
	for _, bk := range b.backends {
		for _, s := range bk.servers {
			if late > tick {
				s.due = s.due.Add(late)
			}
			if s.monitor != nil && now.After(s.due) && s.last.Class != healthcheck.Silent {
				b.silent(s, now)
			}
		}
		if bk.follower != nil {
			b.follow(bk, bk.follower.decide(now), func(int) {})
		}
		b.pace(bk)
	}
	if n := b.missed.Swap(0); n > 0 {
		b.log.Warn("the log could not keep up: session lines are missing", "sessions", n)
	}
}

// silent treats a monitor that does not report as one that found its server
// dead: a checker that hangs must not vouch for anybody.
func (b *Balancer) silent(s *server, now time.Time) {
	b.learn(s, healthcheck.Report{
		Server: s.id, At: now,
		Result: healthcheck.Result{Class: healthcheck.Silent, Reason: "the check did not report in time"},
		Dead:   true,
	})
	s.monitor.Hint()
}

// hint asks all servers of the backend for an answer now. It decides nothing.
func (b *Balancer) hint(bk *backend, h hint) {
	if bk.recorder != nil {
		bk.recorder.hear(time.Now(), h)
	}
	// A change of the leader's key is never one of a flood: in a switchover the
	// second, which tells of the new leader, follows the first at once.
	if time.Since(bk.hinted) < bk.cfg.FastInter && h.by != byDCS {
		return // the probes of the last hint are under way
	}
	b.log.Debug("hint: asking all servers now", "backend", bk.cfg.Name, "why", h)
	bk.hinted = time.Now()
	b.pace(bk)
	for _, s := range bk.servers {
		if s.monitor != nil {
			s.monitor.Hint()
		}
	}
}
