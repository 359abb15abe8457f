// Package simulation is a Patroni cluster to look at and to test against,
// without PostgreSQL: nodes on loopback whose REST API answers in Patroni's
// shapes, and whose SQL port speaks a small line protocol that tells who
// answered and refuses writes on a replica; and clients that write. It knows
// nothing of the balancer between the two.
package simulation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Cluster is some nodes that share one leader lock and one history of writes.
// Its methods may be called from any goroutine.
type Cluster struct {
	// How long the steps of a failover take. Change them before the first.
	Handover  time.Duration // the leader stopped, and the lock is not taken yet
	Promotion time.Duration // the lock is taken, and the node is not writable yet
	Return    time.Duration // the new leader writes, and the old one is not back yet

	nodes   []*Node
	closing context.Context // done when Close is called
	stop    context.CancelFunc
	tasks   sync.WaitGroup // nodes that come back by themselves

	mu     sync.Mutex // guards what follows, and the state of every node
	writes []Write
	lsn    uint64 // bytes of the write-ahead log so far
}

// Write is one WRITE that reached a node.
type Write struct {
	Node     string
	Text     string // as the client named it
	Timeline uint32
	At       time.Time
	Taken    bool // the node was writable; false = answered with an error
	Kept     bool // it also held the leader lock, so the cluster will remember
}

// Change is one failover.
type Change struct {
	From, To string
	Timeline uint32    // the new one
	Stopped  time.Time // the old leader's sessions ended
	Writable time.Time // the new leader takes writes
}

// NewCluster starts a node per name, each on two ports of 127.0.0.1 that the
// kernel chose. The first is the leader, on timeline 1.
func NewCluster(names ...string) (*Cluster, error) {
	c := &Cluster{
		// What a switchover of Patroni 4.1 took on real hosts: 1.4 s in all.
		Handover:  200 * time.Millisecond,
		Promotion: time.Second,
		Return:    1500 * time.Millisecond,
		lsn:       0x3000060, // where initdb and the first base backup leave it
	}
	c.closing, c.stop = context.WithCancel(context.Background())
	for i, name := range names {
		state := State{Role: "replica", Postgres: "running", Timeline: 1}
		if i == 0 {
			state.Role, state.Lock = "primary", true
		}
		n, err := c.newNode(name, state)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("starting node %s: %w", name, err)
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// Close ends every node. No goroutine and no descriptor is left.
func (c *Cluster) Close() {
	c.stop()
	c.tasks.Wait()
	for _, n := range c.nodes {
		n.close()
	}
}

// Nodes returns the nodes in the order of their names given to NewCluster.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Leader returns the node that holds the leader lock and is writable, or nil.
func (c *Cluster) Leader() *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if n.state.Lock && n.state.writable() && n.state.SQL == Open {
			return n
		}
	}
	return nil
}

// TakeWrites returns what reached the nodes since the last call, in order.
func (c *Cluster) TakeWrites() []Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.writes
	c.writes = nil
	return taken
}

// Failover stops the leader's PostgreSQL, ending its sessions, and promotes
// the next running replica. It returns once that is writable; the old leader
// comes back as a replica after Return.
func (c *Cluster) Failover(ctx context.Context) (Change, error) {
	old := c.Leader()
	if old == nil {
		return Change{}, errors.New("there is no leader to fail over from")
	}
	next := c.standbyAfter(old)
	if next == nil {
		return Change{}, errors.New("there is no running replica to fail over to")
	}
	change := Change{From: old.Name, To: next.Name}
	old.Set(func(s *State) { s.Role, s.Postgres, s.Lock, s.SQL = "replica", "stopped", false, Closed })
	change.Stopped = time.Now()
	if err := c.sleep(ctx, c.Handover); err != nil {
		return change, err
	}
	if err := c.Promote(ctx, next); err != nil {
		return change, err
	}
	change.Writable, change.Timeline = time.Now(), next.State().Timeline
	c.tasks.Go(func() {
		if c.sleep(context.Background(), c.Return) == nil {
			old.Recover()
		}
	})
	return change, nil
}

// Promote gives the node the lock, and makes it writable on a new timeline
// after Promotion. Until then its REST API says that it leads, as Patroni's
// does, and PostgreSQL refuses writes. Others lose the lock, but nodes that
// are not reachable do not notice: they believe what they believed.
func (c *Cluster) Promote(ctx context.Context, n *Node) error {
	c.mu.Lock()
	for _, other := range c.nodes {
		if other.state.REST == Open {
			other.state.Lock = other == n
		}
	}
	n.state.Lock = true
	c.mu.Unlock()
	if err := c.sleep(ctx, c.Promotion); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	timeline := c.timelineLocked() + 1
	n.state.Role, n.state.Timeline = "primary", timeline
	for _, other := range c.nodes {
		if other != n && !other.state.writable() && other.state.SQL == Open {
			other.state.Timeline = timeline // replicas follow
		}
	}
	return nil
}

// standbyAfter returns the first running replica after n in the circle.
func (c *Cluster) standbyAfter(n *Node) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.nodes {
		if c.nodes[i] != n {
			continue
		}
		for j := 1; j < len(c.nodes); j++ {
			next := c.nodes[(i+j)%len(c.nodes)]
			if s := next.state; s.Postgres == "running" && !s.writable() && s.SQL == Open && s.REST == Open {
				return next
			}
		}
	}
	return nil
}

// timelineLocked returns the highest timeline of the cluster.
func (c *Cluster) timelineLocked() uint32 {
	highest := uint32(0)
	for _, n := range c.nodes {
		highest = max(highest, n.state.Timeline)
	}
	return highest
}

// sleep waits for d; its error is ctx's, or that the cluster is closing.
func (c *Cluster) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closing.Done():
		return c.closing.Err()
	}
}

// UCI returns a `config server` section per node for the backend of that name.
func (c *Cluster) UCI(backend string) string {
	var text strings.Builder
	for _, n := range c.nodes {
		fmt.Fprintf(&text, "config server '%s'\n", strings.ReplaceAll(n.Name, "-", "_"))
		fmt.Fprintf(&text, "\toption name '%s'\n\toption backend '%s'\n", n.Name, backend)
		fmt.Fprintf(&text, "\toption address '%s'\n\toption check_port '%d'\n\n", n.SQLAddr, n.RESTAddr.Port())
	}
	return text.String()
}
