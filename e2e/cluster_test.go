//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	scope    = "nocodb-cluster"
	sqlPort  = 5432
	restPort = 8008
)

// member is one host of the cluster and what we started on it.
type member struct {
	*host
	dir  string
	proc *process // etcd, or Patroni
}

// cluster is three etcd members and three PostgreSQL nodes under Patroni.
type cluster struct {
	spawn *spawner
	etcd  []*member
	nodes []*member
	rest  *http.Client
	pace  pace

	clients *host // from where it is asked
}

// pace is how fast Patroni takes note of things, in seconds.
type pace struct {
	ttl, loopWait, retryTimeout int
}

// usualPace is Patroni's default.
var usualPace = pace{ttl: 30, loopWait: 10, retryTimeout: 10}

func newCluster(n *network, spawn *spawner, dir string, pace pace) (*cluster, error) {
	c := &cluster{spawn: spawn, clients: n.hosts["clients"], pace: pace}
	for _, name := range etcdNames {
		c.etcd = append(c.etcd, &member{host: n.hosts[name], dir: filepath.Join(dir, name)})
	}
	cred, err := credential("postgres")
	if err != nil {
		return nil, err
	}
	for _, name := range nodeNames {
		m := &member{host: n.hosts[name], dir: filepath.Join(dir, name)}
		c.nodes = append(c.nodes, m)
		if err := os.Mkdir(m.dir, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(m.dir, "patroni.json"), c.patroniConfig(m), 0o644); err != nil {
			return nil, err
		}
		if err := os.Chown(m.dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, err
		}
	}
	c.rest = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, // Patroni's API has five threads
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return c.clients.dial(ctx, address)
		},
	}}
	return c, nil
}

// patroniConfig is what Patroni reads; JSON is YAML, too.
func (c *cluster) patroniConfig(m *member) []byte {
	type object = map[string]any
	var etcd []string
	for _, e := range c.etcd {
		etcd = append(etcd, netip.AddrPortFrom(e.addr, 2379).String())
	}
	sql := netip.AddrPortFrom(m.addr, sqlPort).String()
	rest := netip.AddrPortFrom(m.addr, restPort).String()
	text, err := json.MarshalIndent(object{
		"namespace": "/patroni", "scope": scope, "name": m.name,
		"restapi": object{"listen": rest, "connect_address": rest},
		"etcd3":   object{"hosts": etcd},
		"bootstrap": object{
			"dcs": object{
				"ttl": c.pace.ttl, "loop_wait": c.pace.loopWait, "retry_timeout": c.pace.retryTimeout,
				"postgresql": object{
					"use_pg_rewind": true,
					"parameters":    object{"max_connections": 300},
				},
			},
			"initdb": []any{object{"encoding": "UTF8"}, object{"locale": "C"}, "no-sync"},
		},
		"postgresql": object{
			"listen": sql, "connect_address": sql,
			"data_dir": filepath.Join(m.dir, "data"), "bin_dir": programs.pgBin,
			"pgpass":         filepath.Join(m.dir, "pgpass"),
			"authentication": object{"superuser": object{"username": "postgres"}, "replication": object{"username": "postgres"}},
			"basebackup":     []any{object{"checkpoint": "fast"}, "no-sync"},
			"pg_hba":         []string{"local all all trust", "host all all 0.0.0.0/0 trust", "host replication all 0.0.0.0/0 trust"},
			"parameters": object{
				"unix_socket_directories": m.dir,
				"fsync":                   "off",
				"shared_buffers":          "16MB",
				// Files in the data directory, not in /dev/shm where they would outlive us.
				"dynamic_shared_memory_type": "mmap",
				"log_line_prefix":            "%m [%p] ",
				"log_timezone":               "UTC",
				"logging_collector":          "off",
				// Of replicas that wait for their slot, at the start.
				"wal_retrieve_retry_interval": "1s",
			},
		},
	}, "", "  ")
	if err != nil {
		panic(err)
	}
	return text
}

// start brings the cluster up, with nodes[0] as its leader.
func (c *cluster) start(ctx context.Context) error {
	for _, m := range c.etcd {
		if err := c.startEtcd(m); err != nil {
			return err
		}
	}
	if err := c.startPatroni(c.nodes[0]); err != nil {
		return err
	}
	err := waitFor(ctx, time.Minute, "the first leader", func() error {
		_, err := c.leader()
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range c.nodes[1:] {
		if err := c.startPatroni(m); err != nil {
			return err
		}
	}
	return c.waitHealthy(ctx)
}

// startEtcd starts a member, also one that ran before.
func (c *cluster) startEtcd(m *member) (err error) {
	var peers []string
	for _, e := range c.etcd {
		peers = append(peers, e.name+"=http://"+e.addr.String()+":2380")
	}
	client, peer := "http://"+m.addr.String()+":2379", "http://"+m.addr.String()+":2380"
	m.proc, err = c.spawn.start(m.host, command{name: m.name, args: []string{
		programs.etcd, "--name", m.name, "--data-dir", m.dir, "--logger", "zap",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", strings.Join(peers, ","),
	}})
	return err
}

func (c *cluster) startPatroni(m *member) (err error) {
	m.proc, err = c.spawn.start(m.host, command{
		name: m.name, user: "postgres",
		args: []string{programs.patroni, filepath.Join(m.dir, "patroni.json")}, env: []string{"TZ=UTC"},
	})
	return err
}

// killNode kills Patroni and every PostgreSQL process of the node.
func (c *cluster) killNode(m *member) error {
	// Stopped first, so that no process sees the death of another and acts on it.
	pids := m.pids()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	for _, pid := range append(pids, m.pids()...) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-m.proc.done
	return nil
}

// status is what Patroni's GET /cluster says of a member.
type status struct {
	Name, Role, State, Host string
	Timeline                int
	Lag                     any // bytes, or "unknown"
}

// members asks any node that answers.
func (c *cluster) members() (list []status, err error) {
	for _, m := range c.nodes {
		var answer struct{ Members []status }
		var body []byte
		if body, err = c.get(m, "/cluster"); err != nil {
			continue
		}
		if err = json.Unmarshal(body, &answer); err == nil {
			return answer.Members, nil
		}
	}
	return nil, err
}

func (c *cluster) get(m *member, path string) ([]byte, error) {
	resp, err := c.rest.Get("http://" + netip.AddrPortFrom(m.addr, restPort).String() + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// leader is the node that leads and whose PostgreSQL runs as primary.
func (c *cluster) leader() (*member, error) {
	for _, m := range c.nodes {
		resp, err := c.rest.Get("http://" + netip.AddrPortFrom(m.addr, restPort).String() + "/primary")
		if err != nil {
			continue
		}
		var answer struct{ Role, State string }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK && answer.State == "running" && (answer.Role == "master" || answer.Role == "primary") {
			return m, nil
		}
	}
	return nil, fmt.Errorf("no node leads")
}

// healthy is nil when one node leads and the others stream from it without lag.
func (c *cluster) healthy() error {
	leader, err := c.leader()
	if err != nil {
		return err
	}
	list, err := c.members()
	if err != nil {
		return err
	}
	leaders, following, timeline := 0, 0, 0
	for _, s := range list {
		if s.Role == "leader" && s.State == "running" {
			leaders++
			timeline = s.Timeline
		}
	}
	for _, s := range list {
		// Patroni says "running" up to 3.0.3, and "streaming" from then on.
		if s.Role == "replica" && (s.State == "running" || s.State == "streaming") && s.Lag == 0.0 && s.Timeline == timeline {
			following++
		}
	}
	if leaders != 1 || following != len(c.nodes)-1 {
		return fmt.Errorf("cluster not healthy: %+v", list)
	}
	// Patroni calls a replica running that waits for its slot on the leader, up
	// to a loop_wait, and it lets such a one be promoted, with rows missing.
	out, err := c.query(leader, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= pg_current_wal_lsn() - 65536")
	if err != nil {
		return err
	}
	if strings.TrimSpace(out) != fmt.Sprint(following) {
		return fmt.Errorf("only %s of %d replicas stream", strings.TrimSpace(out), following)
	}
	return nil
}

func (c *cluster) waitHealthy(ctx context.Context) error {
	return waitFor(ctx, 90*time.Second, "a healthy cluster", c.healthy)
}

// steady waits until the cluster is healthy, and is again after so long, under
// the same leader: one that lost its etcd member gives up a while later.
func (c *cluster) steady(ctx context.Context, long time.Duration) (*member, error) {
	for range 5 {
		if err := c.waitHealthy(ctx); err != nil {
			return nil, err
		}
		before, _ := c.leader()
		if err := pause(ctx, long); err != nil {
			return nil, err
		}
		if now, err := c.leader(); err == nil && now == before && c.healthy() == nil {
			return now, nil
		}
	}
	return nil, fmt.Errorf("no leader that lasts for %v", long)
}

// switchover asks Patroni to let another node lead, and returns when it has agreed.
func (c *cluster) switchover(from, to *member) error {
	body, _ := json.Marshal(map[string]string{"leader": from.name, "candidate": to.name})
	resp, err := c.rest.Post("http://"+netip.AddrPortFrom(from.addr, restPort).String()+"/switchover", "application/json", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking for a switchover: %w", err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking for a switchover: %s: %s", resp.Status, text)
	}
	return nil
}

// copyAnew takes from those nodes all that they have that do not follow the
// leader: started without data, Patroni copies the leader's.
func (c *cluster) copyAnew() (names []string, err error) {
	leader, err := c.leader()
	if err != nil {
		return nil, err
	}
	following, err := c.query(leader, "SELECT host(client_addr) FROM pg_stat_replication WHERE state = 'streaming'")
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, m := range c.nodes {
		if m == leader || slices.Contains(strings.Fields(following), m.addr.String()) {
			continue
		}
		names = append(names, m.name)
		errs = append(errs, c.killNode(m), os.RemoveAll(filepath.Join(m.dir, "data")), c.startPatroni(m))
	}
	return names, errors.Join(errs...)
}

// follower returns a node that is not m.
func (c *cluster) follower(m *member) *member {
	for _, other := range c.nodes {
		if other != m {
			return other
		}
	}
	return nil
}

// query asks the node's PostgreSQL directly; rows are lines, columns are split by |.
func (c *cluster) query(m *member, sql string) (string, error) {
	return c.spawn.run(c.clients, command{name: "query", args: []string{
		programs.psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql,
		"host=" + m.addr.String() + " user=postgres dbname=postgres connect_timeout=5",
	}})
}

// waitFor asks every tenth of a second until there is no error.
func waitFor(ctx context.Context, limit time.Duration, what string, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: %w", what, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
