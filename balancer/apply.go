package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"time"

	"pointsman/balancer/relay"
	"pointsman/config"
	"pointsman/healthcheck"
)

// errEnded is the answer to calls after the end of Run.
var errEnded = errors.New("the balancer has ended")

// Apply makes cfg the running configuration, or changes nothing and says why.
// What stays keeps its sessions, counters and health; a server is the same if
// its backend, name and address are. It waits for Run to carry it out.
func (b *Balancer) Apply(cfg config.Config) error {
	err := errEnded
	b.do(func() { err = b.apply(cfg) })
	return err
}

// apply first does what can fail (probers read files, listeners bind), then
// commits.
func (b *Balancer) apply(cfg config.Config) error {
	probers, err := buildProbers(&cfg)
	if err != nil {
		return err
	}
	stores, err := b.buildStores(&cfg)
	if err != nil {
		return err
	}
	listeners, undo, err := b.bind(&cfg)
	if err != nil {
		undo()
		return err
	}
	b.commit(cfg, listeners, probers)
	b.commitStores(stores)
	return nil
}

// place names a server: its backend's name and its own.
type place struct{ backend, server string }

func buildProbers(cfg *config.Config) (map[place]healthcheck.Prober, error) {
	probers := map[place]healthcheck.Prober{}
	var errs []error
	for i := range cfg.Backends {
		bk := &cfg.Backends[i]
		if bk.Check == config.CheckNone {
			continue
		}
		for j := range bk.Servers {
			s := &bk.Servers[j]
			p, err := healthcheck.NewProber(bk, s, s.Address.Host)
			if err != nil {
				errs = append(errs, fmt.Errorf("backend '%s': %w", bk.Name, err))
				break // the same files for all of its servers
			}
			probers[place{bk.Name, s.Name}] = p
		}
	}
	return probers, errors.Join(errs...)
}

// bind opens the listeners that cfg has and the running configuration lacks.
// An old listener that is in a new one's way (the wildcard of its port) is
// closed first, and opened again by undo.
func (b *Balancer) bind(cfg *config.Config) (all []*listener, undo func(), err error) {
	var opened []*listener
	var closed []*listener
	undo = func() {
		for _, l := range opened {
			b.engine.Unlisten(l.id)
		}
		for _, l := range closed {
			if id, err := b.engine.Listen(l.frontend, l.addr); err == nil {
				l.id = id
			} else {
				b.log.Error("listening again after a configuration that could not be taken", "address", l.addr, "error", err)
			}
		}
	}
	wanted := map[netip.AddrPort]bool{}
	for _, f := range cfg.Frontends {
		for _, addr := range f.Binds {
			wanted[addr] = true
		}
	}
	stale := slices.Clone(b.listeners)
	stale = slices.DeleteFunc(stale, func(l *listener) bool { return wanted[l.addr] })
	for i := range cfg.Frontends {
		f := &cfg.Frontends[i]
		for _, addr := range f.Binds {
			if have := b.listenerAt(addr); have != nil {
				all = append(all, have)
				continue
			}
			id, err := b.engine.Listen(-1, addr)
			if errors.Is(err, syscall.EADDRINUSE) {
				for _, l := range stale {
					if l.addr.Port() == addr.Port() && !slices.Contains(closed, l) {
						b.engine.Unlisten(l.id)
						closed = append(closed, l)
					}
				}
				id, err = b.engine.Listen(-1, addr)
			}
			if err != nil {
				return nil, undo, fmt.Errorf("frontend '%s': %w", f.Name, explainBind(err))
			}
			opened = append(opened, &listener{id: id, addr: addr, frontend: -1})
			all = append(all, opened[len(opened)-1])
		}
	}
	return all, undo, nil
}

// explainBind says what to do about the usual errors.
func explainBind(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program listens there (`netstat -lntp` or `ss -lntp` tells which; HAProxy, if it still runs)", err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: ports below 1024 need root or the capability NET_BIND_SERVICE", err)
	}
	return err
}

func (b *Balancer) listenerAt(addr netip.AddrPort) *listener {
	for _, l := range b.listeners {
		if l.addr == addr {
			return l
		}
	}
	return nil
}

// commit makes cfg the state. Nothing in it can fail.
func (b *Balancer) commit(cfg config.Config, listeners []*listener, probers map[place]healthcheck.Prober) {
	now := time.Now()
	oldBackends, oldListeners := b.backends, b.listeners
	b.cfg = cfg
	b.backends = nil
	for i := range cfg.Backends {
		bk := b.findBackend(oldBackends, cfg.Backends[i].Name)
		if bk == nil {
			bk = b.addBackend(cfg.Backends[i].Name)
		}
		b.backends = append(b.backends, bk)
		b.reshape(bk, cfg.Backends[i], probers, now)
	}
	moved := b.commitFrontends(listeners)
	b.publish()
	// A loop that is given a listener asks for routes at once.
	for _, l := range moved {
		b.engine.Assign(l.id, l.frontend)
	}
	for _, l := range oldListeners {
		if !slices.Contains(listeners, l) {
			b.engine.Unlisten(l.id)
		}
	}
	for _, bk := range oldBackends {
		if !slices.Contains(b.backends, bk) {
			b.removeBackend(bk)
		}
	}
	for _, bk := range b.backends {
		b.sweepRemoved(bk)
		if bk.follower != nil {
			b.follow(bk, bk.follower.decide(now), func(int) {})
		} else {
			b.serve(bk)
		}
		b.pace(bk)
	}
	b.engine.Wake(-1)
}

func (b *Balancer) findBackend(in []*backend, name string) *backend {
	for _, bk := range in {
		if bk.cfg.Name == name {
			return bk
		}
	}
	return nil
}

func (b *Balancer) addBackend(name string) *backend {
	bk := &backend{id: int32(len(b.next.backend)), waiting: &waiting{}}
	b.next.backend = append(b.next.backend, bk.waiting)
	b.next.backendNames = append(b.next.backendNames, name)
	return bk
}

// commitFrontends gives each listener its frontend, and each frontend its
// backend. It returns the listeners that the loops have yet to be told of.
func (b *Balancer) commitFrontends(listeners []*listener) (moved []*listener) {
	old := b.frontends
	b.frontends, b.listeners = nil, listeners
	at := 0
	for _, cfg := range b.cfg.Frontends {
		var f *frontend
		for _, o := range old {
			if o.cfg.Name == cfg.Name {
				f = o
			}
		}
		if f == nil {
			f = &frontend{id: int32(len(b.next.frontends))}
			b.next.frontends = append(b.next.frontends, -1)
			b.next.frontendNames = append(b.next.frontendNames, cfg.Name)
		}
		f.cfg, f.backend = cfg, b.findBackend(b.backends, cfg.DefaultBackend)
		b.frontends = append(b.frontends, f)
		b.engine.SetFrontend(f.id, relay.FrontendOptions{
			MaxConn: cfg.MaxConn, Timeout: cfg.TimeoutClient, TimeoutFin: cfg.TimeoutClientFin,
			LogSessions: cfg.TCPLog || b.cfg.Global.LogLevel == config.LogDebug,
			PostgreSQL:  cfg.Protocol == config.PostgreSQL,
		})
		for range cfg.Binds {
			if l := listeners[at]; l.frontend != f.id {
				l.frontend = f.id
				moved = append(moved, l)
			}
			at++
		}
	}
	return moved
}

// reshape gives a backend its new settings and servers.
func (b *Balancer) reshape(bk *backend, cfg config.Backend, probers map[place]healthcheck.Prober, now time.Time) {
	oldCfg, oldServers := bk.cfg, bk.servers
	bk.cfg = cfg
	bk.cfg.Servers = nil
	b.engine.SetBackend(bk.id, relay.BackendOptions{
		TimeoutConnect: cfg.TimeoutConnect, Timeout: cfg.TimeoutServer, TimeoutFin: cfg.TimeoutServerFin, Retry: retry,
		Primary: cfg.Policy == config.Leader && healthcheck.AsksForPrimary(cfg.CheckURI),
	})
	bk.servers = nil
	var names []string
	for i, sc := range cfg.Servers {
		var s *server
		for _, o := range oldServers {
			if o.cfg.Name == sc.Name && o.cfg.Address == sc.Address {
				s = o
			}
		}
		if s == nil {
			s = b.addServer(bk, sc)
		}
		s.index = i
		bk.servers = append(bk.servers, s)
		names = append(names, sc.Name)
		if s.monitor != nil && (!reflect.DeepEqual(oldCfg, bk.cfg) || s.cfg != sc || bk.cfg.CheckTLS) {
			s.stop() // its settings changed, or the files behind them may have
		}
		s.cfg = sc
	}
	for _, o := range oldServers {
		if !slices.Contains(bk.servers, o) {
			b.forget(o)
		}
	}
	bk.follow(now, names, oldServers)
	b.keepRecord(bk, now)
	for _, s := range bk.servers {
		if s.monitor == nil {
			b.watch(s, probers[place{cfg.Name, s.cfg.Name}])
		}
	}
	b.resolve(bk)
}

// follow fits the backend's follower to its policy and servers. A leader that
// is still there goes on leading.
func (bk *backend) follow(now time.Time, names []string, old []*server) {
	if bk.cfg.Policy != config.Leader {
		bk.follower = nil
		return
	}
	was := bk.follower
	if was == nil {
		bk.follower = newFollower(now, names)
		return
	}
	bk.follower = was.reshaped(now, names, func(i int) int { return slices.Index(bk.servers, old[i]) })
}

// keepRecord gives a backend of policy leader its recorder, and ends that of
// one which has become another.
func (b *Balancer) keepRecord(bk *backend, now time.Time) {
	switch {
	case bk.follower == nil && bk.recorder == nil:
	case bk.follower == nil:
		bk.recorder.abandon(now, bk.tally())
		bk.recorder = nil
	case bk.recorder == nil:
		bk.recorder = newRecorder(now, bk.cfg.Name, &b.history, bk.waiting.tally(true))
	default:
		bk.recorder.reloaded(now)
	}
}

func (b *Balancer) addServer(bk *backend, sc config.Server) *server {
	s := &server{id: int32(len(b.next.server)), cfg: sc, backend: bk, slots: &slots{}, changed: time.Now(),
		counter: healthcheck.NewCounter(bk.cfg.Rise, bk.cfg.Fall)}
	s.addr, _ = sc.Address.Literal()
	b.next.server = append(b.next.server, s.slots)
	b.next.serverNames = append(b.next.serverNames, sc.Name)
	b.servers[s.id] = s
	return s
}

// forget stops watching a server that the configuration no longer has.
func (b *Balancer) forget(s *server) {
	if s.monitor != nil {
		s.stop()
	}
	delete(b.servers, s.id)
	if r := s.backend.recorder; r != nil {
		delete(r.servers, s.cfg.Name)
	}
}

// sweepRemoved ends the sessions of servers that are gone, or leaves them to
// the next leader's fence.
func (b *Balancer) sweepRemoved(bk *backend) {
	if bk.cfg.OnRemoved == config.RemovedDrain {
		return
	}
	gone := func(r reign) bool { return b.servers[r.server] == nil }
	if ended := b.fence(bk, gone)(); ended > 0 {
		b.log.Warn(fmt.Sprintf("servers were removed from %s: %d of their sessions ended", bk.cfg.Name, ended))
	}
}

func (b *Balancer) removeBackend(bk *backend) {
	if bk.recorder != nil {
		bk.recorder.abandon(time.Now(), bk.tally())
	}
	for _, s := range bk.servers {
		b.forget(s)
	}
	if bk.resolver != nil {
		bk.resolver()
	}
	b.sweepRemoved(bk)
}
