package balancer

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"pointsman/balancer/relay"
	"pointsman/config"
	"pointsman/healthcheck"
)

// termination's letters: the first of HAProxy's %ts.
var causeLetter = [...]string{
	relay.Normal: "-", relay.ClientAborted: "C", relay.ServerAborted: "S", relay.ClientTimeout: "c", relay.ServerTimeout: "s",
	relay.MarkedDown: "D", relay.Killed: "K", relay.Exhausted: "R", relay.PeerVanished: "S", relay.Denied: "S", relay.Malformed: "P",
}

// logHealth writes HAProxy's line for a server that went UP or DOWN.
func (b *Balancer) logHealth(s *server, was healthcheck.Report, first bool, ended int) {
	now := s.last
	if was.Up == now.Up && !first {
		if ended > 0 {
			b.log.Warn(fmt.Sprintf("Server %s/%s died while it drained, reason: %s. %d sessions ended.",
				s.backend.cfg.Name, s.cfg.Name, describe(now), ended))
		}
		if was.OK() != now.OK() {
			b.log.Debug(fmt.Sprintf("Server %s/%s: %s", s.backend.cfg.Name, s.cfg.Name, describe(now)))
		}
		return
	}
	active, backup := s.backend.up()
	who := s.backend.cfg.Name + "/" + s.cfg.Name
	switch {
	case now.Up:
		b.log.Log(context.Background(), slog.LevelInfo, fmt.Sprintf("Server %s is UP, reason: %s. %d active and %d backup servers online.",
			who, describe(now), active, backup))
	case was.Up && s.backend.cfg.OnMarkedDown == config.DrainSessions && !now.Dead:
		b.log.Warn(fmt.Sprintf("Server %s is DOWN, reason: %s. %d active and %d backup servers left. %d sessions drain, %d remaining in queue.",
			who, describe(now), active, backup, s.slots.taken.Load(), s.backend.waiting.queued.Load()))
	case was.Up:
		b.log.Warn(fmt.Sprintf("Server %s is DOWN, reason: %s. %d active and %d backup servers left. %d sessions ended, %d remaining in queue.",
			who, describe(now), active, backup, ended, s.backend.waiting.queued.Load()))
	case !now.OK():
		b.log.Info(fmt.Sprintf("Server %s starts DOWN, reason: %s.", who, describe(now)))
	}
}

// describe tells a probe's outcome: "Layer7 wrong status, code: 503, …, check duration: 3ms".
func describe(r healthcheck.Report) string {
	return fmt.Sprintf("%s, check duration: %dms", r.Reason, r.Took.Milliseconds())
}

// logLeader writes what a person wants to read about a leader's coming and
// going. held is how many clients waited just before.
func (b *Balancer) logLeader(bk *backend, c change, was string, ended int, held int32) {
	f, name := bk.follower, bk.cfg.Name
	level := slog.LevelInfo
	if f.loud {
		level = slog.LevelWarn
	}
	write := func(format string, args ...any) {
		b.log.Log(context.Background(), level, fmt.Sprintf(format, args...))
	}
	switch {
	case c.reign && c.to >= 0:
		timeline := ""
		if f.reign != 0 {
			timeline = fmt.Sprintf(" (timeline %d)", f.reign)
		}
		write("leader of %s is now %s%s, was %s: %s; %d sessions ended, %d held clients connected, no leader for %v",
			name, bk.nameOf(c.to), timeline, was, f.reason, ended, held, round(c.without))
	case c.reign:
		level = slog.LevelWarn
		write("%s has no leader, was %s: %s; %d sessions ended, new clients are held up to %v. If this lasts, look at `patronictl list` and at etcd.",
			name, was, f.reason, ended, bk.cfg.Hold)
	case c.accepting && f.accepting:
		write("leader %s of %s is vouched for again after %v; %d held clients connected", was, name, round(c.without), held)
	case c.accepting:
		write("leader %s of %s: %s; new clients are held, its %d sessions stay", was, name, f.reason, bk.leader().slots.taken.Load())
	case (c.reason && f.loud) || c.alarm:
		write("leader of %s is %s: %s", name, bk.nameOf(c.to), f.reason)
	case c.reason:
		b.log.Debug(fmt.Sprintf("leader of %s is %s: %s", name, bk.nameOf(c.to), f.reason))
	}
}

// Excuse implements relay.Director.
func (b *Balancer) Excuse(frontend int32) string {
	r := b.routes.Load()
	if n := r.frontends[frontend]; n >= 0 && r.backends[n] != nil {
		return r.backends[n].excuse(time.Now())
	}
	return "the service is being stopped"
}

// logEvent writes the phases of a leader change that is over; e may be nil. What
// else an event may be has its lines already.
func (b *Balancer) logEvent(bk *backend, e *event) {
	if e == nil {
		return
	}
	bk.waiting.tally(true) // the next one's most and longest are its own
	if e.changed() {
		b.log.Info(e.line())
	}
}

// nameOf returns a server's name; of no server, "nobody".
func (bk *backend) nameOf(i int) string {
	if i < 0 {
		return "nobody"
	}
	return bk.servers[i].cfg.Name
}

// round keeps three digits or so.
func round(d time.Duration) time.Duration {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}

// Ended implements relay.Director: a loop must not wait for the log, so what
// finds the queue full is counted and dropped.
func (b *Balancer) Ended(r *relay.Record) {
	select {
	case b.sessions <- *r:
	default:
		b.missed.Add(1)
	}
}

// logSessions writes the ended sessions until ctx is done and the queue empty.
func (b *Balancer) logSessions(ctx context.Context) {
	for {
		select {
		case r := <-b.sessions:
			b.log.Info(b.tcplog(&r))
			continue
		default:
		}
		select {
		case r := <-b.sessions:
			b.log.Info(b.tcplog(&r))
		case <-ctx.Done():
			return
		}
	}
}

// tcplog is HAProxy's `option tcplog` line:
// %ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq
func (b *Balancer) tcplog(r *relay.Record) string {
	t := b.routes.Load()
	backend, server := "<NONE>", "<NOSRV>"
	var onServer, onBackend, queued int32
	if n := r.Ticket.Backend; r.Ticket.Place != relay.Nowhere && int(n) < len(t.backendNames) {
		backend = t.backendNames[n]
		onBackend, queued = t.current(n), t.backend[n].queued.Load()
	}
	connect := "-1"
	if n := r.Ticket.Target.Server; r.Ticket.Place == relay.Slotted {
		server, onServer = t.serverNames[n], t.server[n].taken.Load()
	}
	if r.Connected {
		connect = fmt.Sprint(r.Connect.Milliseconds())
	}
	client := r.Client.Addr().Unmap()
	total := int32(0)
	for _, s := range t.server {
		total += s.taken.Load()
	}
	return fmt.Sprintf("%s:%d [%s] %s %s/%s %d/%s/%d %d %s %d/%d/%d/%d/%d 0/%d",
		client, r.Client.Port(), r.Accepted.Format("02/Jan/2006:15:04:05.000"), t.frontendNames[r.Frontend], backend, server,
		r.Waited.Milliseconds(), connect, r.Lasted.Milliseconds(), r.Out, termination(r),
		total, onBackend, onBackend, onServer, r.Failures, queued)
}

// current counts the sessions of a backend's present servers.
func (r *routes) current(n int32) (sum int32) {
	if r.backends[n] != nil {
		for _, s := range r.backends[n].members {
			sum += s.taken.Load()
		}
	}
	return sum
}

// termination is HAProxy's %ts: who ended the session, and in which phase.
func termination(r *relay.Record) string {
	if r.Cause == relay.Normal {
		return "--"
	}
	phase := "Q"
	switch {
	case r.Connected:
		phase = "D"
	case r.Greeting:
		phase = "R" // as HAProxy says of a client that has not sent a whole request
	case r.Ticket.Place == relay.Slotted:
		phase = "C"
	case r.Cause == relay.Denied:
		phase = "C" // HAProxy's SC with <NOSRV>: no server was available
	}
	return causeLetter[r.Cause] + phase
}
