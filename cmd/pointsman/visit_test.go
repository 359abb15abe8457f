package main

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pointsman/cmd/pointsman/simulation"
)

// visitor has one session through a proxy, which stays open.
type visitor struct {
	came, served time.Time
	node         string // who answered
	err          error

	conn net.Conn
	in   *bufio.Reader
	done chan struct{}
}

// come opens a session, and asks who is there; wait returns the answer.
func come(addr string) *visitor {
	v := &visitor{came: time.Now(), done: make(chan struct{})}
	go func() {
		defer close(v.done)
		if v.conn, v.err = net.Dial("tcp4", addr); v.err == nil {
			v.in = bufio.NewReader(v.conn)
			v.node, v.err = v.ask()
		}
		v.served = time.Now()
	}()
	return v
}

func (v *visitor) wait() string {
	<-v.done
	return v.node
}

// leave asks once more, and ends the session. "" is that it had been ended.
func (v *visitor) leave() (node string) {
	v.wait()
	if v.conn == nil {
		return ""
	}
	defer v.conn.Close()
	if v.err == nil {
		node, _ = v.ask()
	}
	return node
}

func (v *visitor) ask() (node string, err error) {
	v.conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(v.conn, "WHO")
	line, err := v.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	fields := strings.Fields(line) // OK postgres-1 primary timeline 1
	if len(fields) < 2 {
		return "", fmt.Errorf("answered %q", line)
	}
	return fields[1], nil
}

// scene is a cluster with two proxies in front: HAProxy and the daemon.
type scene struct {
	t         *testing.T
	cluster   *simulation.Cluster
	haproxy   *process
	pointsman *process
	visitors  [2][]*visitor
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, cluster: cluster(t), pointsman: prepare(t, "")}
	ours := s.pointsman.uci(s.cluster.UCI("bk"), "")
	ours = strings.Replace(ours, "option inter '200ms'", "option inter '3s'", 1)
	ours = strings.Replace(ours, "option fastinter '20ms'", "", 1)
	s.pointsman.write(ours)
	s.pointsman.launch(program(t, 0, "run", "-c", s.pointsman.file))

	addr, release, err := simulation.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	s.haproxy = &process{t: t, out: &lines{}, ended: make(chan int, 1), file: filepath.Join(t.TempDir(), "haproxy.cfg"), listener: addr.String()}
	text := fmt.Sprintf(haproxyConfig, addr)
	for _, n := range s.cluster.Nodes() {
		text += fmt.Sprintf("    server %s %s check port %d\n", n.Name, n.SQLAddr, n.RESTAddr.Port())
	}
	s.haproxy.write(text)
	s.haproxy.follow(exec.Command("haproxy", "-db", "-f", s.haproxy.file))
	return s
}

// settle waits until both proxies know who leads. HAProxy takes every server
// for UP until its first check has failed.
func (s *scene) settle() {
	s.t.Helper()
	s.haproxy.until("bk_postgres_primary/postgres-2 is DOWN")
	s.haproxy.until("bk_postgres_primary/postgres-3 is DOWN")
	s.pointsman.until("leader of bk is now postgres-1")
}

// residents are n sessions by each proxy, with the leader.
func (s *scene) residents(n int) (all [2][]*visitor) {
	s.t.Helper()
	for range n {
		for i, proxy := range []*process{s.haproxy, s.pointsman} {
			v := come(proxy.listener)
			if v.wait() != "postgres-1" {
				s.t.Fatalf("a session is with %q: %v", v.node, v.err)
			}
			all[i] = append(all[i], v)
		}
	}
	return all
}

// visit brings a visitor to each proxy of the scenes every 50 ms.
func visit(end time.Time, scenes ...*scene) {
	for ; time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, s := range scenes {
			for i, proxy := range []*process{s.haproxy, s.pointsman} {
				s.visitors[i] = append(s.visitors[i], come(proxy.listener))
			}
		}
	}
}

// haproxyConfig is the job that the daemon replaces, below what every HAProxy needs.
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
    bind %s
    default_backend bk_postgres_primary
backend bk_postgres_primary
    option httpchk GET /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
`
