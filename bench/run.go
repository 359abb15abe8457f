package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The event loops of client and server make no garbage, and need neither a
// collector nor to be interrupted by the scheduler.
var loopEnv = []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1"}

// siteOf is where a proxy is measured.
func (h *harness) siteOf(p proxy) site {
	if s, ok := h.sites[p.name]; ok {
		return s
	}
	return site{lan: here, router: here, servers: here}
}

// run takes one sample: one workload through one proxy. Server, proxy and
// client are new each time, at ports of their own: no run inherits a grown
// heap, a full table of TIME_WAIT or a port from another.
func (h *harness) run(ctx context.Context, p proxy, w workload, look inspection) (sample, error) {
	h.runs++
	dir := filepath.Join(h.dir, fmt.Sprintf("%d-%s-%s", h.runs, w.name, p.name))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return sample{}, err
	}
	at := h.siteOf(p)
	listen, target, err := at.addresses(h.runs)
	if err != nil {
		return sample{}, err
	}
	set := setup{Listen: listen, Target: target, Servers: w.servers, Inter: w.inter, Dir: dir}
	if w.sql != nil {
		return h.runSQL(ctx, at, p, w, set, look)
	}

	server, err := h.serve(ctx, at, w, set)
	if err != nil {
		return sample{}, err
	}
	defer server.stop()
	if w.checked() {
		api, err := start(at.servers, dir, "patroni", h.self, nil, "patroni", set.rest(0).String(), strconv.Itoa(w.servers))
		if err != nil {
			return sample{}, err
		}
		defer api.stop()
	}
	j := job{
		Kind: w.kind, Target: listen.String(), Size: w.size, Sessions: w.sessions, Rate: w.rate,
		Warm: h.warm, Measure: h.measure, Settle: h.settle,
		Server: server.cmd.Process.Pid, Patroni: set.rest(0).String(), Inspect: look,
	}
	return h.through(ctx, at, p, w, set, func(pids []int) (sample, error) {
		j.Proxy = pids
		return h.load(ctx, at, dir, j)
	})
}

// through starts the proxy, and calls load with its processes.
func (h *harness) through(ctx context.Context, at site, p proxy, w workload, set setup, load func(pids []int) (sample, error)) (sample, error) {
	if p.kernel {
		remove, err := p.install(at.router, set)
		if err != nil {
			return sample{}, err
		}
		s, err := load(nil)
		return s, errors.Join(err, remove())
	}
	args, err := p.command(set)
	if err != nil {
		return sample{}, err
	}
	relay, err := start(at.router, set.Dir, p.name, p.program, []string{fmt.Sprintf("GOMAXPROCS=%d", threads)}, args...)
	if err != nil {
		return sample{}, err
	}
	defer relay.stop()
	if err := ready(ctx, at.lan, relay, set.Listen, w.greeting()); err != nil {
		return sample{}, err
	}
	if w.checked() {
		// Until every server has been found to be up or down.
		inter, err := time.ParseDuration(w.inter)
		if err != nil {
			return sample{}, err
		}
		time.Sleep(5 * inter)
	}
	pids, err := relay.pids()
	if err != nil {
		return sample{}, err
	}
	s, err := load(pids)
	if err != nil && relay.said() != "" {
		err = fmt.Errorf("%w; %s says: %s", err, p.name, relay.said())
	}
	return s, err
}

// serve starts the far end.
func (h *harness) serve(ctx context.Context, at site, w workload, set setup) (*process, error) {
	server, err := start(at.servers, set.Dir, "server", h.self, loopEnv, w.server(), set.Target.String(), strconv.Itoa(max(w.servers, 1)))
	if err != nil {
		return nil, err
	}
	if err := ready(ctx, at.servers, server, set.Target, w.greeting()); err != nil {
		server.stop()
		return nil, err
	}
	return server, nil
}

// load runs the client.
func (h *harness) load(ctx context.Context, at site, dir string, j job) (sample, error) {
	var s sample
	text, err := json.Marshal(j)
	if err != nil {
		return s, err
	}
	client, err := start(at.lan, dir, "client", h.self, loopEnv, "load", string(text))
	if err != nil {
		return s, err
	}
	select {
	case <-ctx.Done():
		client.stop()
		return s, ctx.Err()
	case <-time.After(j.Warm + j.Measure + 30*time.Second):
		client.stop()
		return s, errors.New("the client did not come to its end")
	case err = <-client.ended:
	}
	if err != nil {
		return s, fmt.Errorf("the client: %w: %s", err, strings.TrimPrefix(client.said(), "bench: "))
	}
	said, err := os.ReadFile(client.stderr)
	if err == nil {
		err = json.Unmarshal(said, &s)
	}
	if err != nil {
		return s, fmt.Errorf("reading what the client measured: %w", err)
	}
	return s, nil
}

// ready waits until a greeting is answered by p at addr, seen from a place.
func ready(ctx context.Context, from place, p *process, addr netip.AddrPort, greeting []byte) error {
	for limit := time.Now().Add(10 * time.Second); ; {
		err := from.Inside(func() error { return probe(addr, greeting) })
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case failed := <-p.ended:
			p.ended <- failed
			return fmt.Errorf("%s ended (%v): %s", p.name, failed, p.said())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%s is not ready: %w: %s", p.name, err, p.said())
		}
	}
}

// probe sends a greeting, and reads a byte.
func probe(addr netip.AddrPort, greeting []byte) error {
	conn, err := net.Dial("tcp4", addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(greeting); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}
