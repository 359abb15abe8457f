package balancer

import (
	"testing"
	"time"

	"pointsman/config"
)

func drainingPool(c *config.Config) {
	readPool(c)
	c.Backends[0].Inter = 50 * time.Millisecond
	c.Backends[0].OnMarkedDown = config.DrainSessions
}

// drained is a pool of a and b, with a session on a, which refused and is DOWN.
func drained(t *testing.T) (w *world, onA *session) {
	w = start(t, drainingPool, "a", "b")
	w.nodes[0].set(true, 5)
	w.until("a up", func(s *Snapshot) bool { return s.Backends[0].Servers[0].Up })
	onA = w.dial()
	onA.wantNode("a")
	w.nodes[1].set(true, 5)
	w.until("both up", func(s *Snapshot) bool { return s.Backends[0].Servers[1].Up })
	w.nodes[0].set(false, 5)
	w.until("a down", func(s *Snapshot) bool { return !s.Backends[0].Servers[0].Up })
	return w, onA
}

func TestDrainKeepsTheSessionsOfWhatLives(t *testing.T) {
	w, onA := drained(t)
	for range 4 {
		w.dial().wantNode("b")
	}
	onA.echo("on a server that lags")
	w.untilLog("Server bk/a is DOWN, reason: Layer7 wrong status, code: 503")
	w.untilLog("1 active and 0 backup servers left. 1 sessions drain, 0 remaining in queue.")
	w.nodes[0].set(true, 5)
	w.until("a up again", func(s *Snapshot) bool { return s.Backends[0].Servers[0].Up })
	onA.echo("and after it caught up")
	if n := w.b.Snapshot().Backends[0].Servers[0].Current; n != 1 {
		t.Errorf("%d sessions on a", n)
	}
}

func TestDrainedServerThatDiesEndsItsSessions(t *testing.T) {
	w, onA := drained(t)
	onA.echo("drains")
	onB := w.dial()
	onB.wantNode("b")
	w.nodes[0].vanish()
	if got := onA.line(); got != "" {
		t.Fatalf("a zombie reads %q", got)
	}
	onB.echo("not concerned")
	w.untilLog("Server bk/a died while it drained, reason: Layer4 connection problem")
	w.untilLog("ms. 1 sessions ended.")
}

func TestDrainEndsTheSessionsOfWhatIsDead(t *testing.T) {
	w := start(t, drainingPool, "a")
	w.nodes[0].set(true, 5)
	w.until("up", func(s *Snapshot) bool { return s.Backends[0].Servers[0].Up })
	s := w.dial()
	s.wantNode("a")
	w.nodes[0].vanish()
	if got := s.line(); got != "" {
		t.Fatalf("a zombie reads %q", got)
	}
	w.untilLog("0 active and 0 backup servers left. 1 sessions ended")
}

// Patroni is gone, PostgreSQL lives: that is no death.
func TestDrainAsksTheSQLPort(t *testing.T) {
	w := start(t, drainingPool, "a")
	w.nodes[0].set(true, 5)
	w.until("up", func(s *Snapshot) bool { return s.Backends[0].Servers[0].Up })
	s := w.dial()
	s.wantNode("a")
	w.nodes[0].http.Close()
	w.until("down", func(s *Snapshot) bool { return !s.Backends[0].Servers[0].Up })
	bad := w.b.Snapshot().Backends[0].Servers[0].CheckBad
	w.until("asked some more", func(s *Snapshot) bool { return s.Backends[0].Servers[0].CheckBad > bad+4 })
	s.echo("drains")
	w.nodes[0].sql.Close()
	if got := s.line(); got != "" {
		t.Fatalf("a zombie reads %q", got)
	}
}

func TestDrainAfterAReload(t *testing.T) {
	w, onA := drained(t)
	if err := w.reload(func(c *config.Config) { drainingPool(c); c.Backends[0].Fall = 2 }); err != nil {
		t.Fatal(err)
	}
	onA.echo("drains on")
	w.dial().wantNode("b")
	w.nodes[0].vanish()
	if got := onA.line(); got != "" {
		t.Fatalf("a zombie reads %q", got)
	}
}

func TestReloadFromDrainToShutdown(t *testing.T) {
	w, onA := drained(t)
	onA.echo("drains")
	if err := w.reload(readPool); err != nil {
		t.Fatal(err)
	}
	if got := onA.line(); got != "" {
		t.Fatalf("it reads %q", got)
	}
}
