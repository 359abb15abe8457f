//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kine stands between Kubernetes and the database: writes on condition, and a
// watch that has to tell every write. One of each works through every proxy.

const (
	kineWriters = 4
	// kinePoll is how long kine may sit on an event: its --datastore-poll-interval
	// is 1 s, and it fills the gaps that a failover leaves in a sequence (32
	// numbers, SEQ_LOG_VALS in PostgreSQL's sequence.c) one by one.
	kinePoll = 5 * time.Second
)

// kine is one process of it and what is at work on it.
type kine struct {
	*clients
	server *process
}

func TestKine(t *testing.T) {
	w, ctx := begun(t, 6*time.Minute)
	if err := w.spawn.buildClients(ctx, "kine", "objects"); err != nil {
		t.Fatal(err)
	}
	if err := w.settled(ctx); err != nil {
		t.Fatal(err)
	}
	var all []*kine
	for i, way := range w.ways {
		if way.proxy == nil {
			continue
		}
		k, err := w.startKine(ctx, way, fmt.Sprintf("127.0.0.1:%d", 2379+i))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	for _, f := range leaderFaults {
		if f.name == "crash" {
			continue // to kine it is what vanish is, and easier
		}
		t.Run(f.name, func(t *testing.T) { w.kineScenario(ctx, t, f, all) })
	}
}

func (w *world) startKine(ctx context.Context, way *way, address string) (*kine, error) {
	serving := make(chan struct{})
	server, err := w.spawn.start(w.net.hosts["clients"], command{
		name: "kine-" + way.name,
		args: []string{filepath.Join(w.spawn.dir, "kine"), "-listen-address", address, "-endpoint", way.url("kine_" + way.name)},
		line: func(_ time.Time, text string) {
			if strings.HasPrefix(text, "serving") {
				close(serving)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-serving:
	case <-server.done:
		return nil, fmt.Errorf("kine through %s ended: %w", way.name, server.err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c, err := w.startOn(way, "objects", []string{filepath.Join(w.spawn.dir, "objects"),
		"-kine", address, "-writers", fmt.Sprint(kineWriters)})
	if err != nil {
		return nil, err
	}
	k := &kine{clients: c, server: server}
	return k, waitFor(ctx, 20*time.Second, "writes and events through "+way.name, func() error {
		if acks, events := k.count("ack", ""), k.count("event", ""); acks < 50 || events < 50 {
			return fmt.Errorf("%d writes, %d events", acks, events)
		}
		return nil
	})
}

func (w *world) kineScenario(ctx context.Context, t *testing.T, f leaderFault, all []*kine) {
	err := w.settled(ctx)
	if err == nil {
		err = kinesWork(ctx, t, all)
	}
	if err != nil {
		t.Fatal(err)
	}
	old, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	w.capture.reset()
	m := &measurement{scenario: f.scenario, old: old, fault: time.Now()}
	err = f.do(w, ctx, m)
	if m.next == nil {
		t.Fatal(err)
	}
	if err == nil {
		err = w.cluster.waitHealthy(ctx)
	}
	if err == nil {
		err = kinesWork(ctx, t, all)
	}
	if err == nil {
		err = pause(ctx, kinePoll)
	}
	m.end = time.Now()
	if err != nil {
		t.Error(err)
	}
	var served []*clients
	restarts := newRow(m.scenario, "kine: processes that ended", "")
	for _, k := range all {
		served = append(served, k.clients)
		restarts.Values[k.way.name] = 0
		if k.server.ended() {
			restarts.Values[k.way.name] = 1
		}
	}
	logKinds(t, m, "kine", served)
	t.Logf("seconds since the fault:\n%s", w.timeline(m))
	rows := append(w.kineWrites(m, served), kineWatch(m, served)...)
	if f.lossless {
		rows = append(rows, kineLosses(m, served)...)
	}
	w.add(t, append(rows, limited(restarts, limitNone))...)
}

// kinesWork waits until all of them do; only pointsman's have to.
func kinesWork(ctx context.Context, t *testing.T, all []*kine) error {
	for _, k := range all {
		err := waitFor(ctx, 30*time.Second, "writes and events through "+k.way.name, k.working)
		if err != nil && k.way.name == "pointsman" {
			return err
		}
		if err != nil {
			t.Log(err)
		}
	}
	return nil
}

// working is nil when all writers have written in the last 2 s without trouble,
// and the watch has told so.
func (k *kine) working() error {
	now, acks, events := time.Now(), 0, 0
	for _, f := range k.all() {
		if now.Sub(f.at()) > 2*time.Second {
			continue
		}
		switch f.Event {
		case "ack":
			acks++
		case "event":
			events++
		default:
			return fmt.Errorf("%s: %s %s %s", k.way.name, f.Event, f.Code, f.Text)
		}
	}
	if acks < 10 || events < 10 {
		return fmt.Errorf("%s: %d writes and %d events in 2 s", k.way.name, acks, events)
	}
	return nil
}

// kineWrites judges them. kine answers a write with a conflict that is none
// where its insert failed and its next read does not; that is explained if
// the write was under way when its connection was cut, so had begun before the
// proxy took the new leader.
func (w *world) kineWrites(m *measurement, served []*clients) []row {
	taken := w.taken(m)
	before := func(c *clients, f fact) bool {
		at, ok := taken[c.way.proxy]
		return ok && f.began().Before(at)
	}
	isFalse := func(f fact) bool { return f.Event == "conflict" && (f.Code == "unchanged" || f.Code == "own") }
	return []row{
		tenInARow(m, "kine", served, taken),
		counted(m, "kine", "errors", served, func(c *clients, f fact) bool { return f.Event == "fail" }),
		limited(counted(m, "kine", "errors of writes begun with the new leader", served,
			func(c *clients, f fact) bool { return f.Event == "fail" && !before(c, f) }), limitNone),
		counted(m, "kine", "false conflicts", served,
			func(_ *clients, f fact) bool { return isFalse(f) }),
		limited(counted(m, "kine", "false conflicts of writes begun with the new leader", served,
			func(c *clients, f fact) bool { return isFalse(f) && !before(c, f) }), limitNone),
	}
}

// kineWatch judges whether the watch goes on.
func kineWatch(m *measurement, served []*clients) []row {
	silence := newRow(m.scenario, "kine: longest silence of the watch", "s")
	for _, c := range served {
		last := m.fault
		for _, f := range c.all() {
			if f.Event == "event" && f.at().After(m.fault) {
				silence.Values[c.way.name] = max(silence.Values[c.way.name], f.at().Sub(last).Seconds())
				last = f.at()
			}
		}
		if rest := m.end.Sub(last).Seconds(); rest > silence.Values[c.way.name] {
			silence.Values[c.way.name], silence.AtLeast[c.way.name] = rest, true
		}
	}
	return []row{
		silence,
		limited(counted(m, "kine", "watches that ended", served, func(_ *clients, f fact) bool { return f.Event == "ended" }), limitNone),
	}
}

// kineLosses judges what has to hold where PostgreSQL itself has lost nothing.
func kineLosses(m *measurement, served []*clients) []row {
	missed := newRow(m.scenario, "kine: acknowledged writes that the watch did not tell", "")
	disorder := newRow(m.scenario, "kine: events told twice or out of order", "")
	for _, c := range served {
		told, last := map[int64]bool{}, int64(0)
		missed.Values[c.way.name], disorder.Values[c.way.name] = 0, 0
		for _, f := range c.all() {
			if f.Event == "event" {
				if f.Revision <= last {
					disorder.Values[c.way.name]++
				}
				told[f.Revision], last = true, f.Revision
			}
		}
		for _, f := range c.all() {
			if f.Event == "ack" && f.at().Before(m.end.Add(-kinePoll)) && !told[f.Revision] {
				missed.Values[c.way.name]++
			}
		}
	}
	return []row{
		limited(missed, limitNone),
		limited(disorder, limitNone),
		limited(counted(m, "kine", "conflicts that nothing explains", served,
			func(_ *clients, f fact) bool {
				return f.Event == "conflict" && (f.Code == "gone" || f.Code == "lost" || f.Code == "other")
			}), limitNone),
	}
}
