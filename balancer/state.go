package balancer

import (
	"net/netip"
	"time"

	"pointsman/balancer/relay"
	"pointsman/config"
	"pointsman/healthcheck"
)

// listener is an address that frontends listen on.
type listener struct {
	id       relay.ListenerID
	addr     netip.AddrPort
	frontend int32
}

// frontend is one frontend of the running configuration.
type frontend struct {
	id      int32
	cfg     config.Frontend
	backend *backend // nil = newcomers are refused
}

// backend is one backend of the running configuration.
type backend struct {
	id       int32
	cfg      config.Backend // its Servers are in servers
	servers  []*server
	waiting  *waiting
	follower *follower // policy leader only
	recorder *recorder // the same
	reigns   []reign   // all that were not fenced, the current ones included
	resolver func()    // stops the resolver; nil = no names

	transition bool
	hinted     time.Time // the last hint
	lastLeader string    // the present one, or the last there was
	changes    uint64
}

// reign is one epoch of one server.
type reign struct {
	epoch  relay.Epoch
	server int32
}

// server is one server of the running configuration.
type server struct {
	id      int32
	cfg     config.Server
	backend *backend
	index   int            // in backend.servers
	addr    netip.AddrPort // where sessions go; invalid while its name has no address
	slots   *slots
	epoch   relay.Epoch // of its present reign; 0 = none

	prober     healthcheck.Prober   // nil: check 'none'
	counter    *healthcheck.Counter // the monitor's while it runs
	monitor    *healthcheck.Monitor // nil: no check, or no address
	stop       func()               // ends the monitor and waits for it
	generation uint32

	last    healthcheck.Report
	asked   bool
	changed time.Time // last.Up
	due     time.Time // by when the next report must come
	closes  burst
	bad     uint64 // probes that failed
	downs   uint64 // UP -> DOWN
}

// check is where the server's probes go.
func (s *server) check() netip.AddrPort {
	if s.cfg.CheckPort == 0 {
		return s.addr
	}
	return netip.AddrPortFrom(s.addr.Addr(), s.cfg.CheckPort)
}

// usable reports whether the server may get new sessions under a policy other
// than leader.
func (s *server) usable() bool { return s.last.Up && s.addr.IsValid() && s.cfg.Weight > 0 }

// counting reports whether the server's counter is on its way up or down.
func (s *server) counting() bool { return s.asked && s.last.Up != s.last.OK() }

// ends reports whether the sessions of a server that is DOWN end, under a
// policy other than leader. What drains is ended once its server is dead:
// nobody would ever tell those clients.
func (s *server) ends() bool {
	switch s.backend.cfg.OnMarkedDown {
	case config.ShutdownSessions:
		return true
	case config.DrainSessions:
		return s.last.Dead
	}
	return false
}

// leader returns the leader of a backend, or nil.
func (bk *backend) leader() *server {
	if bk.follower == nil || bk.follower.past.leader < 0 {
		return nil
	}
	return bk.servers[bk.follower.past.leader]
}

// leading is how a backend of policy leader is led, for its recorder.
func (bk *backend) leading() leading {
	f := bk.follower
	l := leading{accepting: f.accepting, loud: f.loud, reason: f.reason}
	if leader := bk.leader(); leader != nil {
		l.leader, l.epoch, l.timeline = leader.cfg.Name, uint32(leader.epoch), f.reign
	}
	return l
}

// tally counts who waits; afresh unless something is being written down.
func (bk *backend) tally() tally { return bk.waiting.tally(bk.recorder.idle()) }

// up counts the servers that are UP, without and with option backup.
func (bk *backend) up() (active, backup int) {
	for _, s := range bk.servers {
		switch {
		case !s.last.Up:
		case s.cfg.Backup:
			backup++
		default:
			active++
		}
	}
	return active, backup
}

// publish makes the loops see the owner's state. It comes before the orders
// that follow from it (Fence, Recall, Wake): a loop that obeys an order then
// asks for routes that agree with it.
func (b *Balancer) publish() {
	r := &routes{backend: b.next.backend, server: b.next.server,
		frontends: make([]int32, len(b.next.frontends)), backends: make([]*backendRoute, len(b.next.backend)),
		frontendNames: b.next.frontendNames, backendNames: b.next.backendNames, serverNames: b.next.serverNames}
	for i := range r.frontends {
		r.frontends[i] = -1
	}
	for _, f := range b.frontends {
		if f.backend != nil {
			r.frontends[f.id] = f.backend.id
		}
	}
	for _, bk := range b.backends {
		r.backends[bk.id] = bk.route()
	}
	b.routes.Store(r)
}

// route is how the backend places clients in its present state.
func (bk *backend) route() *backendRoute {
	r := &backendRoute{policy: bk.cfg.Policy, hold: bk.cfg.Hold, holdMax: int32(bk.cfg.HoldMax), queue: bk.cfg.TimeoutQueue,
		name: bk.cfg.Name, leader: bk.lastLeader}
	if bk.follower != nil {
		r.without = bk.follower.doubted
	}
	if r.queue == 0 {
		r.queue = bk.cfg.TimeoutConnect
	}
	for _, s := range bk.servers {
		r.members = append(r.members, s.slots)
	}
	for _, s := range bk.eligible() {
		r.usable = append(r.usable, s.route())
	}
	if leader := bk.leader(); leader != nil {
		route := leader.route()
		r.reigns = &route
	}
	weights := make([]int32, len(r.usable))
	for i := range r.usable {
		weights[i] = r.usable[i].weight
	}
	r.order = spread(weights)
	return r
}

func (s *server) route() serverRoute {
	return serverRoute{target: relay.Target{Addr: s.addr, Server: s.id, Epoch: s.epoch},
		maxConn: int32(s.cfg.MaxConn), weight: int32(s.cfg.Weight), slots: s.slots}
}

// eligible returns the servers that may get new sessions now.
func (bk *backend) eligible() []*server {
	if bk.follower != nil {
		if leader := bk.leader(); leader != nil && bk.follower.accepting {
			return []*server{leader}
		}
		return nil
	}
	var active, backups []*server
	for _, s := range bk.servers {
		switch {
		case !s.usable():
		case s.cfg.Backup:
			backups = append(backups, s)
		default:
			active = append(active, s)
		}
	}
	if len(active) == 0 && len(backups) > 0 {
		return backups[:1] // as HAProxy without `option allbackups`
	}
	return active
}
