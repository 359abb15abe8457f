//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"testing"
	"time"
)

// The clients that people have: pools, PgBouncer, pgbench, kine. They come
// beside client.py, and each kind works through every proxy at once.

// leaderFault is a way to lose the leader.
type leaderFault struct {
	name, scenario string
	// What was acknowledged is there afterwards: the leader has had time to send
	// it to the next one.
	lossless bool
	do       func(*world, context.Context, *measurement) error
}

var leaderFaults = []leaderFault{
	{"switchover", "switchover", true, func(w *world, ctx context.Context, m *measurement) error {
		m.next = w.cluster.follower(m.old)
		return errors.Join(w.cluster.switchover(m.old, m.next), pause(ctx, 12*time.Second)) // HAProxy takes up to 10
	}},
	{"crash", "leader killed", false, func(w *world, ctx context.Context, m *measurement) error {
		return errors.Join(w.cluster.killNode(m.old), w.another(ctx, m), w.cluster.startPatroni(m.old))
	}},
	{"vanish", "leader's host silent", false, func(w *world, ctx context.Context, m *measurement) error {
		return errors.Join(w.net.unplug(m.old.host), w.another(ctx, m), w.net.plug(m.old.host))
	}},
}

// another waits for a new leader.
func (w *world) another(ctx context.Context, m *measurement) error {
	return waitFor(ctx, time.Minute, "another leader", func() (err error) {
		now, err := w.cluster.leader()
		if err == nil && now == m.old {
			err = fmt.Errorf("still %s", now.name)
		}
		m.next = now
		return err
	})
}

// begun makes a world for one test that lasts no longer than limit.
func begun(t *testing.T, limit time.Duration) (*world, context.Context) {
	t.Helper()
	_, ctx := within(t, limit)
	w := newWorld(ctx, t, usual())
	t.Cleanup(func() {
		fmt.Printf("\n%s\n%.0f s in all\n\n", w.report.table(), time.Since(w.report.Started).Seconds())
	})
	return w, ctx
}

// buildClients builds programs of the module in clients, which has its own
// go.mod: what they are made of is not what pointsman is made of.
func (s *spawner) buildClients(ctx context.Context, programs ...string) error {
	args := []string{"build", "-C", "clients", "-o", s.dir + "/"}
	for _, p := range programs {
		args = append(args, "./"+p)
	}
	build := exec.CommandContext(ctx, "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", strings.Join(programs, ", "), err, out)
	}
	return nil
}

// url is a way's, for what wants one.
func (w *way) url(database string) string {
	return fmt.Sprintf("postgres://postgres@%s:5432/%s?sslmode=disable", w.proxy.host.addr, database)
}

// startOn starts clients of one kind on a way; run begins the writers' names.
func (w *world) startOn(way *way, kind string, args []string) (c *clients, err error) {
	c = &clients{way: way, run: way.name + "/" + kind}
	c.proc, err = w.spawn.start(w.net.hosts["clients"], command{name: strings.ReplaceAll(kind, "/", "-") + "-" + way.name, args: args, line: c.take})
	return c, err
}

// attempts are the writes that were known to have succeeded or not, in order.
func (c *clients) attempts() (list []fact) {
	for _, f := range c.all() {
		if f.Event == "ack" || f.Event == "fail" || f.Event == "conflict" {
			list = append(list, f)
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].At < list[j].At })
	return list
}

// tenInARow is when ten writes in a row had succeeded after the trouble began:
// with the first failure after the fault, or where there is none with the
// longest silence.
func (c *clients) tenInARow(fault time.Time) (time.Time, bool) {
	var after []fact
	for _, f := range c.attempts() {
		if f.at().After(fault) {
			after = append(after, f)
		}
	}
	row := 0
	for _, f := range after[trouble(after, fault):] {
		if f.Event != "ack" {
			row = 0
		} else if row++; row == 10 {
			return f.at(), true
		}
	}
	return time.Time{}, false
}

// trouble is the index at which it began.
func trouble(after []fact, fault time.Time) int {
	last, longest, index := fault, time.Duration(0), 0
	for i, f := range after {
		if f.Event != "ack" {
			return i
		}
		if gap := f.at().Sub(last); gap > longest {
			longest, index = gap, i
		}
		last = f.at()
	}
	return index
}

// taken is when each proxy took the new leader; one that did not is missing.
func (w *world) taken(m *measurement) map[*proxy]time.Time {
	moments := map[*proxy]time.Time{}
	for _, p := range w.proxies {
		if at, ok := w.confirmed(m, p); ok {
			moments[p] = at
		}
	}
	return moments
}

// tenInARow makes the row of it, with its limit.
func tenInARow(m *measurement, kind string, all []*clients, taken map[*proxy]time.Time) row {
	r := newRow(m.scenario, kind+": ten writes in a row", "s")
	for _, c := range all {
		at, ok := c.tenInARow(m.fault)
		if !ok {
			at, r.AtLeast[c.way.name] = m.end, true
		}
		r.Values[c.way.name] = at.Sub(m.fault).Seconds()
	}
	for p, at := range taken {
		if p.name == "pointsman" {
			r.limit((at.Sub(m.fault) + limitTenInARow).Seconds())
		}
	}
	return r
}

// counted makes a row of the facts after the fault that match.
func counted(m *measurement, kind, measure string, all []*clients, match func(*clients, fact) bool) row {
	r := newRow(m.scenario, kind+": "+measure, "")
	for _, c := range all {
		r.Values[c.way.name] = 0
		for _, f := range c.all() {
			if f.at().After(m.fault) && match(c, f) {
				r.Values[c.way.name]++
			}
		}
	}
	return r
}

// logKinds tells what the clients met, for people.
func logKinds(t *testing.T, m *measurement, kind string, all []*clients) {
	t.Helper()
	for _, c := range all {
		number, last := map[string]int{}, map[string]fact{}
		for _, f := range c.attempts() {
			if f.Event == "ack" || f.at().Before(m.fault) {
				continue
			}
			text := f.Text
			if i := strings.LastIndex(text, "failed: "); i >= 0 { // behind the address
				text = text[i+len("failed: "):]
			}
			key := strings.TrimSpace(f.Event + " " + f.Stage + " " + f.Code + " " + text[:min(len(text), 120)])
			number[key]++
			last[key] = f
		}
		for _, key := range sortedKeys(number) {
			f := last[key]
			t.Logf("%s through %s: %d times %s; the last from %+.3f to %+.3f", kind, c.way.name, number[key], key,
				f.began().Sub(m.fault).Seconds(), f.at().Sub(m.fault).Seconds())
		}
	}
}
