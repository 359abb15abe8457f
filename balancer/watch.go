package balancer

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"pointsman/config"
	"pointsman/healthcheck"
)

// watch starts the checks of a server, as far as it has an address to check.
func (b *Balancer) watch(s *server, p healthcheck.Prober) {
	bk := &s.backend.cfg
	s.prober = p
	switch {
	case p == nil: // check 'none'
		s.asked = true
		s.last = healthcheck.Report{Server: s.id, At: time.Now(), Up: true,
			Result: healthcheck.Result{Class: healthcheck.Passed, Reason: "no check"}}
		return
	case !s.addr.IsValid():
		return // the resolver will come back to it
	}
	s.counter.Resize(bk.Rise, bk.Fall)
	b.generation++
	generation := b.generation
	s.generation = generation
	ctx, cancel := context.WithCancel(b.ctx)
	drains := bk.OnMarkedDown == config.DrainSessions
	s.monitor = healthcheck.NewMonitor(healthcheck.MonitorOptions{
		Server: s.id, Prober: p, Addr: s.check(), SQLAddr: s.addr, Counter: s.counter,
		Inter: bk.Inter, FastInter: bk.FastInter, DownInter: bk.DownInter, Timeout: bk.TimeoutCheck,
		// Other policies too: fastinter would make fall pass in no time while
		// Patroni restarts, and nobody's session to PostgreSQL is the worse for that.
		Witness: bk.Check == config.CheckHTTP || (drains && bk.Check == config.CheckPgSQL),
		Drains:  drains,
		Stagger: stagger(s, bk),
	}, func(r healthcheck.Report) {
		select {
		case b.reports <- report{r, generation}:
		case <-ctx.Done():
		}
	})
	s.monitor.SetTransition(s.backend.transition)
	ended := make(chan struct{})
	b.monitors.Add(1)
	go func(m *healthcheck.Monitor) {
		defer b.monitors.Done()
		defer close(ended)
		if err := m.Run(ctx); err != nil {
			b.log.Error("checking a server", "server", s.cfg.Name, "error", err)
		}
	}(s.monitor)
	s.stop = func() {
		cancel()
		<-ended
		s.monitor, s.stop = nil, nil
	}
	s.expect()
}

// stagger spreads the first checks of a backend's servers: over inter, as in
// HAProxy; where a leader is looked for, which cannot wait, over fastinter.
func stagger(s *server, bk *config.Backend) time.Duration {
	over := bk.Inter
	if bk.Policy == config.Leader || !s.asked {
		over = min(bk.FastInter, bk.Inter)
	}
	return over * time.Duration(s.index) / time.Duration(max(len(s.backend.servers), 1))
}

// resolve starts to look up the names among the backend's servers; a resolver
// that ran before is ended.
func (b *Balancer) resolve(bk *backend) {
	if bk.resolver != nil {
		bk.resolver()
		bk.resolver = nil
	}
	var names []string
	for _, s := range bk.servers {
		if _, ok := s.cfg.Address.Literal(); !ok {
			names = append(names, s.cfg.Address.Host)
		}
	}
	if len(names) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(b.ctx)
	r := healthcheck.NewResolver(names, bk.cfg.Resolve, nil, func(host string, addr netip.Addr, err error) {
		select {
		case b.calls <- func() {
			if ctx.Err() == nil {
				b.resolved(bk, host, addr, err)
			}
		}:
		case <-ctx.Done():
		}
	})
	b.monitors.Add(1)
	go func() {
		defer b.monitors.Done()
		if err := r.Run(ctx); err != nil {
			b.log.Error("looking up the servers of "+bk.cfg.Name, "error", err)
		}
	}()
	bk.resolver = cancel
}

// resolved takes in the address of a name, or that there is none. An answer
// that fails leaves the last good one in force.
func (b *Balancer) resolved(bk *backend, host string, addr netip.Addr, err error) {
	for _, s := range bk.servers {
		if s.cfg.Address.Host != host {
			continue
		}
		switch {
		case err != nil && s.addr.IsValid():
			b.log.Warn(fmt.Sprintf("server %s/%s: looking up %s: %v; %s is kept", bk.cfg.Name, s.cfg.Name, host, err, s.addr.Addr()))
		case err != nil:
			if s.last.Class != healthcheck.Unresolved {
				b.log.Error(fmt.Sprintf("server %s/%s has no address: looking up %s: %v; it is tried again every %v. Check the name and the router's DNS.",
					bk.cfg.Name, s.cfg.Name, host, err, bk.cfg.Resolve))
			}
			b.learn(s, healthcheck.Report{Server: s.id, At: time.Now(),
				Result: healthcheck.Result{Class: healthcheck.Unresolved, Reason: "no address for " + host}})
		case s.addr.Addr() != addr:
			b.move(s, netip.AddrPortFrom(addr, s.cfg.Address.Port))
		}
	}
}

// move gives a server another address: another machine, so far as anybody
// knows. It starts DOWN, and what was opened to the old one ends.
func (b *Balancer) move(s *server, addr netip.AddrPort) {
	if s.addr.IsValid() {
		b.log.Warn(fmt.Sprintf("server %s/%s: %s is now %s, was %s; it starts DOWN", s.backend.cfg.Name, s.cfg.Name, s.cfg.Address.Host, addr.Addr(), s.addr.Addr()))
		if s.monitor != nil {
			s.stop()
		}
		s.counter = healthcheck.NewCounter(s.backend.cfg.Rise, s.backend.cfg.Fall)
		b.learn(s, healthcheck.Report{Server: s.id, At: time.Now(),
			Result: healthcheck.Result{Class: healthcheck.Unresolved, Reason: "the address changed"}})
		b.fence(s.backend, func(r reign) bool { return r.server == s.id })
	}
	s.addr = addr
	if s.prober != nil {
		b.watch(s, s.prober)
	} else {
		b.serve(s.backend)
	}
}
