package balancer

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"pointsman/balancer/relay"
	"pointsman/config"
)

// routes is everything that the loops need to place a client. The owner makes
// a new one for each change and publishes it; nothing in it changes but the
// counts behind the pointers.
type routes struct {
	frontends []int32         // by frontend number: its backend's number, -1 = none
	backends  []*backendRoute // by backend number; nil = removed
	backend   []*waiting      // by backend number, removed ones too
	server    []*slots        // by server number, removed ones too

	frontendNames, backendNames, serverNames []string // by number, for the log
}

// slots counts the sessions of a server, and knows whether it takes any.
type slots struct {
	taken   atomic.Int32
	shut    atomic.Uint32 // the epoch in which it takes connections, but no sessions; 0 = none
	tried   atomic.Uint32 // when a client tried it last all the same: ms since processStart
	refused atomic.Uint32 // when it refused one last
}

// forgetRefusal is when nobody has been refused for so long that all may try
// again, although no session has told that it was taken: plain TCP ones never do,
// nor those that begin with TLS.
const forgetRefusal = 8 * retry

var processStart = time.Now()

// close notes that the server takes no sessions.
func (s *slots) close(epoch relay.Epoch) {
	now := uint32(time.Since(processStart).Milliseconds())
	s.tried.Store(now)
	s.refused.Store(now)
	s.shut.Store(uint32(epoch))
}

// open notes that it takes sessions, and reports whether that is news.
func (s *slots) open() bool { return s.shut.Swap(0) != 0 }

// mayTry reports whether a client may be sent to the server. While it takes no
// sessions, one client per retry finds out whether it does again: a PostgreSQL
// that starts up has better to do than to refuse a thousand of them.
func (s *slots) mayTry(epoch relay.Epoch) bool {
	if s.shut.Load() != uint32(epoch) || epoch == 0 {
		return true
	}
	now, last := uint32(time.Since(processStart).Milliseconds()), s.tried.Load()
	if now-s.refused.Load() >= uint32(forgetRefusal.Milliseconds()) {
		return true
	}
	return now-last >= uint32(retry.Milliseconds()) && s.tried.CompareAndSwap(last, now)
}

// take occupies one of max slots, 0 = no limit.
func (s *slots) take(max int32) bool {
	if n := s.taken.Add(1); max > 0 && n > max {
		s.taken.Add(-1)
		return false
	}
	return true
}

// backendRoute is how one backend places clients now.
type backendRoute struct {
	policy  config.Policy
	members []*slots      // of all its servers
	usable  []serverRoute // servers that may get new sessions; for leader: it, or nobody
	reigns  *serverRoute  // the leader, in doubt too; nil = there is none, or another policy
	order   []int32       // indices of usable, each as often as its weight says, well mixed
	hold    time.Duration
	holdMax int32
	queue   time.Duration // limit of the wait for a slot

	// For those who get no server.
	name    string
	leader  string    // the present one, or the last there was; "" = none yet, or another policy
	without time.Time // since when it gets no sessions; zero = it does, or another policy
}

// excuse says why a client gets no server.
func (b *backendRoute) excuse(now time.Time) string {
	switch {
	case len(b.usable) > 0:
		return fmt.Sprintf("no server of %s takes another session now", b.name)
	case b.policy != config.Leader:
		return fmt.Sprintf("no server of %s is up", b.name)
	case b.leader == "":
		return fmt.Sprintf("no leader for %s since the start %s ago", b.name, seconds(now.Sub(b.without)))
	}
	return fmt.Sprintf("no leader for %s since %s; last leader %s", b.name, seconds(now.Sub(b.without)), b.leader)
}

// seconds writes a duration as people say it: "31 s".
func seconds(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }

type serverRoute struct {
	target  relay.Target
	maxConn int32
	weight  int32
	slots   *slots
}

// take occupies a slot, if the server takes sessions and has one.
func (s *serverRoute) take() bool {
	return s.slots.mayTry(s.target.Epoch) && s.slots.take(s.maxConn)
}

// Route implements relay.Director.
func (b *Balancer) Route(q relay.Request) (relay.Ticket, time.Duration) {
	r := b.routes.Load()
	if n := r.frontends[q.Frontend]; n >= 0 && r.backends[n] != nil {
		t, limit := r.place(n, q)
		// A place to wait in is kept; a slot is always taken anew.
		if t != q.Have || t.Place == relay.Slotted {
			b.giveBack(q.Have)
		}
		return t, limit
	}
	b.giveBack(q.Have)
	return relay.Ticket{}, 0
}

// Release implements relay.Director.
func (b *Balancer) Release(t relay.Ticket, c relay.Cause) {
	if t.Place == relay.Held {
		b.routes.Load().ended(t, c)
	}
	b.giveBack(t)
}

// ended counts how a hold ended without a server.
func (r *routes) ended(t relay.Ticket, c relay.Cause) {
	hold := time.Duration(0)
	if b := r.backends[t.Backend]; b != nil {
		hold = b.hold
	}
	r.backend[t.Backend].ended(c, hold)
}

// giveBack gives back a place; where clients wait for a slot they are asked for
// again.
func (b *Balancer) giveBack(t relay.Ticket) {
	r := b.routes.Load()
	r.release(t)
	if t.Place == relay.Slotted && r.backend[t.Backend].queued.Load() > 0 {
		b.engine.Wake(t.Backend)
	}
}

func (r *routes) release(t relay.Ticket) {
	switch t.Place {
	case relay.Held:
		r.backend[t.Backend].held.Add(-1)
	case relay.Queued:
		r.backend[t.Backend].queued.Add(-1)
	case relay.Slotted:
		r.server[t.Target.Server].taken.Add(-1)
	}
}

// place finds a place for the client in backend n and occupies it. A place of
// the same kind that it has already stays occupied once: it is not taken again.
func (r *routes) place(n int32, q relay.Request) (relay.Ticket, time.Duration) {
	b, w := r.backends[n], r.backend[n]
	if q.Cancel {
		return b.cancel(n, q, w), 0
	}
	if s := b.choose(q, w); s != nil {
		if q.WasHeld {
			w.lasted(q.Waited)
		}
		return relay.Ticket{Place: relay.Slotted, Backend: n, Target: s.target}, 0
	}
	kind, limit := relay.Held, b.hold
	if b.full(q.Failed) {
		kind, limit = relay.Queued, q.Waited+b.queue
	}
	t := relay.Ticket{Place: kind, Backend: n}
	switch {
	case t == q.Have && kind == relay.Queued:
		return t, q.Limit
	case t == q.Have:
		return t, limit
	case q.Waited >= limit:
		if kind == relay.Held {
			w.late.Add(1)
		}
	case kind == relay.Queued:
		w.queued.Add(1)
		// A slot that was freed just before found nobody queued to wake.
		if s := b.choose(q, w); s != nil {
			w.queued.Add(-1)
			return relay.Ticket{Place: relay.Slotted, Backend: n, Target: s.target}, 0
		}
		return t, limit
	case w.take(b.holdMax, q.WasHeld):
		return t, limit
	}
	return relay.Ticket{}, 0
}

// cancel places a CancelRequest: with the leader, in doubt or not, as it has the
// session that is meant, and though it has no slot free; under another policy,
// as a session would be placed. It waits for nothing.
func (b *backendRoute) cancel(n int32, q relay.Request, w *waiting) relay.Ticket {
	s := b.reigns
	switch {
	case q.Failed >= 0:
		s = nil
	case b.policy != config.Leader:
		s = b.choose(q, w)
	case s != nil:
		s.slots.take(0)
	}
	if s == nil {
		return relay.Ticket{}
	}
	return relay.Ticket{Place: relay.Slotted, Backend: n, Target: s.target}
}

// choose takes a slot on a server by the backend's policy, or returns nil. A
// server whose connect just failed is passed over; with no other, the client
// waits.
func (b *backendRoute) choose(q relay.Request, w *waiting) *serverRoute {
	// As many failures as there are servers: every one had its turn. Rest.
	if q.Failed >= 0 && q.Failures%max(len(b.usable), 1) == 0 {
		return nil
	}
	try := func(i int32) *serverRoute {
		s := &b.usable[i]
		if s.target.Server == q.Failed || !s.take() {
			return nil
		}
		return s
	}
	switch {
	case len(b.usable) == 0:
	case b.policy == config.Leader:
		return try(0)
	case b.policy == config.Source:
		// The server that the address belongs to, and no other unless it failed:
		// what is full is waited for, as in HAProxy.
		at := hash(q.Client.Addr())
		for i := range uint32(len(b.order)) {
			n := b.order[(at+i)%uint32(len(b.order))]
			if b.usable[n].target.Server != q.Failed {
				return try(n)
			}
		}
	case b.policy == config.First:
		for i := range b.usable {
			if s := try(int32(i)); s != nil {
				return s
			}
		}
	case b.policy == config.LeastConn:
		return b.leastConn(q, w)
	default:
		at := w.turn.Add(1)
		for i := range uint32(len(b.order)) {
			if s := try(b.order[(at+i)%uint32(len(b.order))]); s != nil {
				return s
			}
		}
	}
	return nil
}

// leastConn takes the server with the fewest sessions for its weight; equals
// take turns.
func (b *backendRoute) leastConn(q relay.Request, w *waiting) *serverRoute {
	n := uint32(len(b.usable))
	at := w.turn.Add(1)
	for range b.usable { // another loop may take the last slot in between
		var best *serverRoute
		var bestTaken int64
		for i := range n {
			s := &b.usable[(at+i)%n]
			taken := int64(s.slots.taken.Load())
			if s.target.Server == q.Failed || (s.maxConn > 0 && taken >= int64(s.maxConn)) {
				continue
			}
			if best == nil || taken*int64(best.weight) < bestTaken*int64(s.weight) {
				best, bestTaken = s, taken
			}
		}
		if best == nil || best.take() {
			return best
		}
	}
	return nil
}

// full reports whether some server could be had but for its maxconn.
func (b *backendRoute) full(failed int32) bool {
	for i := range b.usable {
		s := &b.usable[i]
		if s.target.Server != failed && s.maxConn > 0 && s.slots.taken.Load() >= s.maxConn {
			return true
		}
	}
	return false
}

// hash spreads client addresses evenly and the same way after every start:
// 32-bit FNV-1a with Murmur3's finalizer, as FNV alone leaves the low bits of
// neighbouring addresses alike.
func hash(a netip.Addr) uint32 {
	h := uint32(2166136261)
	bytes := a.As16()
	for _, c := range bytes {
		h = (h ^ uint32(c)) * 16777619
	}
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}

// spread returns indices of weights, each as often as its weight, evenly
// mixed (a smooth weighted round robin written out). Weights are divided by
// their greatest common divisor first.
func spread(weights []int32) []int32 {
	divisor, total := int32(0), int32(0)
	for _, w := range weights {
		divisor = gcd(divisor, w)
	}
	if divisor == 0 {
		return nil
	}
	credit := make([]int32, len(weights))
	for _, w := range weights {
		total += w / divisor
	}
	order := make([]int32, 0, total)
	for range total {
		best := 0
		for i, w := range weights {
			credit[i] += w / divisor
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		order = append(order, int32(best))
	}
	return order
}

func gcd(a, b int32) int32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
