package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"pointsman/cmd/pointsman/simulation"
)

// example returns the configuration of docs/leader.md under that heading, with
// the first two nodes of the cluster for those that it names.
func (p *process) example(t *testing.T, heading string, c *simulation.Cluster) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/leader.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, text, _ := strings.Cut(section, "```uci\n")
	text, _, closed := strings.Cut(text, "```")
	if !closed {
		t.Fatalf("docs/leader.md has no configuration under %q", heading)
	}
	text = regexp.MustCompile(`list bind '[^']*'`).ReplaceAllString(text, "list bind '"+p.listener+"'")
	hosts := []string{"10.100.2.5:5432", "10.100.3.185:5432"}
	var out strings.Builder
	fmt.Fprintf(&out, "config global 'global'\n\toption control '%s'\n\n", p.socket)
	for _, s := range strings.SplitAfter(text, "\n\n") {
		for i, host := range hosts {
			if n := c.Nodes()[i]; strings.Contains(s, host) {
				s = strings.Replace(s, host, n.SQLAddr.String(), 1)
				s = strings.Replace(s, "'8008'", fmt.Sprintf("'%d'", n.RESTAddr.Port()), 1)
			}
		}
		out.WriteString(s)
	}
	// What the page is about takes no longer here than it must.
	return strings.Replace(out.String(), "option check_uri", "option inter '100ms'\n\toption fastinter '20ms'\n\toption timeout_check '300ms'\n\toption check_uri", 1)
}

// runExample starts the daemon with it.
func runExample(t *testing.T, heading string, c *simulation.Cluster) *process {
	p := prepare(t, "")
	p.write(p.example(t, heading, c))
	if status, out, errs := call(t, "check", "-c", p.file); status != 0 {
		t.Fatalf("check: %s%s", out, errs)
	}
	p.follow(program(t, 0, "run", "-c", p.file))
	p.until("listens on")
	return p
}

func (p *process) wantNode(want string) *visitor {
	p.t.Helper()
	v := come(p.listener)
	if node := v.wait(); node != want {
		p.t.Fatalf("a newcomer is with %q, want %s: %v", node, want, v.err)
	}
	return v
}

// TestReadPoolOfTheDocs runs docs/leader.md's read pool through what it says.
func TestReadPoolOfTheDocs(t *testing.T) {
	c := cluster(t)
	leader, replica := c.Nodes()[0], c.Nodes()[1]
	p := runExample(t, "Read pools", c)
	p.until("Server bk_postgres_read/postgres-2 is UP")
	p.until("Server bk_postgres_read/postgres-1-leads is UP")
	onReplica := p.wantNode("postgres-2")
	p.wantNode("postgres-2").leave()

	replica.Set(func(s *simulation.State) { s.Lags = true })
	p.until("Server bk_postgres_read/postgres-2 is DOWN, reason: Layer7 wrong status, code: 503")
	p.until("1 sessions drain")
	onLeader := p.wantNode("postgres-1")
	p.out.forget()
	replica.Set(func(s *simulation.State) { s.Lags = false })
	p.until("Server bk_postgres_read/postgres-2 is UP")
	p.wantNode("postgres-2").leave()
	if node := onLeader.leave(); node != "postgres-1" {
		t.Errorf("who read from the leader is with %q", node)
	}

	p.out.forget()
	replica.Set(func(s *simulation.State) { s.Lags = true })
	p.until("Server bk_postgres_read/postgres-2 is DOWN")
	p.out.forget()
	replica.Freeze() // its sessions stay open, and nobody is there
	p.until("Server bk_postgres_read/postgres-2 died while it drained, reason: Layer")
	p.until("1 sessions ended")
	if node := onReplica.leave(); node != "" {
		t.Errorf("a zombie is with %q", node)
	}
	p.wantNode("postgres-1").leave()
	leader.Set(func(s *simulation.State) { s.Role, s.Lock = "replica", false })
	p.until("Server bk_postgres_read/postgres-1 is UP")
	p.wantNode("postgres-1").leave()
}

func TestStandbyClusterOfTheDocs(t *testing.T) {
	c := cluster(t)
	first, second := c.Nodes()[0], c.Nodes()[1]
	leads := func(n *simulation.Node) {
		n.Set(func(s *simulation.State) { s.Role, s.Lock = "standby_leader", true })
	}
	leads(first)
	p := runExample(t, "Standby clusters", c)
	p.until("leader of bk_postgres_standby is now postgres-1, was nobody: confirmed")
	v := p.wantNode("postgres-1")
	// The cluster that it follows is promoted: a new timeline, and no cut.
	first.Set(func(s *simulation.State) { s.Timeline = 7 })
	for deadline := time.Now().Add(10 * time.Second); p.status().Backends[0].Servers[0].Timeline != 7; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never checked again")
		}
	}
	if node, err := v.ask(); node != "postgres-1" {
		t.Errorf("after the other cluster's failover: %q, %v", node, err)
	}
	first.Set(func(s *simulation.State) { s.Role, s.Lock = "replica", false })
	leads(second)
	p.until("leader of bk_postgres_standby is now postgres-2, was postgres-1: rival confirmed; 1 sessions ended")
	if node := v.leave(); node != "" {
		t.Errorf("the old standby leader's session is with %q", node)
	}
	p.wantNode("postgres-2").leave()
}
