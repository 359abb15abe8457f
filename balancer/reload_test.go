package balancer

import (
	"net"
	"strings"
	"testing"
	"time"

	"pointsman/config"
)

// reload applies the configuration with a change.
func (w *world) reload(change func(*config.Config)) error {
	cfg := w.config()
	cfg.Frontends[0].Binds = w.cfg.Frontends[0].Binds
	change(&cfg)
	return w.b.Apply(cfg)
}

func TestSessionsStayManagedAfterReload(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	s := w.dial()
	s.wantNode("a")
	epoch := w.b.Snapshot().Backends[0].Epoch
	for i := range 20 {
		if err := w.reload(func(c *config.Config) { c.Backends[0].Fall = 3 + i%2 }); err != nil {
			t.Fatal(err)
		}
		s.echo("after a reload")
		if got := w.b.Snapshot().Backends[0]; got.Leader != "a" || got.Epoch != epoch {
			t.Fatalf("after reload %d: leader %q, epoch %d, was %d", i, got.Leader, got.Epoch, epoch)
		}
	}
	w.lead(1, 6)
	if got := s.line(); got != "" {
		t.Fatalf("after the leader changed: %q", got)
	}
}

func TestReloadWithoutChangeKeepsChecks(t *testing.T) {
	w := start(t, nil, "a")
	w.lead(0, 5)
	w.untilLeader("a")
	var before, after uint32
	w.b.do(func() { before = w.b.generation })
	if err := w.reload(func(*config.Config) {}); err != nil {
		t.Fatal(err)
	}
	w.b.do(func() { after = w.b.generation })
	if before != after {
		t.Error("a monitor was started anew although nothing changed")
	}
}

func TestRemovedLeader(t *testing.T) {
	for _, removed := range []config.Removed{config.RemovedShutdown, config.RemovedDrain} {
		t.Run(string(removed), func(t *testing.T) {
			w := start(t, nil, "a", "b")
			w.lead(0, 5)
			w.untilLeader("a")
			s := w.dial()
			s.wantNode("a")
			err := w.reload(func(c *config.Config) {
				c.Backends[0].OnRemoved = removed
				c.Backends[0].Servers = c.Backends[0].Servers[1:]
			})
			if err != nil {
				t.Fatal(err)
			}
			if removed == config.RemovedDrain {
				s.echo("drains")
			}
			held := w.dial()
			w.until("held", func(s *Snapshot) bool { return s.Backends[0].Held == 1 })
			w.lead(1, 6)
			held.wantNode("b")
			if got := s.line(); got != "" {
				t.Fatalf("the removed server's session reads %q", got)
			}
		})
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	w := start(t, nil, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	taken := listen(t)
	defer taken.Close()
	err := w.reload(func(c *config.Config) {
		c.Backends[0].Servers = c.Backends[0].Servers[1:]
		c.Frontends[0].Binds = append(c.Frontends[0].Binds, taken.Addr().(*net.TCPAddr).AddrPort())
	})
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "another program listens there") {
		t.Fatalf("error: %v", err)
	}
	if s := w.b.Snapshot(); s.Backends[0].Leader != "a" || len(s.Backends[0].Servers) != 2 || len(s.Frontends[0].Binds) != 1 {
		t.Errorf("changed all the same: %+v", s)
	}
	err = w.reload(func(c *config.Config) { c.Backends[0].CheckTLS, c.Backends[0].CheckCA = true, "/nowhere/ca.pem" })
	if err == nil || !strings.Contains(err.Error(), "/nowhere/ca.pem") {
		t.Fatalf("error: %v", err)
	}
	w.dial().wantNode("a")
}

func TestReloadMovesListeners(t *testing.T) {
	w := start(t, nil, "a")
	w.lead(0, 5)
	w.untilLeader("a")
	old := w.dial()
	old.wantNode("a")
	free := listen(t)
	addr := free.Addr().(*net.TCPAddr).AddrPort()
	free.Close()
	if err := w.reload(func(c *config.Config) { c.Frontends[0].Binds = append(c.Frontends[0].Binds[:0:0], addr) }); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp4", w.cfg.Frontends[0].Binds[0].String()); err == nil {
		c.Close()
		t.Error("the old address still answers")
	}
	w.cfg.Frontends[0].Binds[0] = addr
	w.dial().wantNode("a")
	old.echo("of the old address")
	// The wildcard of that port is in the way of the address, and back again.
	for range 2 {
		for _, text := range []string{"0.0.0.0", "127.0.0.1"} {
			next := mustAddrPort(text, addr.Port())
			if err := w.reload(func(c *config.Config) { c.Frontends[0].Binds = append(c.Frontends[0].Binds[:0:0], next) }); err != nil {
				t.Fatalf("to %s: %v", text, err)
			}
			w.dial().wantNode("a")
		}
	}
}

func TestReloadGivesAListenerToAnotherFrontend(t *testing.T) {
	w := start(t, nil, "a")
	w.lead(0, 5)
	w.untilLeader("a")
	err := w.reload(func(c *config.Config) { c.Frontends[0].Name = "other" })
	if err != nil {
		t.Fatal(err)
	}
	w.dial().wantNode("a")
	w.until("counted at the new one", func(s *Snapshot) bool { return s.Frontends[0].Name == "other" && s.Frontends[0].Total == 1 })
}

func TestStopLetsSessionsEnd(t *testing.T) {
	w := start(t, func(c *config.Config) { c.Global.StopGrace = 10 * time.Second }, "a")
	w.lead(0, 5)
	w.untilLeader("a")
	s := w.dial()
	s.wantNode("a")
	w.end()
	deadline := time.Now().Add(5 * time.Second)
	for { // the listener closes first
		c, err := net.Dial("tcp4", w.cfg.Frontends[0].Binds[0].String())
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("still accepting")
		}
		time.Sleep(time.Millisecond)
	}
	s.echo("in its grace")
	s.conn.Close()
	began := time.Now()
	w.stop()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("ended %v after the last session", d)
	}
}
