package balancer

import (
	"sync/atomic"
	"time"

	"pointsman/balancer/relay"
)

// waiting counts the clients that wait for a backend. The loops count, the
// owner reads. Totals of 32 bits, as routers have no others: they may wrap, and
// only their differences mean something.
type waiting struct {
	held, queued atomic.Int32
	turn         atomic.Uint32 // of roundrobin, and of leastconn's ties

	total, left, late, full atomic.Uint32 // held ones: all, gave up, refused by hold, refused by hold_max
	most                    atomic.Int32  // held at once since the last fresh tally
	longest                 atomic.Uint32 // hold since then, ms
}

// tally is what waiting has counted. Totals only grow; most and longest are of
// the time since the last fresh tally.
type tally struct {
	held                    int32 // now
	total, left, late, full uint32
	most                    int32
	longest                 time.Duration
}

// take counts a client that is held from now on, unless max are already.
func (w *waiting) take(max int32, before bool) bool {
	n := w.held.Add(1)
	if n > max {
		w.held.Add(-1)
		w.full.Add(1)
		return false
	}
	if !before {
		w.total.Add(1)
	}
	for most := w.most.Load(); n > most && !w.most.CompareAndSwap(most, n); most = w.most.Load() {
	}
	return true
}

// lasted takes in how long a client was held.
func (w *waiting) lasted(d time.Duration) {
	n := uint32(d.Milliseconds())
	for longest := w.longest.Load(); n > longest && !w.longest.CompareAndSwap(longest, n); longest = w.longest.Load() {
	}
}

// ended takes in why a held client is held no more, where it got no server.
func (w *waiting) ended(c relay.Cause, hold time.Duration) {
	switch c {
	case relay.ServerTimeout:
		w.late.Add(1)
		w.lasted(hold)
	case relay.ClientAborted, relay.ClientTimeout:
		w.left.Add(1)
	}
}

// tally reads the counts. A fresh one begins most and longest anew.
func (w *waiting) tally(fresh bool) tally {
	if fresh {
		w.most.Store(w.held.Load())
		w.longest.Store(0)
	}
	return tally{
		held: w.held.Load(), total: w.total.Load(), left: w.left.Load(), late: w.late.Load(), full: w.full.Load(),
		most: w.most.Load(), longest: time.Duration(w.longest.Load()) * time.Millisecond,
	}
}
