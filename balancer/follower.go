package balancer

import (
	"time"

	"pointsman/healthcheck"
)

// standbyLeader is Patroni's role of the leader of a cluster that follows
// another one. Its timeline is that one's, and orders nothing here: it rises
// without a promotion, and a promotion does not raise it.
const standbyLeader = "standby_leader"

// follower follows the leader of one backend: it keeps the views of the
// servers and the standing, and says what each answer changes. It knows no
// sockets and no clock, so its stories can be told in text.
type follower struct {
	servers   []view
	past      standing
	reign     uint32 // timeline under which the current leader was confirmed; 0 = unknown
	accepting bool
	reason    string
	loud      bool
	since     time.Time // of this leader, or of having none
	doubted   time.Time // since when a leader gets no new sessions; zero = it does
}

// change is what one answer did.
type change struct {
	from, to  int           // leader before and after; -1 = none
	reign     bool          // a new reign begins or the old one ends: old sessions are fenced
	accepting bool          // follower.accepting changed
	reason    bool          // follower.reason changed
	alarm     bool          // follower.loud changed
	without   time.Duration // on a new leader: how long newcomers found none
}

func newFollower(now time.Time, names []string) *follower {
	f := &follower{past: standing{leader: -1}, since: now, doubted: now, reason: "no server was asked yet"}
	for _, name := range names {
		f.servers = append(f.servers, view{name: name})
	}
	return f
}

// reshaped returns the follower with other servers, named in order; where
// tells at which index a server is now, or -1. A leader that is gone leaves
// its place empty.
func (f *follower) reshaped(now time.Time, names []string, where func(old int) int) *follower {
	n := newFollower(now, names)
	past := f.past
	past.leader = -1
	for i, s := range f.servers {
		to := where(i)
		if to < 0 {
			continue
		}
		n.servers[to] = s
		if i == f.past.leader {
			past.leader = to
		}
	}
	n.past, n.reason, n.loud = past, f.reason, f.loud
	if past.leader >= 0 {
		n.reign, n.accepting, n.since, n.doubted = f.reign, f.accepting, f.since, f.doubted
	}
	return n
}

// observe takes in what a probe of server i found, and decides anew.
func (f *follower) observe(now time.Time, i int, r healthcheck.Report) change {
	s := &f.servers[i]
	s.asked, s.claims, s.up, s.why = true, r.OK(), r.Up, r.Reason
	switch {
	case r.Role == standbyLeader:
		s.timeline = 0
	case r.Timeline != 0:
		s.timeline = r.Timeline
	}
	if s.claims && s.up && s.timeline > f.past.timeline {
		f.past.timeline = s.timeline
	}
	return f.decide(now)
}

// decide asks elect, and takes its decision as the new standing. Beside each
// answer it is asked now and then, because time alone can change the decision.
func (f *follower) decide(now time.Time) change {
	d := elect(now, f.past, f.servers)
	c := change{from: f.past.leader, to: d.leader, accepting: d.accepting != f.accepting, reason: d.reason != f.reason, alarm: d.loud != f.loud}
	c.reign = c.from != c.to || (c.to >= 0 && f.newReign(c.to))

	switch {
	case !d.lone:
		f.past.loneSince = time.Time{}
	case f.past.loneSince.IsZero():
		f.past.loneSince = now
	}
	if c.reign {
		f.since = now
	}
	if c.to >= 0 && f.servers[c.to].claims {
		if c.reign {
			// Also downwards: a restored cluster that was believed.
			f.past.timeline = f.servers[c.to].timeline
		}
		f.reign = f.servers[c.to].timeline
	}
	if d.accepting && !f.doubted.IsZero() {
		c.without = now.Sub(f.doubted)
		f.doubted = time.Time{}
	} else if !d.accepting && f.doubted.IsZero() {
		f.doubted = now
	}
	f.past.leader, f.accepting, f.reason, f.loud = d.leader, d.accepting, d.reason, d.loud
	return c
}

// newReign reports whether the leader was promoted anew since it was
// confirmed: it was deposed and came back between two probes, so whatever was
// opened before belongs to a PostgreSQL that is no more.
func (f *follower) newReign(leader int) bool {
	s := f.servers[leader]
	return s.claims && f.reign != 0 && s.timeline > f.reign
}

// settled reports whether a leader is confirmed and vouched for.
func (f *follower) settled() bool { return f.past.leader >= 0 && f.accepting }
