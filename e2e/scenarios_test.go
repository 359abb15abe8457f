//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// measurement is one fault, and what all ways' clients saw of it.
type measurement struct {
	scenario string
	clients  []*clients
	fault    time.Time
	end      time.Time
	outcomes map[string]outcome // by way
	old      *member            // the leader before, and the one after, where that changes
	next     *member
}

// begin lets clients work on every way, all of them led to the leader.
func (w *world) begin(ctx context.Context, t *testing.T, scenario string) *measurement {
	t.Helper()
	m := w.beginQuiet(ctx, t, scenario, false)
	if err := waitFor(ctx, 20*time.Second, "writes on every way", func() error { return writing(m.clients, 2) }); err != nil {
		t.Fatal(err)
	}
	m.fault = time.Now()
	return m
}

// beginQuiet does the same, if quiet with idle sessions alone.
func (w *world) beginQuiet(ctx context.Context, t *testing.T, scenario string, quiet bool) *measurement {
	t.Helper()
	if err := w.settled(ctx); err != nil {
		t.Fatal(err)
	}
	w.capture.reset()
	w.capture.dropped()
	all, err := w.startClients(ctx, scenario, quiet)
	t.Cleanup(func() { stopClients(all) })
	if err != nil {
		t.Fatal(err)
	}
	return &measurement{scenario: scenario, clients: all, fault: time.Now()}
}

// settled waits until the cluster is healthy and each proxy leads to nobody
// but the leader: HAProxy takes a while to forget a node.
func (w *world) settled(ctx context.Context) error {
	if err := w.cluster.waitHealthy(ctx); err != nil {
		return err
	}
	for _, way := range w.ways {
		err := waitFor(ctx, 30*time.Second, way.name+" to lead to the leader alone", func() error {
			for range 6 { // two rounds over the nodes
				out, err := w.psql(way, "SELECT pg_is_in_recovery()")
				if err != nil || strings.TrimSpace(out) != "f" {
					return fmt.Errorf("%w %s", err, out)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) psql(way *way, sql string) (string, error) {
	return w.spawn.run(w.net.hosts["clients"], command{name: "psql-" + way.name,
		args: []string{programs.psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, way.dsn}})
}

func writing(all []*clients, seconds int) error {
	var errs []error
	for _, c := range all {
		errs = append(errs, c.writing(seconds))
	}
	return errors.Join(errs...)
}

// finish stops the clients, reckons, and writes the timeline to the test's log.
func (w *world) finish(t *testing.T, m *measurement) {
	t.Helper()
	m.end = time.Now()
	stopClients(m.clients)
	m.outcomes = map[string]outcome{}
	for _, c := range m.clients {
		m.outcomes[c.way.name] = c.outcome(m.fault, m.end)
		kinds := c.kinds(m.fault)
		for _, kind := range sortedKeys(kinds) {
			t.Logf("%s: %d times %s", c.way.name, kinds[kind], kind)
		}
	}
	if n := w.capture.dropped(); n > 0 {
		t.Errorf("%d packets were not captured: bytes cannot be counted", n)
	}
	t.Logf("%s, seconds since the fault:\n%s", m.scenario, w.timeline(m))
}

// row makes a row of the report with one value per way.
func (m *measurement) row(measure, unit string, value func(outcome) (v float64, atLeast bool)) row {
	r := newRow(m.scenario, measure, unit)
	for way, o := range m.outcomes {
		v, atLeast := value(o)
		r.Values[way] = v
		if atLeast {
			r.AtLeast[way] = true
		}
	}
	return r
}

func (m *measurement) gap(who string) row {
	return m.row("longest gap, client that "+map[string]string{"keep": "keeps", "anew": "connects anew"}[who], "s",
		func(o outcome) (float64, bool) { return o.gap[who].Seconds(), o.open[who] })
}

func (m *measurement) number(measure string, value func(outcome) int) row {
	return m.row(measure, "", func(o outcome) (float64, bool) { return float64(value(o)), false })
}

func (m *measurement) idleEnded() row {
	return m.number("idle sessions ended, of 20", func(o outcome) int { return o.idleEnded })
}

func (m *measurement) errors() row {
	return m.number("errors", func(o outcome) int { return o.errors })
}

// add appends rows to the report; a limit that is missed fails the test.
func (w *world) add(t *testing.T, rows ...row) {
	t.Helper()
	for _, r := range rows {
		w.report.Rows = append(w.report.Rows, r)
		if r.failed() {
			t.Errorf("%s: %s: pointsman %s, limit %s", r.Scenario, r.Measure, r.text("pointsman"), number(*r.Limit, r.Unit))
		}
	}
}

func limited(r row, max float64) row {
	r.limit(max)
	return r
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// basics: psql and pgbench through each way.
func (w *world) basics(ctx context.Context, t *testing.T) {
	if err := w.settled(ctx); err != nil {
		t.Fatal(err)
	}
	errs := newRow("basics", "psql and pgbench: errors", "")
	rows := map[string]row{}
	bench := func(way *way, measure string, args ...string) {
		out, err := w.spawn.run(w.net.hosts["clients"], command{name: "pgbench-" + way.name,
			args: append(append([]string{programs.pgbench, "-n"}, args...), way.dsn)})
		rate := tps.FindStringSubmatch(out)
		if err != nil || rate == nil || !strings.Contains(out, "number of failed transactions: 0 ") {
			t.Logf("%s through %s: %v: %s", measure, way.name, err, out)
			errs.Values[way.name]++
			return
		}
		r, ok := rows[measure]
		if !ok {
			r = newRow("basics", measure, "tps")
		}
		r.Values[way.name], _ = strconv.ParseFloat(rate[1], 64)
		rows[measure] = r
	}
	leader, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.spawn.run(w.net.hosts["clients"], command{name: "pgbench-init",
		args: []string{programs.pgbench, "-i", "-q", "host=" + leader.addr.String() + dsnCommon}})
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range w.ways {
		errs.Values[way.name] = 0
		out, err := w.psql(way, "SELECT host(inet_server_addr())")
		if err != nil || strings.TrimSpace(out) != leader.addr.String() {
			t.Logf("psql through %s: %v: %s", way.name, err, out)
			errs.Values[way.name]++
		}
		bench(way, "pgbench -c 4, tps", "-c", "4", "-T", "2")
		bench(way, "pgbench -c 4 -S, tps", "-c", "4", "-S", "-T", "2")
		bench(way, "pgbench -c 4 -C -S, tps", "-c", "4", "-C", "-S", "-T", "2")
	}
	w.add(t, limited(errs, limitNone))
	w.statusNames(t, leader)
	for _, measure := range sortedKeys(rows) {
		w.add(t, rows[measure])
	}
}

// patroniAway is longer than inter, so that every proxy meets a refusal.
const patroniAway = 4 * time.Second

// patroniRestart: Patroni's process on the leader is killed and started again,
// while PostgreSQL runs on.
func (w *world) patroniRestart(ctx context.Context, t *testing.T) {
	m := w.begin(ctx, t, "patroni restarted")
	leader, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	m.fault = time.Now()
	err = errors.Join(leader.proc.kill(), pause(ctx, patroniAway), w.cluster.startPatroni(leader))
	if err == nil {
		err = pause(ctx, 15*time.Second)
	}
	if err == nil {
		err = waitFor(ctx, 30*time.Second, "writes on every way", func() error { return writing(m.clients, 3) })
	}
	w.finish(t, m)
	w.add(t, limited(m.errors(), limitNone), limited(m.idleEnded(), limitNone), m.gap("keep"), m.gap("anew"))
	now, leaderErr := w.cluster.leader()
	if err = errors.Join(err, leaderErr); err != nil {
		t.Error(err)
	} else if now != leader {
		t.Errorf("the leader changed from %s to %s: this was not the fault that was meant", leader.name, now.name)
	}
}

// etcdStopped: one etcd member of three is stopped for 60 s. It is the one that
// the leader's Patroni is connected to, and it is stopped, not killed: its
// sockets stay open and silent, which is worse than a refusal.
func (w *world) etcdStopped(ctx context.Context, t *testing.T) {
	m := w.begin(ctx, t, "etcd member stopped 60 s")
	leader, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	member := w.cluster.etcdOf(leader)
	t.Logf("%s is stopped, to which %s is connected", member.name, leader.name)
	m.fault = time.Now()
	err = member.proc.signal(syscall.SIGSTOP)
	if err == nil {
		err = pause(ctx, 60*time.Second)
	}
	err = errors.Join(err, member.proc.signal(syscall.SIGCONT))
	if err == nil {
		err = pause(ctx, 5*time.Second)
	}
	w.finish(t, m)
	if err != nil {
		t.Error(err)
	}
	w.add(t, limited(m.errors(), limitNone), limited(m.idleEnded(), limitNone), m.gap("keep"), m.gap("anew"))
	if now, err := w.cluster.leader(); err != nil || now != leader {
		t.Logf("the leader is no longer %s: the cluster itself did not bear the outage", leader.name)
	}
}

// etcdOf is a member that the node's Patroni has a connection to.
func (c *cluster) etcdOf(node *member) *member {
	table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", node.proc.cmd.Process.Pid))
	for _, m := range c.etcd {
		a := m.addr.As4()
		// proc(5): the address as a number of the host's byte order, the port in hex, 01 = established.
		if strings.Contains(string(table), fmt.Sprintf(" %02X%02X%02X%02X:%04X 01 ", a[3], a[2], a[1], a[0], 2379)) {
			return m
		}
	}
	return c.etcd[0]
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
