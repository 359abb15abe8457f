//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// way is one way to the leader that is measured: a proxy, or none.
type way struct {
	name  string
	dsn   string // for libpq
	proxy *proxy // nil for the floor
}

// proxy is a proxy under test. Each has a host, so an address, of its own: the
// source of a packet tells whose it is.
type proxy struct {
	name string
	host *host
	args []string
	proc *process

	control string // path of the control socket; "" = it has none

	atStart int // descriptors that were open before any client came

	mu    sync.Mutex
	lines []logLine
}

type logLine struct {
	at   time.Time
	text string
}

func (p *proxy) start(s *spawner) (err error) {
	p.proc, err = s.start(p.host, command{name: p.name, args: p.args, line: func(at time.Time, text string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lines = append(p.lines, logLine{at, text})
	}})
	return err
}

// stop ends it with SIGTERM, and with SIGKILL if it does not go in 5 s.
func (p *proxy) stop() error {
	if p.proc == nil || p.proc.ended() {
		return nil
	}
	if err := p.proc.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.proc.done:
		return nil
	case <-time.After(5 * time.Second):
		p.proc.kill()
		return fmt.Errorf("%s did not end within 5 s of SIGTERM", p.name)
	}
}

// descriptors is how many it has open while no probe is under way: the least
// that is seen within a second.
func (p *proxy) descriptors() (int, error) {
	least := 1 << 30
	for range 20 {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.proc.cmd.Process.Pid))
		if err != nil {
			return 0, err
		}
		least = min(least, len(entries))
		time.Sleep(50 * time.Millisecond)
	}
	return least, nil
}

// ask puts a command to the daemon, over its control socket, that is answered
// with one line of JSON.
func (p *proxy) ask(command string, answer any) error {
	conn, err := net.DialTimeout("unix", p.control, time.Second)
	if err != nil {
		return fmt.Errorf("asking %s: %w", p.name, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err = fmt.Fprintln(conn, command); err == nil {
		err = json.NewDecoder(conn).Decode(answer)
	}
	if err != nil {
		return fmt.Errorf("asking %s: %w", p.name, err)
	}
	return nil
}

// log is what it has written between two moments.
func (p *proxy) log(from, to time.Time) (lines []logLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if !l.at.Before(from) && !l.at.After(to) {
			lines = append(lines, l)
		}
	}
	return lines
}

// libpq's settings that all ways share: clients that wait up to 60 s.
const dsnCommon = " port=5432 user=postgres dbname=postgres"

func proxyWay(p *proxy) *way {
	return &way{name: p.name, proxy: p,
		dsn: "host=" + p.host.addr.String() + dsnCommon + " connect_timeout=60"}
}

// floorWay is libpq with all hosts: it finds the leader by itself, and so shows
// what the cluster allows. The short limits are its only means against silence.
func floorWay(c *cluster) *way {
	var hosts []string
	for _, m := range c.nodes {
		hosts = append(hosts, m.addr.String())
	}
	return &way{name: "floor", dsn: "host=" + strings.Join(hosts, ",") + dsnCommon +
		" target_session_attrs=read-write connect_timeout=3 tcp_user_timeout=5000"}
}

// haproxyConfig holds the job word for word, below what every HAProxy needs.
const haproxyConfig = `global
    maxconn 2000
    log stdout format raw local0 notice

defaults
    mode tcp
    log global
    timeout connect 5s
    timeout client 30m
    timeout server 30m

frontend ft_postgres
    bind :5432
    default_backend bk_postgres_primary

backend bk_postgres_primary
    option httpchk GET /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
    server postgres-1 10.100.2.5:5432 check port 8008
    server postgres-2 10.100.3.185:5432 check port 8008
    server postgres-3 10.100.1.83:5432 check port 8008
`

func newHAProxy(h *host, dir string) (*proxy, error) {
	path := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(haproxyConfig), 0o644); err != nil {
		return nil, err
	}
	return &proxy{name: "haproxy", host: h, args: []string{programs.haproxy, "-db", "-f", path}}, nil
}

const shippedConfig = "../openwrt/files/pointsman.config"

// variants are pointsman as it is shipped, and otherwise. Those without an edit
// of the configuration differ in their clients.
var variants = map[string]func(config string) string{
	"pointsman":       nil,
	"pointsman-tcp":   func(config string) string { return setOption(config, "protocol", "tcp") },
	"pointsman-etcd":  withDCS,
	"pointsman-polls": nil,
	"pointsman-idle":  nil,
	"pointsman-busy":  nil,
	"pointsman-all":   withDCS,
}

func withDCS(config string) string {
	config += "\nconfig dcs 'etcd'\n\toption type 'etcd3'\n\toption scope '" + scope + "'\n\toption namespace '/patroni'\n"
	for _, name := range etcdNames {
		config += fmt.Sprintf("\tlist endpoint 'http://%s:2379'\n", addresses[name])
	}
	return config
}

// setOption sets an option that stands in the configuration.
func setOption(config, option, value string) string {
	line := regexp.MustCompile(`(?m)^(\s*option\s+` + option + `\s+)\S+`)
	if !line.MatchString(config) {
		panic(fmt.Sprintf("%s has no option %s", shippedConfig, option))
	}
	return line.ReplaceAllString(config, "${1}'"+value+"'")
}

// newPointsman builds the daemon and takes the configuration as it is shipped;
// only the switch and the path of the socket differ, and what edit changes.
func newPointsman(ctx context.Context, h *host, dir string, edit func(string) string) (*proxy, error) {
	binary := filepath.Join(dir, "pointsman")
	if _, err := os.Stat(binary); err != nil {
		build := exec.CommandContext(ctx, "go", "build", "-o", binary, "../cmd/pointsman")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building pointsman: %w: %s", err, out)
		}
	}
	text, err := os.ReadFile(shippedConfig)
	if err != nil {
		return nil, err
	}
	control := filepath.Join(dir, h.name+".sock")
	config := setOption(setOption(string(text), "enabled", "1"), "control", control)
	if edit != nil {
		config = edit(config)
	}
	path := filepath.Join(dir, h.name+".config")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return nil, err
	}
	return &proxy{name: h.name, host: h, args: []string{binary, "run", "-c", path}, control: control}, nil
}

// statusNames checks that the daemon itself tells who leads.
func (w *world) statusNames(t *testing.T, leader *member) {
	t.Helper()
	for _, p := range w.proxies {
		if p.name != "pointsman" {
			continue
		}
		args := []string{p.args[0], "status", "--json", "-c", p.args[len(p.args)-1]}
		out, err := w.spawn.run(p.host, command{name: "status", args: args})
		var status struct{ Backends []struct{ Leader string } }
		if err == nil {
			err = json.Unmarshal([]byte(out), &status)
		}
		if err != nil || len(status.Backends) != 1 || status.Backends[0].Leader != leader.name {
			t.Errorf("pointsman status: want leader %s: %v: %s", leader.name, err, out)
		}
	}
}

// leaks: when all clients are gone the proxies have no more descriptors open
// than before the first came.
func (w *world) leaks(ctx context.Context, t *testing.T) {
	r := newRow("afterwards", "descriptors more than at the start", "")
	for _, p := range w.proxies {
		more := 0
		err := waitFor(ctx, 10*time.Second, "descriptors of "+p.name, func() error {
			now, err := p.descriptors()
			if more = now - p.atStart; err == nil && more > 0 {
				err = fmt.Errorf("%d more than at the start", more)
			}
			return err
		})
		if err != nil {
			t.Log(err)
		}
		r.Values[p.name] = float64(more)
	}
	w.add(t, limited(r, limitNone))
}
