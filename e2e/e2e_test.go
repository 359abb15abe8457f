//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pointsman/netlab"
)

var (
	keepFlag    = flag.Bool("keep", false, "let the cluster run after the scenarios, until ctrl-C")
	logsFlag    = flag.String("logs", "", "copy all logs to this directory at the end")
	proxiesFlag = flag.String("proxies", "haproxy,pointsman", "proxies to measure; also pointsman-tcp and the like, see variants")
)

// hardLimit ends a run whatever happens; below the 15 minutes that `go test`
// is given, because its own limit leaves no time to clean up.
const hardLimit = 13 * time.Minute

var (
	nodeNames = []string{"postgres-1", "postgres-2", "postgres-3"}
	etcdNames = []string{"etcd-1", "etcd-2", "etcd-3"}
)

// addresses are those of the installation that the tests stand for. HAProxy
// has a router of its own beside pointsman's.
var addresses = map[string]netip.Addr{
	"postgres-1": netip.MustParseAddr("10.100.2.5"),
	"postgres-2": netip.MustParseAddr("10.100.3.185"),
	"postgres-3": netip.MustParseAddr("10.100.1.83"),
	"etcd-1":     netip.MustParseAddr("192.168.9.100"),
	"etcd-2":     netip.MustParseAddr("10.100.2.214"),
	"etcd-3":     netip.MustParseAddr("10.253.101.233"),
	"pointsman":  netip.MustParseAddr("192.168.9.1"),
	"haproxy":    netip.MustParseAddr("192.168.9.2"),

	"pointsman-tcp":   netip.MustParseAddr("192.168.9.11"),
	"pointsman-etcd":  netip.MustParseAddr("192.168.9.12"),
	"pointsman-polls": netip.MustParseAddr("192.168.9.13"),
	"pointsman-idle":  netip.MustParseAddr("192.168.9.14"),
	"pointsman-busy":  netip.MustParseAddr("192.168.9.15"),
	"pointsman-all":   netip.MustParseAddr("192.168.9.16"),

	"clients": netip.MustParseAddr("192.168.9.50"),
}

// programs are the paths of what others wrote, as Debian installs it.
var programs struct {
	etcd, patroni, haproxy, nft, python, pgBin, psql, pgbench string
}

// lacks names what the tests need and this machine does not have.
func lacks() error {
	var errs []error
	find := func(path *string, name, pkg string) {
		found, err := exec.LookPath(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("no %s (Debian's package %s)", name, pkg))
		}
		*path = found
	}
	find(&programs.etcd, "etcd", "etcd-server")
	find(&programs.patroni, "patroni", "patroni")
	find(&programs.haproxy, "haproxy", "haproxy")
	find(&programs.nft, "nft", "nftables")
	// Not the first python3 in PATH: Debian's modules belong to Debian's.
	find(&programs.python, "/usr/bin/python3", "python3")
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(dirs) == 0 {
		errs = append(errs, errors.New("no /usr/lib/postgresql/*/bin (Debian's package postgresql)"))
	} else {
		programs.pgBin = dirs[len(dirs)-1]
		find(&programs.psql, programs.pgBin+"/psql", "postgresql-client")
		find(&programs.pgbench, programs.pgBin+"/pgbench", "postgresql")
	}
	if programs.python != "" {
		if exec.Command(programs.python, "-c", "import psycopg2, etcd").Run() != nil {
			errs = append(errs, errors.New("no Python modules psycopg2 and etcd (Debian's packages python3-psycopg2, python3-etcd)"))
		}
	}
	if _, err := user.Lookup("postgres"); err != nil {
		errs = append(errs, errors.New("no user postgres, and PostgreSQL does not run as root"))
	}
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("not root"))
	} else if ns, err := netlab.Unnamed(); err != nil {
		errs = append(errs, err)
	} else {
		ns.Close()
	}
	return errors.Join(errs...)
}

// world is all that one run has made.
type world struct {
	net     *network
	spawn   *spawner
	cluster *cluster
	proxies []*proxy
	ways    []*way
	capture *capture
	report  *report
}

func TestEndToEnd(t *testing.T) {
	ctx, limited := within(t, hardLimit)
	w := newWorld(limited, t, usual())

	scenarios := []struct {
		name string
		run  func(*world, context.Context, *testing.T)
	}{
		{"basics", (*world).basics},
		{"switchover", (*world).switchover},
		{"patroni", (*world).patroniRestart},
		{"etcd", (*world).etcdStopped},
		{"crash", (*world).crash},
		{"vanish", (*world).vanish},
		{"quiet", (*world).quiet},
		{"leaks", (*world).leaks},
	}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if limited.Err() != nil {
				t.Fatal(context.Cause(limited))
			}
			s.run(w, limited, t)
		})
	}
	w.report.Seconds = time.Since(w.report.Started).Seconds()
	if len(w.report.Rows) > 0 {
		if err := w.report.write(); err != nil {
			t.Error(err)
		}
	}
	fmt.Printf("\n%s\n%.0f s in all\n\n", w.report.table(), w.report.Seconds)
	if *keepFlag {
		fmt.Printf("The cluster runs on until ctrl-C. Look inside with:\n  ip netns exec %sclients psql '%s'\n  ls %s\n", netlab.Prefix(labKind), w.ways[0].dsn, w.spawn.dir)
		<-ctx.Done()
	}
}

// within skips the test, or fails it, where the machine lacks something. Its
// contexts end when the run is interrupted, limited also when the time is up.
func within(t *testing.T, limit time.Duration) (ctx, limited context.Context) {
	t.Helper()
	if err := lacks(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("what the end-to-end tests need is missing:\n%v", err)
		}
		t.Skipf("what the end-to-end tests need is missing:\n%v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	t.Cleanup(stop)
	limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the whole run took longer than %s", limit))
	t.Cleanup(cancel)
	return ctx, limited
}

// setup is what a world is made of.
type setup struct {
	proxies []string
	pace    pace // Patroni's
}

// usual is the world that the figures are measured in.
func usual() setup {
	return setup{proxies: strings.Split(*proxiesFlag, ","), pace: usualPace}
}

// newWorld makes the network, starts the cluster and the proxies, and cleans
// all of it up when the test ends.
func newWorld(ctx context.Context, t *testing.T, s setup) *world {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	swept, err := netlab.Sweep(labKind)
	must(err)
	if len(swept) > 0 {
		t.Logf("removed what a run that died has left: %s", strings.Join(swept, " "))
	}
	dir := filepath.Join(os.TempDir(), netlab.Prefix(labKind)+"run")
	must(os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		if *logsFlag != "" {
			copyLogs(t, dir, *logsFlag)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	w := &world{report: &report{Started: time.Now()}}
	w.net, err = newNetwork(addresses)
	must(err)
	t.Cleanup(func() {
		if err := w.net.close(); err != nil {
			t.Error(err)
		}
	})
	w.spawn = newSpawner(dir)
	t.Cleanup(w.spawn.close)
	// Whoever waits for a process is free when the time is up.
	release := context.AfterFunc(ctx, func() {
		for _, h := range w.net.hosts {
			for _, pid := range h.pids() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	t.Cleanup(func() { release() })

	w.cluster, err = newCluster(w.net, w.spawn, dir, s.pace)
	must(err)
	must(w.cluster.start(ctx))
	w.capture, err = newCapture(w.net, w.cluster.nodes)
	must(err)
	t.Cleanup(w.capture.close)
	for _, name := range s.proxies {
		p, err := w.newProxy(ctx, name, dir)
		must(err)
		must(p.start(w.spawn))
		t.Cleanup(func() {
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		})
		w.proxies = append(w.proxies, p)
		w.ways = append(w.ways, proxyWay(p))
	}
	w.ways = append(w.ways, floorWay(w.cluster))
	leader, err := w.cluster.leader()
	must(err)
	_, err = w.cluster.query(leader,
		"CREATE TABLE writes (writer text, seq bigint, at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (writer, seq))")
	must(err)
	for _, p := range w.proxies {
		p.atStart, err = p.descriptors()
		must(err)
	}
	t.Logf("the cluster runs, after %.1f s", time.Since(w.report.Started).Seconds())
	return w
}

func (w *world) newProxy(ctx context.Context, name, dir string) (*proxy, error) {
	if name == "haproxy" {
		return newHAProxy(w.net.hosts[name], dir)
	}
	if edit, ok := variants[name]; ok {
		return newPointsman(ctx, w.net.hosts[name], dir, edit)
	}
	return nil, fmt.Errorf("no proxy %q", name)
}

func copyLogs(t *testing.T, from, to string) {
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Error(err)
		return
	}
	logs, _ := filepath.Glob(filepath.Join(from, "*.log"))
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(path)), text, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// sortedKeys is for stable output.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
