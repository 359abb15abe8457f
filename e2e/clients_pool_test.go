//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Pools of connections: pgx's, database/sql's with lib/pq, PgBouncer in front of
// the proxy. Beside them pgbench -C, which has none.

const poolSize = 10 // connections of a pool, and writers on it

// kind is one kind of clients, at work on several ways at once.
type kind struct {
	name string
	all  []*clients
	// The clients of pools tell about their connections when asked.
	pool bool
	// Connections that may be in use when they are cut, each good for one error.
	connections int
}

func TestPools(t *testing.T) {
	w, ctx := begun(t, 8*time.Minute)
	bouncer, err := exec.LookPath("/usr/sbin/pgbouncer")
	if err != nil {
		const lack = "no pgbouncer (Debian's package pgbouncer)"
		if os.Getenv("CI") == "true" {
			t.Fatal(lack)
		}
		t.Skip(lack)
	}
	if err := w.spawn.buildClients(ctx, "pool"); err != nil {
		t.Fatal(err)
	}
	leader, err := w.cluster.leader()
	if err == nil {
		_, err = w.cluster.query(leader, "CREATE SEQUENCE bench")
	}
	if err != nil {
		t.Fatal(err)
	}
	ports := map[*way]int{}
	for i, way := range w.ways {
		if way.proxy == nil {
			continue
		}
		ports[way] = 6432 + i
		if err := w.startBouncer(bouncer, way, ports[way]); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range leaderFaults {
		t.Run(f.name, func(t *testing.T) { w.poolScenario(ctx, t, f, ports) })
	}
}

// startBouncer puts a PgBouncer in front of a proxy, with its own defaults but
// for what it needs to serve.
func (w *world) startBouncer(program string, way *way, port int) error {
	config := fmt.Sprintf(`[databases]
postgres = host=%s port=%d dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
`, way.proxy.host.addr, sqlPort, port, poolSize)
	path := filepath.Join(w.spawn.dir, "pgbouncer-"+way.name+".ini")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return err
	}
	_, err := w.spawn.start(w.net.hosts["clients"], command{
		name: "pgbouncer-" + way.name, user: "postgres", args: []string{program, path}})
	return err
}

// poolScenario lets all kinds work on all ways, does the fault, and judges.
func (w *world) poolScenario(ctx context.Context, t *testing.T, f leaderFault, ports map[*way]int) {
	if err := w.settled(ctx); err != nil {
		t.Fatal(err)
	}
	old, err := w.cluster.leader()
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := w.startKinds(ctx, t, f.name, ports)
	if err == nil {
		err = waitFor(ctx, 30*time.Second, "writes of all", func() error { return poolsWrite(kinds, time.Second) })
	}
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
		err = waitFor(ctx, 30*time.Second, "writes of all", func() error { return poolsWrite(through(kinds, "pointsman"), 2*time.Second) })
	}
	// The others need not; the report will show that.
	_ = waitFor(ctx, 30*time.Second, "writes of all", func() error { return poolsWrite(kinds, 2*time.Second) })
	m.end = time.Now()
	err = errors.Join(err, w.lookAt(ctx, through(kinds, "pointsman")))
	if err := w.lookAt(ctx, through(kinds, "haproxy", "floor")); err != nil {
		t.Log(err)
	}
	for _, k := range kinds {
		for _, c := range k.all {
			c.proc.kill()
		}
	}
	err = errors.Join(err, w.benched(m.next, kinds))
	if err != nil {
		t.Error(err)
	}
	t.Logf("seconds since the fault:\n%s", w.timeline(m))
	for _, k := range kinds {
		logKinds(t, m, k.name, k.all)
		w.add(t, w.poolRows(m, k)...)
	}
}

func (w *world) startKinds(ctx context.Context, t *testing.T, fault string, ports map[*way]int) (kinds []*kind, err error) {
	start := func(name string, connections int, run func(*way) []string) {
		k := &kind{name: name, pool: true, connections: connections}
		kinds = append(kinds, k)
		for _, way := range w.ways {
			args := run(way)
			if args == nil || err != nil {
				continue
			}
			args = append([]string{filepath.Join(w.spawn.dir, "pool"), "-size", fmt.Sprint(poolSize),
				"-run", way.name + "/" + fault + "/" + name}, args...)
			var c *clients
			if c, err = w.startOn(way, name, args); err == nil {
				k.all = append(k.all, c)
			}
		}
	}
	start("pgxpool", poolSize, func(way *way) []string {
		hosts, more := "", " target_session_attrs=read-write connect_timeout=3"
		if way.proxy != nil {
			hosts, more = way.proxy.host.addr.String(), ""
		} else {
			hosts = w.cluster.addresses()
		}
		return []string{"-driver", "pgx", "-dsn", "host=" + hosts + dsnCommon + more}
	})
	start("lib/pq", poolSize, func(way *way) []string {
		if way.proxy == nil {
			return nil
		}
		return []string{"-driver", "pq", "-dsn", "host=" + way.proxy.host.addr.String() + dsnCommon + " sslmode=disable"}
	})
	start("pgbouncer", poolSize, func(way *way) []string {
		if way.proxy == nil {
			return nil
		}
		// In transaction mode a prepared statement is gone with its transaction.
		return []string{"-driver", "pgx", "-dsn", fmt.Sprintf(
			"host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable default_query_exec_mode=exec", ports[way])}
	})
	if err != nil {
		return kinds, err
	}
	bench, err := w.startBench(ctx, t, fault)
	return append(kinds, bench), err
}

// addresses of all nodes, as libpq has them.
func (c *cluster) addresses() string {
	var list []string
	for _, m := range c.nodes {
		list = append(list, m.addr.String())
	}
	return strings.Join(list, ",")
}

// through are the kinds with the clients of some ways alone.
func through(kinds []*kind, ways ...string) (list []*kind) {
	for _, k := range kinds {
		some := *k
		some.all = nil
		for _, c := range k.all {
			if slices.Contains(ways, c.way.name) {
				some.all = append(some.all, c)
			}
		}
		list = append(list, &some)
	}
	return list
}

// poolsWrite is nil when every pool has written for so long and met no error.
func poolsWrite(kinds []*kind, so time.Duration) error {
	now := time.Now()
	for _, k := range kinds {
		for _, c := range k.all {
			acks, writers := 0, map[string]bool{}
			for _, f := range c.all() {
				switch {
				case now.Sub(f.at()) > so:
				case f.Event == "fail":
					return fmt.Errorf("%s through %s: %s", k.name, c.way.name, f.Text)
				case f.Event == "ack":
					acks++
					writers[f.Who] = true
				}
			}
			if k.pool && len(writers) < poolSize {
				return fmt.Errorf("%s through %s: %d writers write", k.name, c.way.name, len(writers))
			}
		}
	}
	return nil
}

// lookAt asks every pool for the state of each of its connections.
func (w *world) lookAt(ctx context.Context, kinds []*kind) error {
	var errs []error
	for _, k := range kinds {
		if !k.pool {
			continue
		}
		for _, c := range k.all {
			errs = append(errs, c.proc.signal(syscall.SIGUSR1))
		}
		for _, c := range k.all {
			errs = append(errs, waitFor(ctx, 15*time.Second, "a look at "+c.run, func() error {
				if c.count("looked", "") == 0 {
					return errors.New("not yet")
				}
				return nil
			}))
		}
	}
	return errors.Join(errs...)
}

func (w *world) poolRows(m *measurement, k *kind) []row {
	taken := w.taken(m)
	late := func(c *clients, f fact) bool {
		at, ok := taken[c.way.proxy]
		return !ok || f.began().After(at)
	}
	fails := func(match func(*clients, fact) bool) func(*clients, fact) bool {
		return func(c *clients, f fact) bool {
			return f.Event == "fail" && f.at().Before(m.end) && match(c, f)
		}
	}
	rows := []row{
		tenInARow(m, k.name, k.all, taken),
		limited(counted(m, k.name, "errors", k.all, fails(func(*clients, fact) bool { return true })), float64(k.connections)),
		limited(counted(m, k.name, "read-only errors", k.all, fails(func(_ *clients, f fact) bool { return f.Code == sqlReadOnly })), limitNone),
		limited(counted(m, k.name, "errors of connecting", k.all, fails(func(_ *clients, f fact) bool { return f.Stage == "connect" })), limitNone),
	}
	if !k.pool {
		return rows
	}
	var proxied []*clients
	for _, c := range k.all {
		if c.way.proxy != nil {
			proxied = append(proxied, c)
		}
	}
	return append(rows,
		lastCut(m, k),
		limited(counted(m, k.name, "errors of writes begun with the new leader", proxied, fails(late)), limitNone),
		counted(m, k.name, "connections in the pool afterwards", k.all, func(_ *clients, f fact) bool {
			return f.Event == "whole" || f.Event == "zombie" || f.Event == "replica"
		}),
		limited(counted(m, k.name, "of them dead, or not on the leader", k.all, func(_ *clients, f fact) bool {
			return f.Event == "zombie" || f.Event == "replica" || f.Event == "whole" && f.Node != m.next.addr.String()
		}), limitNone))
}

// lastCut is how long a write waited in vain that was under way at the fault.
func lastCut(m *measurement, k *kind) row {
	r := newRow(m.scenario, k.name+": the last write under way failed", "s")
	for _, c := range k.all {
		r.Values[c.way.name] = 0
		for _, f := range c.all() {
			if f.Event == "fail" && f.at().After(m.fault) && f.began().Before(m.fault.Add(time.Second)) {
				r.Values[c.way.name] = max(r.Values[c.way.name], f.at().Sub(m.fault).Seconds())
			}
		}
	}
	return limited(r, limitBusyGone.Seconds())
}
