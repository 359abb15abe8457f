//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"
)

// Scenarios in which the leader changes.

// connects and statements that failed are told apart: the first must not be, the
// second cannot be helped where a session was cut with a statement in flight.
func (m *measurement) connects() row {
	return m.number("connection attempts that failed", func(o outcome) int { return o.connects })
}

func (m *measurement) statements() row {
	return m.number("statements that failed", func(o outcome) int { return o.statements })
}

func (m *measurement) firstWrite(who string) row {
	return m.row("first write, client that "+map[string]string{"keep": "keeps", "anew": "connects anew"}[who], "s",
		func(o outcome) (float64, bool) {
			if o.open[who] {
				return m.end.Sub(m.fault).Seconds(), true
			}
			return o.firstWrite[who].Seconds(), false
		})
}

// crash: the leader's PostgreSQL and Patroni are killed, and started again when
// another node leads.
func (w *world) crash(ctx context.Context, t *testing.T) {
	m := w.begin(ctx, t, "leader killed")
	old, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	m.old = old
	m.fault = time.Now()
	err = w.cluster.killNode(old)
	if err == nil {
		err = w.newLeader(ctx, m)
	}
	err = errors.Join(err, w.cluster.startPatroni(old))
	if err == nil {
		err = w.cluster.waitHealthy(ctx)
	}
	if err == nil {
		err = pause(ctx, 5*time.Second)
	}
	w.finish(t, m)
	if err != nil {
		t.Error(err)
	}
	w.add(t, limited(m.connects(), limitNone), m.statements(), m.firstWrite("keep"), m.firstWrite("anew"),
		m.idleEnded(), limited(w.bytesToOld(m, m.fault), limitNone))
}

// newLeader waits until another node leads and every way has found it.
func (w *world) newLeader(ctx context.Context, m *measurement) error {
	err := waitFor(ctx, 60*time.Second, "another leader", func() error {
		now, err := w.cluster.leader()
		if err == nil && now == m.old {
			err = fmt.Errorf("still %s", now.name)
		}
		m.next = now
		return err
	})
	if err != nil {
		return err
	}
	// No error if a way does not find it: the report will show that.
	_ = waitFor(ctx, 30*time.Second, "writes on every way", func() error { return writing(m.clients, 3) })
	return context.Cause(ctx)
}

// vanish: the leader's host falls silent, and comes back when another leads.
func (w *world) vanish(ctx context.Context, t *testing.T) {
	m := w.begin(ctx, t, "leader's host silent")
	old, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	m.old = old
	m.fault = time.Now()
	err = w.net.unplug(old.host)
	if err == nil {
		err = w.silence(ctx, old)
	}
	if err == nil {
		err = w.newLeader(ctx, m)
	}
	back := time.Now()
	err = errors.Join(err, w.net.plug(old.host))
	if err == nil {
		err = w.cluster.waitHealthy(ctx)
	}
	if err == nil {
		err = pause(ctx, 8*time.Second)
	}
	w.finish(t, m)
	if err != nil {
		t.Error(err)
	}
	busy := newRow(m.scenario, "busy session ended", "s")
	for _, c := range m.clients {
		if at, ok := c.firstLoss(m.fault); ok {
			busy.Values[c.way.name] = at.Sub(m.fault).Seconds()
		} else {
			busy.Values[c.way.name], busy.AtLeast[c.way.name] = m.end.Sub(m.fault).Seconds(), true
		}
	}
	afterwards := w.bytesToOld(m, back)
	afterwards.Measure = "bytes to the old leader after its return"
	w.add(t, limited(m.idleLast(back), limitBusyGone.Seconds()), busy, limited(m.connects(), limitNone), m.statements(),
		m.firstWrite("keep"), m.firstWrite("anew"), limited(afterwards, limitNone))
}

// glimpse is long enough for limitIdleGone, and so short that Patroni keeps
// its leader: it gives up after its retry_timeout of 10 s at the earliest.
const glimpse = 8 * time.Second

// quiet: the leader's host falls silent for a moment, and there are idle
// sessions alone: no client's trouble tells a proxy to look. It does so just
// after pointsman has asked it, which is the worst time.
func (w *world) quiet(ctx context.Context, t *testing.T) {
	m := w.beginQuiet(ctx, t, "the same for 8 s, no busy clients", true)
	old, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.probed(ctx, old); err != nil {
		t.Fatal(err)
	}
	m.fault = time.Now()
	err = w.net.unplug(old.host)
	if err == nil {
		err = pause(ctx, glimpse)
	}
	back := time.Now()
	err = errors.Join(err, w.net.plug(old.host))
	w.finish(t, m)
	if err != nil {
		t.Error(err)
	}
	w.add(t, limited(m.idleLast(back), limitIdleGone.Seconds()))
}

// probed waits until pointsman, if it is there, has just had an answer from the node.
func (w *world) probed(ctx context.Context, node *member) error {
	for _, p := range w.proxies {
		if p.name != "pointsman" {
			continue
		}
		return waitFor(ctx, 10*time.Second, "a probe", func() error {
			now := time.Now()
			for _, k := range w.capture.between(now.Add(-200*time.Millisecond), now) {
				if k.node == node && k.status != 0 && k.peer.Addr() == p.host.addr {
					return nil
				}
			}
			return errors.New("none yet")
		})
	}
	return nil
}

// idleLast is when the last idle session ended; till is when the host was back.
func (m *measurement) idleLast(till time.Time) row {
	r := m.row("idle sessions: the last of 20 ended", "s", func(o outcome) (float64, bool) {
		if o.idleEnded < idleSessions || m.fault.Add(o.idleLast).After(till) {
			return till.Sub(m.fault).Seconds(), true
		}
		return o.idleLast.Seconds(), false
	})
	delete(r.Values, "floor") // nothing ends libpq's idle sessions
	return r
}

// silence proves that the host does not answer and that nobody answers for it.
func (w *world) silence(ctx context.Context, gone *member) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	conn, err := w.net.hosts["clients"].dial(ctx, gone.addr.String()+":5432")
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s still answers", gone.name)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s is not silent: %w", gone.name, err)
	}
	return nil
}

// firstLoss is when the keeping writer first lost its connection.
func (c *clients) firstLoss(fault time.Time) (time.Time, bool) {
	for _, f := range c.all() {
		if f.Event == "fail" && f.Who == "keep" && f.at().After(fault) {
			return f.at(), true
		}
	}
	return time.Time{}, false
}

var confirmedLine = regexp.MustCompile(`leader of \S+ is now`)

// confirmed is when the proxy took the new leader: when its log said so, or
// when it first sent data there, whichever was first.
func (w *world) confirmed(m *measurement, p *proxy) (time.Time, bool) {
	var at time.Time
	for _, k := range w.capture.between(m.fault, m.end) {
		if isData(k, p) && k.node == m.next && (at.IsZero() || k.at.Before(at)) {
			at = k.at
		}
	}
	for _, l := range p.log(m.fault, m.end) {
		if confirmedLine.MatchString(l.text) && (at.IsZero() || l.at.Before(at)) {
			at = l.at
		}
	}
	return at, !at.IsZero()
}

// bytesToOld counts what sessions sent to the old leader from the moment their
// proxy took the new one, and not before from.
func (w *world) bytesToOld(m *measurement, from time.Time) row {
	r := newRow(m.scenario, "bytes to the old leader once the new one is confirmed", "bytes")
	for _, p := range w.proxies {
		at, ok := w.confirmed(m, p)
		if !ok {
			at = m.fault
			r.AtLeast[p.name] = true // it never was: nothing is proven
		}
		if at.Before(from) {
			at = from
		}
		r.Values[p.name] = 0
		for _, k := range w.capture.between(at, m.end) {
			if isData(k, p) && k.node == m.old {
				r.Values[p.name] += float64(k.payload)
			}
		}
	}
	return r
}
