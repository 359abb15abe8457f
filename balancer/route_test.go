package balancer

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pointsman/balancer/relay"
	"pointsman/config"
)

// table returns routes with one backend of that policy, and a server for each
// of the settings given.
func table(policy config.Policy, servers ...serverRoute) *routes {
	r := &routes{frontends: []int32{0}, backend: []*waiting{{}}}
	var weights []int32
	for i := range servers {
		servers[i].slots = &slots{}
		servers[i].weight = max(servers[i].weight, 1)
		servers[i].target = relay.Target{Server: int32(i), Epoch: relay.Epoch(i + 1)}
		r.server = append(r.server, servers[i].slots)
		weights = append(weights, servers[i].weight)
	}
	r.backends = []*backendRoute{{policy: policy, usable: servers, order: spread(weights), hold: time.Minute, holdMax: 2, queue: 3 * time.Second}}
	return r
}

// balancerWith returns a balancer that answers Route, and nothing more.
func balancerWith(r *routes) *Balancer {
	b := &Balancer{}
	b.routes.Store(r)
	return b
}

func newcomer(client string) relay.Request {
	return relay.Request{Client: netip.MustParseAddrPort(client), Failed: -1}
}

// shares routes n newcomers and returns how many each server got.
func shares(t *testing.T, r *routes, n int) []int32 {
	t.Helper()
	b := balancerWith(r)
	for i := range n {
		ticket, _ := b.Route(newcomer(fmt.Sprintf("10.0.%d.%d:1000", i/250, i%250)))
		if ticket.Place != relay.Slotted {
			t.Fatalf("newcomer %d: place %d", i, ticket.Place)
		}
	}
	var got []int32
	for _, s := range r.server {
		got = append(got, s.taken.Load())
	}
	return got
}

func TestPoliciesShareByWeight(t *testing.T) {
	three := func() []serverRoute { return []serverRoute{{weight: 1}, {weight: 2}, {weight: 3}} }
	for _, c := range []struct {
		policy config.Policy
		want   string
	}{
		{config.Leader, "[600 0 0]"},
		{config.First, "[600 0 0]"},
		{config.RoundRobin, "[100 200 300]"},
		{config.LeastConn, "[100 200 300]"},
	} {
		if got := fmt.Sprint(shares(t, table(c.policy, three()...), 600)); got != c.want {
			t.Errorf("%s: %s, want %s", c.policy, got, c.want)
		}
	}
}

func TestSourceKeepsAClientOnItsServer(t *testing.T) {
	r := table(config.Source, serverRoute{}, serverRoute{}, serverRoute{})
	b := balancerWith(r)
	seen := map[int32]int{}
	for i := range 300 {
		first, _ := b.Route(newcomer(fmt.Sprintf("10.1.%d.%d:1", i/200, i%200)))
		again, _ := b.Route(newcomer(fmt.Sprintf("10.1.%d.%d:2", i/200, i%200)))
		if first != again {
			t.Fatalf("client %d: %v, then %v", i, first, again)
		}
		seen[first.Target.Server]++
	}
	for server, n := range seen {
		if n < 60 {
			t.Errorf("server %d got %d of 300 clients", server, n)
		}
	}
}

func TestSpreadMixes(t *testing.T) {
	for _, c := range []struct {
		weights []int32
		want    string
	}{
		{nil, "[]"}, {[]int32{0, 0}, "[]"}, {[]int32{100}, "[0]"},
		{[]int32{256, 256}, "[0 1]"}, {[]int32{1, 2, 3}, "[2 1 0 2 1 2]"}, {[]int32{0, 4, 2}, "[1 2 1]"},
	} {
		if got := fmt.Sprint(spread(c.weights)); got != c.want {
			t.Errorf("spread(%v) = %s, want %s", c.weights, got, c.want)
		}
	}
}

func TestFailedServerIsPassedOver(t *testing.T) {
	for _, policy := range []config.Policy{config.RoundRobin, config.LeastConn, config.First, config.Source} {
		b := balancerWith(table(policy, serverRoute{}, serverRoute{}))
		q := newcomer("10.0.0.1:1")
		q.Have, _ = b.Route(q)
		failed := q.Have.Target.Server
		q.Failed, q.Failures = failed, 1
		next, _ := b.Route(q)
		if next.Place != relay.Slotted || next.Target.Server == failed {
			t.Errorf("%s: after server %d failed: %+v", policy, failed, next)
		}
		if n := b.routes.Load().server[failed].taken.Load(); n != 0 {
			t.Errorf("%s: the failed server keeps %d slots", policy, n)
		}
		q.Have, q.Failed, q.Failures = next, next.Target.Server, 2
		if rest, _ := b.Route(q); rest.Place != relay.Held {
			t.Errorf("%s: after both failed: %+v, want held", policy, rest)
		}
	}
	// A leader has no substitute.
	b := balancerWith(table(config.Leader, serverRoute{}))
	q := newcomer("10.0.0.1:1")
	q.Have, _ = b.Route(q)
	q.Failed, q.Failures = 0, 1
	if got, limit := b.Route(q); got.Place != relay.Held || limit != time.Minute {
		t.Errorf("leader: %+v, %v; want held for a minute", got, limit)
	}
}

func TestHoldHasLimits(t *testing.T) {
	r := table(config.Leader)
	b := balancerWith(r)
	first, limit := b.Route(newcomer("10.0.0.1:1"))
	if first.Place != relay.Held || limit != time.Minute {
		t.Fatalf("first: %+v, %v", first, limit)
	}
	// Asked about again it keeps its place, and takes no second one.
	q := newcomer("10.0.0.1:1")
	q.Have, q.Waited = first, 5*time.Second
	if again, _ := b.Route(q); again != first {
		t.Fatalf("again: %+v", again)
	}
	b.Route(newcomer("10.0.0.2:1"))
	if third, _ := b.Route(newcomer("10.0.0.3:1")); third.Place != relay.Nowhere {
		t.Errorf("beyond hold_max: %+v", third)
	}
	b.Release(first, relay.Normal)
	if fourth, _ := b.Route(newcomer("10.0.0.4:1")); fourth.Place != relay.Held {
		t.Errorf("after one left: %+v", fourth)
	}
	if n := r.backend[0].held.Load(); n != 2 {
		t.Errorf("%d held, want 2", n)
	}
	r.backends[0].hold = 0
	if refused, _ := b.Route(newcomer("10.0.0.5:1")); refused.Place != relay.Nowhere {
		t.Errorf("hold 0: %+v", refused)
	}
}

func TestMaxconnQueues(t *testing.T) {
	r := table(config.Leader, serverRoute{maxConn: 1})
	b := balancerWith(r)
	first, _ := b.Route(newcomer("10.0.0.1:1"))
	q := newcomer("10.0.0.2:1")
	q.Waited = 2 * time.Second // held before
	second, limit := b.Route(q)
	if second.Place != relay.Queued || limit != 5*time.Second {
		t.Fatalf("second: %+v, %v; want queued until 5s", second, limit)
	}
	q.Have, q.Waited, q.Limit = second, 4*time.Second, limit
	if again, limit := b.Route(q); again != second || limit != 5*time.Second {
		t.Fatalf("again: %+v, %v", again, limit)
	}
	r.release(first)
	if got, _ := b.Route(q); got.Place != relay.Slotted {
		t.Errorf("after the slot was free: %+v", got)
	}
	if n := r.backend[0].queued.Load(); n != 0 {
		t.Errorf("%d queued, want 0", n)
	}
	if n := r.server[0].taken.Load(); n != 1 {
		t.Errorf("%d slots taken, want 1", n)
	}
}

func TestRemovedBackendRefuses(t *testing.T) {
	r := table(config.Leader)
	b := balancerWith(r)
	q := newcomer("10.0.0.1:1")
	q.Have, _ = b.Route(q)
	gone := *r
	gone.frontends = []int32{-1}
	b.routes.Store(&gone)
	if got, _ := b.Route(q); got.Place != relay.Nowhere || r.backend[0].held.Load() != 0 {
		t.Errorf("%+v, %d held", got, r.backend[0].held.Load())
	}
}

func BenchmarkRoute(b *testing.B) {
	for _, policy := range []config.Policy{config.Leader, config.RoundRobin, config.LeastConn, config.Source} {
		b.Run(string(policy), func(b *testing.B) {
			bal := balancerWith(table(policy, serverRoute{}, serverRoute{}, serverRoute{}))
			q := newcomer("10.0.0.1:1")
			b.ReportAllocs()
			for b.Loop() {
				t, _ := bal.Route(q)
				bal.Release(t, relay.Normal)
			}
		})
	}
}

// While a server takes connections but no sessions, one client in a while
// tries it; when it takes one, all may.
func TestShutServerIsTriedByOne(t *testing.T) {
	r := table(config.Leader, serverRoute{})
	r.backends[0].holdMax = 100
	b := balancerWith(r)
	target := r.backends[0].usable[0].target
	places := func(n int) (slotted int) {
		for range n {
			if ticket, _ := b.Route(newcomer("10.0.0.1:1000")); ticket.Place == relay.Slotted {
				slotted++
			}
		}
		return slotted
	}
	if n := places(5); n != 5 {
		t.Fatalf("%d of 5 sent to a server that takes sessions", n)
	}
	r.server[0].close(target.Epoch)
	if n := places(5); n != 0 {
		t.Errorf("%d of 5 sent to a server that has just refused", n)
	}
	r.server[0].tried.Add(-uint32(retry.Milliseconds())) // that was a while ago
	if n := places(5); n != 1 {
		t.Errorf("%d of 5 try a server that refused, want 1", n)
	}
	if !r.server[0].open() || r.server[0].open() {
		t.Error("that it takes sessions is news once")
	}
	if n := places(5); n != 5 {
		t.Errorf("%d of 5 sent to a server that takes sessions again", n)
	}
	r.server[0].close(target.Epoch)
	r.server[0].refused.Add(-uint32(forgetRefusal.Milliseconds())) // and who tried it since never told
	if n := places(5); n != 5 {
		t.Errorf("%d of 5 sent to a server that refused long ago", n)
	}
	r.server[0].close(target.Epoch + 1)
	if n := places(1); n != 1 {
		t.Error("a refusal of another reign stops this one's clients")
	}
}

// A CancelRequest goes to the leader, in doubt or without a slot; it never waits.
func TestCancelGoesToTheLeader(t *testing.T) {
	r := table(config.Leader, serverRoute{maxConn: 1})
	b := balancerWith(r)
	bk := r.backends[0]
	bk.reigns = &bk.usable[0]
	cancel := newcomer("10.0.0.1:1000")
	cancel.Cancel = true
	b.Route(newcomer("10.0.0.1:1000")) // takes the one slot
	if ticket, _ := b.Route(cancel); ticket.Place != relay.Slotted {
		t.Errorf("without a slot: place %d", ticket.Place)
	}
	bk.usable = nil // in doubt
	if ticket, _ := b.Route(cancel); ticket.Place != relay.Slotted || ticket.Target.Epoch != 1 {
		t.Errorf("to a leader in doubt: %+v", ticket)
	}
	failed := cancel
	failed.Failed = 0
	if ticket, _ := b.Route(failed); ticket.Place != relay.Nowhere {
		t.Errorf("after a failed connect: place %d", ticket.Place)
	}
	bk.reigns = nil
	if ticket, _ := b.Route(cancel); ticket.Place != relay.Nowhere {
		t.Errorf("without a leader: place %d", ticket.Place)
	}
	if held := r.backend[0].held.Load(); held != 0 {
		t.Errorf("%d are held", held)
	}
}

// TestWaitingIsCounted for the record: who was held, for how long, and who got
// nothing.
func TestWaitingIsCounted(t *testing.T) {
	r := table(config.Leader)
	b, w := balancerWith(r), r.backend[0]
	ask := func(change func(*relay.Request)) relay.Ticket {
		q := newcomer("10.0.0.1:1000")
		change(&q)
		ticket, _ := b.Route(q)
		return ticket
	}
	held := ask(func(*relay.Request) {})
	second := ask(func(*relay.Request) {})
	if got := ask(func(*relay.Request) {}); got.Place != relay.Nowhere {
		t.Fatalf("beyond hold_max: place %d", got.Place)
	}
	ask(func(q *relay.Request) { q.Waited = 2 * time.Minute }) // its connect failed when hold was over
	b.Release(second, relay.ClientAborted)
	// Back from a connect that failed: held a second time, counted once.
	again := ask(func(q *relay.Request) { q.WasHeld = true })
	b.Release(again, relay.ServerTimeout)
	if got, want := w.tally(false), (tally{held: 1, total: 2, left: 1, late: 2, full: 1, most: 2, longest: time.Minute}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := w.tally(true), (tally{held: 1, total: 2, left: 1, late: 2, full: 1, most: 1}); got != want {
		t.Errorf("afresh: %+v, want %+v", got, want)
	}

	led := table(config.Leader, serverRoute{})
	r.backends[0], r.server = led.backends[0], led.server
	if got := ask(func(q *relay.Request) { q.Have, q.WasHeld, q.Waited = held, true, 7*time.Second }); got.Place != relay.Slotted {
		t.Fatalf("place %d", got.Place)
	}
	if got := w.tally(false); got.held != 0 || got.longest != 7*time.Second {
		t.Errorf("%+v", got)
	}
}
