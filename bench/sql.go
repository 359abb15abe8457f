package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"pointsman/bench/postgres"
)

// copyBytes is what one COPY moves.
const copyBytes = 1 << 30

const (
	postgresPort = 5432 // in a namespace
	// sqlWarm is how long pgbench's clients are at work before it counts.
	sqlWarm = 300 * time.Millisecond
)

// placed makes a command that dies with us. It runs in the namespace of the
// thread that starts it.
func placed(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

// startSQL starts PostgreSQL, if it does not run yet.
func (h *harness) startSQL(ctx context.Context) error {
	if h.sql != nil {
		return nil
	}
	at, conf := here, postgres.Config{Place: placed, Clients: netip.MustParsePrefix("127.0.0.0/8")}
	var err error
	if h.net != nil {
		at, conf.Clients, conf.Listen = h.net.postgres, allNets, netip.AddrPortFrom(netip.IPv4Unspecified(), postgresPort)
	} else if conf.Listen, err = freeAddress(0); err != nil {
		return err
	}
	return at.Inside(func() error {
		h.sql, err = postgres.Start(ctx, conf)
		return err
	})
}

func (h *harness) stopSQL() error {
	if h.sql == nil {
		return nil
	}
	s := h.sql
	h.sql = nil
	return s.Stop()
}

// runSQL takes one sample with a real PostgreSQL behind the proxy.
func (h *harness) runSQL(ctx context.Context, at site, p proxy, w workload, set setup, look inspection) (sample, error) {
	set.Target = h.sql.Address()
	if at.postgres.IsValid() {
		set.Target = netip.AddrPortFrom(at.postgres, postgresPort)
	}
	return h.through(ctx, at, p, w, set, func(pids []int) (s sample, err error) {
		err = at.lan.Inside(func() error {
			s, err = h.loadSQL(ctx, w, set.Listen, &meter{start: time.Now(), proxy: pids, server: os.Getpid(), inspect: look})
			return err
		})
		return s, err
	})
}

// loadSQL runs pgbench or psql on this thread's network, and reads the meter
// at the edges of what they count.
func (h *harness) loadSQL(ctx context.Context, w workload, target netip.AddrPort, m *meter) (sample, error) {
	var from, to reading
	others := func(r *reading, client int) (err error) {
		var failed error
		r.server, failed = h.sql.CPU()
		r.client, err = cpuClock(client, clockExact)
		return errors.Join(failed, err)
	}
	c := postgres.Client{Place: placed, Target: target, Meter: postgres.Meter{
		Begin: func(client int) (err error) {
			if from, err = m.begin(); err != nil {
				return err
			}
			return others(&from, client)
		},
		End: func(client int) (err error) {
			if to, err = m.end(); err != nil {
				return err
			}
			return others(&to, client)
		},
	}}
	var s sample
	var err error
	if w.kind == transactions {
		s, err = h.pgbench(ctx, w, c)
	} else {
		s, err = h.copy(ctx, w, c)
	}
	if err != nil {
		return s, err
	}
	s.usage, s.Profile = to.since(from), m.profile
	if m.inspect != "" {
		s.Profile.Ops = s.Ops
	}
	memory, err := m.memory()
	s.Resident = float64(memory.resident)
	return s, err
}

func (h *harness) pgbench(ctx context.Context, w workload, c postgres.Client) (sample, error) {
	r, err := h.sql.Pgbench(ctx, c, postgres.Options{
		Script: w.sql.script, Clients: w.sessions, Connect: w.sql.connect, Prepared: !w.sql.connect,
		Warm: sqlWarm, Measure: h.measure,
	})
	if err != nil {
		return sample{}, err
	}
	s := sample{Ops: uint64(len(r.Latencies)), Times: new(histogram)}
	for _, d := range r.Latencies {
		s.Times.add(d)
	}
	s.P50, s.P99, s.P999 = s.Times.micros(0.5), s.Times.micros(0.99), s.Times.micros(0.999)
	return s, nil
}

func (h *harness) copy(ctx context.Context, w workload, c postgres.Client) (sample, error) {
	do := h.sql.CopyOut
	if w.sql.in {
		do = h.sql.CopyIn
	}
	t, err := do(ctx, c, copyBytes)
	return sample{Ops: uint64(t.Bytes)}, err
}
