package simulation

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// runClient runs a client until the returned function is called.
func runClient(t *testing.T, c *Client) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func TestClients(t *testing.T) {
	for _, test := range []struct {
		style Style
		conns int // that ten writes take
	}{
		{Keeps, 1},
		{Anew, 0}, // one each
		{Pools, poolSize},
	} {
		t.Run(test.style.String(), func(t *testing.T) {
			t.Parallel()
			c, err := NewCluster("postgres-1")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			var opened atomic.Int32
			sql := c.Nodes()[0].sql
			sql.mu.Lock()
			serve := sql.serve
			sql.serve = func(p *port, conn net.Conn) {
				opened.Add(1)
				serve(p, conn)
			}
			sql.mu.Unlock()

			client := NewClient("a", test.style, c.Nodes()[0].SQLAddr.String(), func(err error) { t.Error(err) })
			stop := runClient(t, client)
			waitFor(t, "ten writes", func() bool { return client.Stats().Writes >= 10 })
			stop()
			stats := client.Stats()
			want := test.conns
			if test.style == Anew {
				want = int(stats.Writes) // it may have written more before it stopped
			}
			if got := int(opened.Load()); got < want || got > want+1 {
				t.Errorf("%d connections for %d writes, want %d", got, stats.Writes, want)
			}
			if stats.Errors != 0 || stats.LongestGap < pace/2 || stats.LongestGap > time.Second {
				t.Errorf("%+v", stats)
			}
			acked, writes := client.TakeAcked(), c.TakeWrites()
			if uint64(len(acked)) != stats.Writes || acked[9] != "a/10" || len(writes) < len(acked) || writes[9].Text != "a/10" {
				t.Errorf("%d writes, acknowledged %v, recorded %v", stats.Writes, acked, writes)
			}
			if again := client.Stats(); again != stats {
				t.Errorf("it goes on counting: %+v, then %+v", stats, again)
			}
		})
	}
}

// A failover behind the clients' backs: idle connections are replaced without
// an error, refused connects count, and so do answers of a replica.
func TestClientErrors(t *testing.T) {
	c := newTestCluster(t)
	n := c.Nodes()[0]
	errs := make(chan error, 1000)
	client := NewClient("a", Keeps, n.SQLAddr.String(), func(err error) { errs <- err })
	stop := runClient(t, client)
	waitFor(t, "a write", func() bool { return client.Stats().Writes > 0 })

	n.Set(func(s *State) { s.Role = "replica" })
	waitFor(t, "a read-only error", func() bool { return client.Stats().ReadOnly > 0 })
	n.Set(func(s *State) { s.Role = "primary" })
	writes := client.Stats().Writes
	waitFor(t, "writes go on", func() bool { return client.Stats().Writes > writes })

	client.Mark()
	before := client.Stats()
	n.Set(func(s *State) { s.SQL = Closed })
	n.Set(func(s *State) { s.SQL = Open })
	waitFor(t, "writes go on over a new connection", func() bool { return client.Stats().Writes > before.Writes+1 })
	if after := client.Stats(); after.Errors > before.Errors+1 {
		t.Errorf("%d errors though only a write under way may fail", after.Errors-before.Errors)
	}

	n.Set(func(s *State) { s.SQL = Closed })
	waitFor(t, "refused connects", func() bool { return client.Stats().Errors > before.Errors+3 })
	waitFor(t, "the gap grows", func() bool { return client.Stats().MarkedGap > 200*time.Millisecond })
	stop()
	stats := client.Stats()
	if stats.LongestGap < 200*time.Millisecond || stats.ReadOnly >= stats.Errors || uint64(len(errs)) != stats.Errors {
		t.Errorf("%+v, %d errors told", stats, len(errs))
	}
}

// A client that waits for an answer stops at once.
func TestClientStops(t *testing.T) {
	c := newTestCluster(t)
	client := NewClient("a", Keeps, c.Nodes()[0].SQLAddr.String(), func(err error) { t.Error(err) })
	stop := runClient(t, client)
	waitFor(t, "a write", func() bool { return client.Stats().Writes > 0 })
	c.Nodes()[0].Freeze()
	waitFor(t, "it hangs", func() bool { return client.Stats().Gap > 100*time.Millisecond })
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if stats := client.Stats(); stats.Errors != 0 {
		t.Errorf("%+v", stats)
	}
}

// Nor is the end of its time an error.
func TestClientStopsAtDeadline(t *testing.T) {
	c := newTestCluster(t)
	c.Nodes()[0].Freeze()
	client := NewClient("a", Anew, c.Nodes()[0].SQLAddr.String(), func(err error) { t.Error(err) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	client.Run(ctx) // it cannot connect
	if stats := client.Stats(); stats.Errors != 0 || stats.Writes != 0 {
		t.Errorf("%+v", stats)
	}
}

func TestLedger(t *testing.T) {
	var l Ledger
	kept := func(text string) Write { return Write{Text: text, Taken: true, Kept: true} }
	l.Add([]string{"a/1"}, []Write{kept("a/1"), kept("a/2"), kept("b/1")}) // a/2 was not acknowledged yet
	l.Add([]string{"a/2"}, nil)
	if l.Lost != 0 {
		t.Errorf("%d lost, want 0", l.Lost)
	}
	l.Add([]string{"a/3", "a/4", "b/2"}, []Write{
		{Text: "a/3", Taken: true}, // by a node without the lock
		kept("a/4"),
		{Text: "a/5"}, // refused, and not acknowledged
	})
	if l.Lost != 2 {
		t.Errorf("%d lost, want 2: a/3 and b/2", l.Lost)
	}
	if len(l.kept) != 1 {
		t.Errorf("it remembers %v, want b/1 only", l.kept)
	}
}
