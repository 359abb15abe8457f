package balancer

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"pointsman/config"
	"pointsman/healthcheck"
)

// store is a store in which Patroni keeps the leader's key. Its changes are
// hints: they have the servers asked, and decide nothing.
type store struct {
	cfg   config.DCS
	watch *healthcheck.Etcd
	stop  func()
}

// buildStores makes the watches of a configuration, which fails where their
// files cannot be used.
func (b *Balancer) buildStores(cfg *config.Config) ([]*store, error) {
	var stores []*store
	var errs []error
	for i := range cfg.DCS {
		st := &store{cfg: cfg.DCS[i]}
		var err error
		st.watch, err = healthcheck.NewEtcd(&st.cfg, b.log, func(ctx context.Context, what string) {
			select {
			case b.calls <- func() { b.onStore(st, what) }:
			case <-ctx.Done():
			}
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("dcs '%s': %w", st.cfg.Name, err))
		}
		stores = append(stores, st)
	}
	return stores, errors.Join(errs...)
}

// commitStores runs the watches of a configuration. One that is as it was goes on.
func (b *Balancer) commitStores(stores []*store) {
	old := b.stores
	b.stores = nil
	for _, st := range stores {
		at := slices.IndexFunc(old, func(o *store) bool { return reflect.DeepEqual(o.cfg, st.cfg) && o.watch.SameFiles(st.watch) })
		if at >= 0 {
			st = old[at]
		} else {
			b.runStore(st)
		}
		b.stores = append(b.stores, st)
	}
	for _, o := range old {
		if !slices.Contains(b.stores, o) {
			o.stop()
		}
	}
}

func (b *Balancer) runStore(st *store) {
	var ctx context.Context
	ctx, st.stop = context.WithCancel(b.ctx)
	b.monitors.Go(func() {
		if err := st.watch.Run(ctx); err != nil {
			b.log.Error("watching dcs "+st.cfg.Name, "error", err)
		}
	})
}

// onStore has all servers asked whom a change of the leader's key concerns.
func (b *Balancer) onStore(st *store, what string) {
	if !slices.Contains(b.stores, st) {
		return // it was stopped meanwhile
	}
	for _, bk := range b.backends {
		if st.cfg.Hints(&bk.cfg) {
			b.hint(bk, hint{byDCS, st.cfg.Name, what})
		}
	}
}

func (st *store) status() DCSStatus {
	s := st.watch.Status()
	return DCSStatus{Name: st.cfg.Name, Key: st.cfg.LeaderKey(), Endpoint: s.Endpoint, Since: s.Since, Known: s.Known, Exists: s.There,
		Leader: s.Leader, Changed: s.Changed, Changes: s.Changes, Error: s.Error, Failed: s.Failed}
}
