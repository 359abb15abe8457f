package balancer

import (
	"testing"
	"time"

	"pointsman/config"
)

// readsWithBackup is the read pool of docs/leader.md: every node as a replica,
// and once more as a backup for the time in which it leads.
func readsWithBackup(c *config.Config) {
	b := &c.Backends[0]
	b.Policy, b.CheckURI, b.OnMarkedDown = config.LeastConn, "/replica?lag=16MB", config.DrainSessions
	b.Inter = 50 * time.Millisecond
	for _, s := range b.Servers[:len(b.Servers):len(b.Servers)] {
		s.Name, s.CheckURI, s.Backup = s.Name+"-leads", "/primary", true
		b.Servers = append(b.Servers, s)
	}
}

// untilUp waits until just these servers are UP.
func (w *world) untilUp(names ...string) {
	w.t.Helper()
	w.until("as expected", func(s *Snapshot) bool {
		up := map[string]bool{}
		for _, srv := range s.Backends[0].Servers {
			if srv.Up {
				up[srv.Name] = true
			}
		}
		for _, name := range names {
			if !up[name] {
				return false
			}
		}
		return len(up) == len(names)
	})
}

func (n *node) lag(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lags = on
}

func TestReadPoolWithTheLeaderAsBackup(t *testing.T) {
	w := start(t, readsWithBackup, "a", "b", "c")
	w.lead(0, 5)
	w.untilUp("a-leads", "b", "c")
	reads := map[string][]*session{}
	for range 6 {
		s := w.dial()
		node := s.line()
		reads[node] = append(reads[node], s)
	}
	if len(reads["b"]) != 3 || len(reads["c"]) != 3 {
		t.Fatalf("%d sessions on b, %d on c, %d on the leader", len(reads["b"]), len(reads["c"]), len(reads["a"]))
	}

	// Both replicas lag: nobody is cut, and newcomers read from the leader.
	w.nodes[1].lag(true)
	w.untilUp("a-leads", "c")
	w.dial().wantNode("c")
	w.nodes[2].lag(true)
	w.untilUp("a-leads")
	onLeader := w.dial()
	onLeader.wantNode("a")
	for _, s := range append(reads["b"], reads["c"]...) {
		s.echo("on a replica that lags")
	}

	// A replica is back: newcomers go there, and who reads from the leader stays.
	w.nodes[1].lag(false)
	w.untilUp("a-leads", "b")
	w.dial().wantNode("b")
	onLeader.echo("stays")

	// b is promoted and a dies: b fills in for itself, its readers stay, and
	// those of a have nobody left.
	w.nodes[0].vanish()
	w.lead(1, 6)
	if got := onLeader.line(); got != "" {
		t.Fatalf("a zombie reads %q", got)
	}
	w.untilUp("b-leads")
	w.dial().wantNode("b")
	reads["b"][0].echo("on the new leader")
	w.nodes[2].lag(false)
	w.untilUp("b-leads", "c")
	w.dial().wantNode("c")
}

func TestStandbyCluster(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].CheckURI = "/standby-leader" }, "a", "b")
	for _, n := range w.nodes {
		n.mu.Lock()
		n.standby = true
		n.mu.Unlock()
	}
	w.lead(0, 5)
	if role := w.untilLeader("a").Backends[0].Servers[0].Role; role != "standby_leader" {
		t.Errorf("role %q", role)
	}
	s := w.dial()
	s.wantNode("a")
	// Its leader changes with no new timeline: that is the upstream cluster's.
	w.lead(1, 5)
	if got := s.line(); got != "" {
		t.Fatalf("the old standby leader's session reads %q", got)
	}
	w.untilLeader("b")
	// Promoted: it leads as a primary now, and this port is for a standby.
	held := w.dial()
	held.wantNode("b")
	w.nodes[1].mu.Lock()
	w.nodes[1].standby = false
	w.nodes[1].mu.Unlock()
	w.b.do(func() { w.b.hint(w.b.backends[0], hint{bySession, "b", "test"}) })
	w.until("in doubt", func(s *Snapshot) bool { return !s.Backends[0].Accepting })
}
