package relay

import (
	"sync"
	"sync/atomic"
	"time"
)

// publishEvery bounds the age of what Counters tells.
const publishEvery = 200 * time.Millisecond

// tally is a loop's own counters by number. 64-bit atomics are a lock on
// 32-bit MIPS, so a loop counts for itself, and copies what it counted now and
// then to where others may look.
type tally []Counters

// at returns the counters of a number, which from then on exist.
func (t *tally) at(id int32) *Counters {
	for int(id) >= len(*t) {
		*t = append(*t, Counters{})
	}
	return &(*t)[id]
}

// Load is what one loop carries.
type Load struct {
	Sessions int // clients, waiting ones included
	Waiting  int // of them, without a server
	Pipes    int // open, pooled ones included
	Chunks   int // that hold bytes
	Unsure   int // sides with written data that may not be acknowledged
}

// published is a copy of a loop's counters.
type published struct {
	sync.Mutex
	frontends, servers tally
	load               Load
}

// publish copies the counters. If somebody is just reading them it reports
// false: a loop waits for nobody.
func (l *loop) publish() bool {
	if !l.published.TryLock() {
		return false
	}
	defer l.published.Unlock()
	p := &l.published
	p.frontends = append(p.frontends[:0], l.frontends...)
	p.servers = append(p.servers[:0], l.servers...)
	p.load = Load{Sessions: l.sessions.live, Waiting: int(l.wakeable.Load()), Pipes: l.pipesOpen, Chunks: l.chunksUsed, Unsure: l.sweep.unsure}
	return true
}

// Counters returns the totals of frontends and servers by number, at most
// 250 ms old. Current and MaxSeen are exact.
func (e *Engine) Counters() (frontends, servers map[int32]Counters) {
	frontends, servers = map[int32]Counters{}, map[int32]Counters{}
	for _, l := range e.loops {
		l.published.Lock()
		sum(frontends, l.published.frontends)
		sum(servers, l.published.servers)
		l.published.Unlock()
	}
	for id, f := range *e.frontendTable.Load() {
		f.clients.tell(frontends, int32(id))
	}
	for id, g := range *e.serverTable.Load() {
		g.tell(servers, int32(id))
	}
	return frontends, servers
}

func sum(into map[int32]Counters, t tally) {
	for id := range t {
		c := into[int32(id)]
		c.Total += t[id].Total
		c.In += t[id].In
		c.Out += t[id].Out
		c.Refused += t[id].Refused
		for cause, n := range t[id].Ended {
			c.Ended[cause] += n
		}
		into[int32(id)] = c
	}
}

// Loads returns what each loop carries, at most 250 ms old.
func (e *Engine) Loads() []Load {
	loads := make([]Load, 0, len(e.loops))
	for _, l := range e.loops {
		l.published.Lock()
		loads = append(loads, l.published.load)
		l.published.Unlock()
	}
	return loads
}

// gauge counts what all loops have at present, and the most there ever was.
type gauge struct{ current, most atomic.Int32 }

func (g *gauge) join() {
	g.current.Add(1)
	g.mark()
}

// mark keeps the most up to date after current grew.
func (g *gauge) mark() {
	for {
		n, most := g.current.Load(), g.most.Load()
		if n <= most || g.most.CompareAndSwap(most, n) {
			return
		}
	}
}

func (g *gauge) tell(into map[int32]Counters, id int32) {
	c := into[id]
	c.Current, c.MaxSeen = int64(g.current.Load()), int64(g.most.Load())
	into[id] = c
}
