package healthcheck

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	lookupLimit = 5 * time.Second // of one lookup, whatever the name server does
	// After a failure, and doubled by each: at boot the router's own name
	// server may be some seconds late, and nobody should wait half a minute.
	retryFirst = time.Second
)

// Resolver keeps the addresses of servers that were given by name up to date.
type Resolver struct {
	names  []string
	every  time.Duration
	lookup func(context.Context, string) ([]netip.Addr, error)
	out    func(host string, addr netip.Addr, err error)
}

// NewResolver returns a resolver that looks each name up at the start and then
// every so often, a tenth more or less so that lookups spread; sooner after a
// failure. A nil lookup is the system's.
//
// out is called, for one name at a time but for several names at once, when
// there is news: the first address or another one (err is nil), or the first
// of a row of failures (addr is the last good one, invalid if there was none;
// it stays in force), or the end of such a row (err is nil). Of several
// addresses the one in force stays as long as it is among them; otherwise it
// is the lowest, IPv4 before IPv6, so that all routers choose the same.
func NewResolver(names []string, every time.Duration, lookup func(ctx context.Context, host string) ([]netip.Addr, error),
	out func(host string, addr netip.Addr, err error)) *Resolver {
	names = slices.Clone(names)
	slices.Sort(names)
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &Resolver{slices.Compact(names), every, lookup, out}
}

// Run looks up until ctx is cancelled, and then returns nil. A name whose
// lookup hangs keeps no other waiting.
func (r *Resolver) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, host := range r.names {
		running.Go(func() { r.follow(ctx, host) })
	}
	running.Wait()
	return nil
}

// follow keeps one name up to date.
func (r *Resolver) follow(ctx context.Context, host string) {
	var current netip.Addr
	failures := 0
	for {
		addr, err := r.ask(ctx, host, current)
		if ctx.Err() != nil {
			return
		}
		wait := jittered(r.every)
		if err != nil {
			if failures == 0 {
				r.out(host, current, err)
			}
			wait = min(wait, retryFirst<<min(failures, 16))
			failures++
		} else {
			if addr != current || failures > 0 {
				r.out(host, addr, nil)
			}
			current, failures = addr, 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (r *Resolver) ask(ctx context.Context, host string, current netip.Addr) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	addrs, err := r.lookup(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	return choose(addrs, current)
}

// choose picks one of the addresses of a name.
func choose(addrs []netip.Addr, current netip.Addr) (netip.Addr, error) {
	var usable []netip.Addr
	for _, a := range addrs {
		// Blocklists of name servers answer 0.0.0.0, which would be this router.
		if a = a.Unmap(); !a.IsUnspecified() && !a.IsMulticast() && a.IsValid() {
			usable = append(usable, a)
		}
	}
	switch {
	case len(usable) == 0:
		return netip.Addr{}, errors.New("no usable address")
	case slices.Contains(usable, current):
		return current, nil
	}
	return slices.MinFunc(usable, netip.Addr.Compare), nil
}

func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
