package balancer

import (
	"fmt"
	"os"
	"time"

	"pointsman/healthcheck"
)

// Snapshot returns all that can be seen now, or nil after the end of Run.
func (b *Balancer) Snapshot() *Snapshot {
	var s *Snapshot
	b.do(func() { s = b.snapshot(time.Now()) })
	return s
}

// History returns what befell the leaders, or nil after the end of Run.
func (b *Balancer) History() *History {
	var h *History
	b.do(func() { h = b.history.tell(time.Now()) })
	return h
}

func (b *Balancer) snapshot(now time.Time) *Snapshot {
	frontends, servers := b.engine.Counters()
	s := &Snapshot{Version: b.opt.Version, PID: os.Getpid(), Started: b.started, Taken: now}
	for _, f := range b.frontends {
		c := frontends[f.id]
		fs := FrontendStatus{Name: f.cfg.Name, Backend: f.cfg.DefaultBackend, MaxConn: f.cfg.MaxConn,
			Current: c.Current, Max: c.MaxSeen, Total: c.Total, Refused: c.Refused, BytesIn: c.In, BytesOut: c.Out}
		for _, addr := range f.cfg.Binds {
			fs.Binds = append(fs.Binds, BindStatus{Address: addr.String()})
		}
		s.Frontends = append(s.Frontends, fs)
	}
	for _, bk := range b.backends {
		bs := BackendStatus{Name: bk.cfg.Name, Policy: string(bk.cfg.Policy), Accepting: len(bk.eligible()) > 0,
			Transition: bk.transition, Changes: bk.changes,
			Held: int64(bk.waiting.held.Load()), Queued: int64(bk.waiting.queued.Load())}
		if f := bk.follower; f != nil {
			bs.Timeline, bs.Since, bs.Reason = f.past.timeline, f.since, f.reason
			if leader := bk.leader(); leader != nil {
				bs.Leader, bs.Epoch = leader.cfg.Name, uint32(leader.epoch)
			}
		}
		for _, srv := range bk.servers {
			bs.Servers = append(bs.Servers, srv.status())
			c := servers[srv.id]
			st := &bs.Servers[len(bs.Servers)-1]
			st.Max, st.Total, st.BytesIn, st.BytesOut, st.Refused = c.MaxSeen, c.Total, c.In, c.Out, c.Refused
			bs.Current += st.Current
		}
		s.Backends = append(s.Backends, bs)
	}
	for _, st := range b.stores {
		s.DCS = append(s.DCS, st.status())
	}
	return s
}

func (s *server) status() ServerStatus {
	st := ServerStatus{Name: s.cfg.Name, Address: s.cfg.Address.String(), State: s.state(), Up: s.last.Up, Since: s.changed,
		Role: s.last.Role, Timeline: s.last.Timeline, Checked: s.last.At, Result: s.last.Reason,
		CheckMS: float64(s.last.Took.Microseconds()) / 1000,
		Current: int64(s.slots.taken.Load()), CheckBad: s.bad, Downs: s.downs}
	if s.addr.IsValid() && s.prober != nil {
		st.Check = s.check().String()
	}
	return st
}

// state is HAProxy's word for the server's health: UP, DOWN, and on the way
// from one to the other "UP 1/3" (one of three failures) and "DOWN 1/2".
func (s *server) state() string {
	word := "DOWN"
	if s.last.Up {
		word = "UP"
	}
	switch {
	case s.prober == nil:
		return "no check"
	case s.counting() && s.last.Class != healthcheck.Silent && s.last.Streak > 0:
		return fmt.Sprintf("%s %d/%d", word, s.last.Streak, s.last.Needed)
	}
	return word
}
