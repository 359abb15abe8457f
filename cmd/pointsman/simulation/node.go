package simulation

import (
	"errors"
	"net/netip"
	"sync"
)

// State is all that makes a node what it is. A test may set any of it.
type State struct {
	Role      string // of PostgreSQL: "primary" ("master" up to Patroni 3), "replica", or "standby_leader"
	Postgres  string // Patroni's word: "running", "starting", "stopped"
	Timeline  uint32
	Lock      bool   // holds the leader lock, or believes so: GET /primary is 200
	Lags      bool   // GET /replica?lag=… is 503
	SQL, REST Mode   // of the two ports
	Answer    []byte // sent to every REST request instead of Patroni's answer; nil = Patroni's
}

func (s State) writable() bool {
	return (s.Role == "primary" || s.Role == "master") && s.Postgres == "running"
}

// Node is one PostgreSQL under one Patroni.
type Node struct {
	Name              string
	SQLAddr, RESTAddr netip.AddrPort

	cluster   *Cluster
	state     State // guarded by cluster.mu
	setting   sync.Mutex
	sql, rest *port
}

func (c *Cluster) newNode(name string, state State) (*Node, error) {
	n := &Node{Name: name, cluster: c, state: state}
	var err error
	if n.sql, err = newPort(n.serveSQL); err != nil {
		return nil, err
	}
	if n.rest, err = newPort(n.serveREST); err != nil {
		n.sql.release()
		return nil, err
	}
	n.SQLAddr, n.RESTAddr = n.sql.addr, n.rest.addr
	if err := errors.Join(n.sql.set(state.SQL), n.rest.set(state.REST)); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *Node) close() {
	n.Set(func(s *State) { s.SQL, s.REST = Closed, Closed })
	n.sql.release()
	n.rest.release()
}

// State returns the node's state now.
func (n *Node) State() State {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.state
}

// Set changes the node's state. When it returns no write is taken any more
// that the new state refuses, and the ports are as it says. It panics if a
// port cannot be opened, which the reservation of the number prevents.
func (n *Node) Set(change func(*State)) {
	n.setting.Lock()
	defer n.setting.Unlock()
	n.cluster.mu.Lock()
	change(&n.state)
	state := n.state
	n.cluster.mu.Unlock()
	if err := errors.Join(n.sql.set(state.SQL), n.rest.set(state.REST)); err != nil {
		panic("simulation: " + err.Error())
	}
}

// Crash ends PostgreSQL and Patroni at once. The lock is not given up: it
// stays until somebody is promoted.
func (n *Node) Crash() {
	n.Set(func(s *State) { s.Postgres, s.SQL, s.REST = "stopped", Closed, Closed })
}

// Freeze makes the node silent, as a host that vanished: connects are not
// answered, nor is anything that its sessions send.
func (n *Node) Freeze() {
	n.Set(func(s *State) { s.SQL, s.REST = Frozen, Frozen })
}

// Recover brings the node back as a replica that follows the leader; a node
// that still holds the lock comes back as what it was.
func (n *Node) Recover() {
	n.Set(func(s *State) {
		s.Postgres, s.SQL, s.REST, s.Answer = "running", Open, Open, nil
		for _, other := range n.cluster.nodes {
			if other != n && other.state.Lock {
				s.Role, s.Lock, s.Timeline = "replica", false, n.cluster.timelineLocked()
			}
		}
	})
}
