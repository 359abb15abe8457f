package balancer

import (
	"net/netip"
	"testing"

	"pointsman/config"
)

func mustAddrPort(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

func readPool(c *config.Config) {
	c.Backends[0].Policy = config.RoundRobin
}

func TestReadPool(t *testing.T) {
	w := start(t, readPool, "a", "b", "c")
	w.nodes[0].set(true, 5)
	w.nodes[1].set(true, 5)
	w.until("two up", func(s *Snapshot) bool { return s.Backends[0].Servers[0].Up && s.Backends[0].Servers[1].Up })
	seen := map[string]int{}
	var sessions []*session
	for range 10 {
		s := w.dial()
		seen[s.line()]++
		sessions = append(sessions, s)
	}
	if seen["a"] != 5 || seen["b"] != 5 {
		t.Errorf("shares: %v", seen)
	}
	w.nodes[0].set(false, 5)
	ended := 0
	w.until("a down", func(s *Snapshot) bool { return !s.Backends[0].Servers[0].Up })
	for _, s := range sessions {
		s.conn.Write([]byte("x\n"))
		if s.line() == "" {
			ended++
		}
	}
	if ended != 5 {
		t.Errorf("%d sessions ended, want the 5 of a", ended)
	}
}

func TestBackupServesWhenAllOthersAreDown(t *testing.T) {
	w := start(t, func(c *config.Config) {
		readPool(c)
		c.Backends[0].Servers[1].Backup = true
	}, "a", "b")
	w.nodes[0].set(true, 5)
	w.nodes[1].set(true, 5)
	w.until("both up", func(s *Snapshot) bool { return s.Backends[0].Servers[0].Up && s.Backends[0].Servers[1].Up })
	for range 4 {
		w.dial().wantNode("a")
	}
	w.nodes[0].set(false, 5)
	w.until("a down", func(s *Snapshot) bool { return !s.Backends[0].Servers[0].Up })
	w.dial().wantNode("b")
}

func TestQueueForASlot(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Servers[0].MaxConn = 1 }, "a")
	w.lead(0, 5)
	w.untilLeader("a")
	first := w.dial()
	first.wantNode("a")
	second := w.dial()
	w.until("queued", func(s *Snapshot) bool { return s.Backends[0].Queued == 1 })
	first.conn.Close()
	second.wantNode("a")
	w.until("not queued", func(s *Snapshot) bool { return s.Backends[0].Queued == 0 && s.Backends[0].Current == 1 })
}

func TestUncheckedServerIsAlwaysUp(t *testing.T) {
	w := start(t, func(c *config.Config) {
		c.Backends[0].Check, c.Backends[0].Policy = config.CheckNone, config.First
	}, "a")
	w.dial().wantNode("a")
}

func TestNamesAreResolved(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Servers[0].Address.Host = "localhost" }, "a")
	w.lead(0, 5)
	w.untilLeader("a")
	w.dial().wantNode("a")
}

func TestNameThatResolvesToNothing(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Backends[0].Servers[1].Address.Host = "nowhere.invalid" }, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	w.dial().wantNode("a")
	w.untilLog("server bk/b has no address: looking up nowhere.invalid")
}
