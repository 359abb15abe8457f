package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// warmUp lets a fresh proxy grow its heap and pools, and TCP its windows.
	warmUp = 200 * time.Millisecond
	// settle lets a proxy give back what idle sessions do not need.
	settle = 400 * time.Millisecond
)

// harness runs proxies one at a time, each with a server and a client.
type harness struct {
	self string // this program
	dir  string // for configurations and logs; removed in the end
	runs int

	warm, measure, settle time.Duration
}

// bench is the whole command: it measures, prints the table, writes the file.
func bench(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := raiseDescriptorLimit(); err != nil {
		return err
	}
	h := &harness{warm: warmUp, measure: o.measure, settle: settle}
	if h.self, err = os.Executable(); err != nil {
		return err
	}
	if h.dir, err = os.MkdirTemp("", "pointsman-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(h.dir)

	rep := newReport(o)
	for i := range o.proxies {
		p := &o.proxies[i]
		if err := h.prepare(ctx, p, o); err != nil {
			return err
		}
		if rep.Titles[p.name], err = p.describe(ctx); err != nil {
			return err
		}
	}
	release, ok := stayAwake()
	defer release()
	rep.Awake = ok
	if err := h.measureAll(ctx, o, rep, stderr); err != nil {
		return err
	}
	rep.finish()
	if err := rep.print(stdout); err != nil {
		return err
	}
	if err := rep.write(o.out); err != nil {
		return err
	}
	if failed := rep.failures(); len(failed) > 0 {
		return fmt.Errorf("%d measurements did not work; the first: %s", len(failed), failed[0])
	}
	return nil
}

// measureAll takes the proxies in turns, so that what slows the machine down
// for a while slows all of them. A proxy that fails does not stop the others.
func (h *harness) measureAll(ctx context.Context, o options, rep *report, progress io.Writer) error {
	calm := patience{o.patience}
	for _, w := range o.workloads {
		for round := range o.rounds {
			for _, p := range o.proxies {
				s, err := calm.calmest(func() (sample, error) {
					if err := calm.quiet(ctx); err != nil {
						return sample{}, err
					}
					return h.run(ctx, p, w)
				})
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				rep.add(w, p, s, err)
				outcome := brief(w, s)
				if err != nil {
					outcome = err.Error()
				}
				fmt.Fprintf(progress, "round %d/%d  %-14s %-15s %s\n", round+1, o.rounds, w.name, p.name, outcome)
			}
		}
	}
	return nil
}

// prepare finds or builds the proxy's program.
func (h *harness) prepare(ctx context.Context, p *proxy, o options) error {
	switch {
	case p.name == "old" && o.old == "":
		return errors.New("the proxy \"old\" needs a program: -old PATH")
	case p.name == "old":
		p.program = o.old
	case p.program == "":
		p.program = h.self
	case p.name == "pointsman" && o.pointsman != "":
		p.program = o.pointsman
	case p.name == "pointsman":
		p.program = filepath.Join(h.dir, "pointsman")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", p.program, "./cmd/pointsman")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building pointsman: %w\n%s", err, text)
		}
	}
	return nil
}

// The event loops of client and server make no garbage, and need neither a
// collector nor to be interrupted by the scheduler.
var loopEnv = []string{"GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1"}

// run takes one sample: one workload through one proxy. Server, proxy and
// client are new each time, at addresses of their own: no run inherits a grown
// heap, a full table of TIME_WAIT or a port from another.
func (h *harness) run(ctx context.Context, p proxy, w workload) (sample, error) {
	h.runs++
	dir := filepath.Join(h.dir, fmt.Sprintf("%d-%s-%s", h.runs, w.name, p.name))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return sample{}, err
	}
	target, err := freeAddress(2 * h.runs)
	if err != nil {
		return sample{}, err
	}
	listen, err := freeAddress(2*h.runs + 1)
	if err != nil {
		return sample{}, err
	}

	server, err := start(dir, "server", h.self, loopEnv, w.server(), target)
	if err != nil {
		return sample{}, err
	}
	defer server.stop()
	if err := ready(ctx, server, target); err != nil {
		return sample{}, err
	}

	args, err := p.command(dir, listen, target)
	if err != nil {
		return sample{}, err
	}
	relay, err := start(dir, p.name, p.program, []string{fmt.Sprintf("GOMAXPROCS=%d", threads)}, args...)
	if err != nil {
		return sample{}, err
	}
	defer relay.stop()
	if err := ready(ctx, relay, listen); err != nil {
		return sample{}, err
	}
	pids, err := relay.pids()
	if err != nil {
		return sample{}, err
	}
	s, err := h.load(ctx, dir, job{
		Kind: w.kind, Target: listen, Size: w.size, Sessions: w.sessions,
		Warm: h.warm, Measure: h.measure, Settle: h.settle,
		Proxy: pids, Server: server.cmd.Process.Pid,
	})
	if err != nil && relay.said() != "" {
		err = fmt.Errorf("%w; %s says: %s", err, p.name, relay.said())
	}
	return s, err
}

// load runs the client.
func (h *harness) load(ctx context.Context, dir string, j job) (sample, error) {
	var s sample
	text, err := json.Marshal(j)
	if err != nil {
		return s, err
	}
	client, err := start(dir, "client", h.self, loopEnv, "load", string(text))
	if err != nil {
		return s, err
	}
	select {
	case <-ctx.Done():
		client.stop()
		return s, ctx.Err()
	case <-time.After(j.Warm + j.Measure + 10*time.Second):
		client.stop()
		return s, errors.New("the client did not come to its end")
	case err = <-client.ended:
	}
	if err != nil {
		return s, fmt.Errorf("the client: %w: %s", err, strings.TrimPrefix(client.said(), "bench: "))
	}
	if err := json.Unmarshal([]byte(client.said()), &s); err != nil {
		return s, fmt.Errorf("reading what the client measured: %w", err)
	}
	return s, nil
}

// freeAddress returns an address of loopback that nobody listens on. Every n
// has a host of its own, so that the ports of one run are free in the next.
func freeAddress(n int) (string, error) {
	host := fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%128, n/250, 1+n%250)
	l, err := net.Listen("tcp4", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("looking for a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// ready waits until a byte comes through p at addr.
func ready(ctx context.Context, p *process, addr string) error {
	for limit := time.Now().Add(5 * time.Second); ; {
		err := probe(addr)
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

// probe sends a byte, for servers that echo, and reads one.
func probe(addr string) error {
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// raiseDescriptorLimit lifts the soft limit to the hard one. Go would do so for
// itself, but puts the old limit back for the programs that it starts.
func raiseDescriptorLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of descriptors: %w", err)
	}
	limit.Cur = limit.Max
	if limit.Cur < 2*maxSessions+100 {
		return fmt.Errorf("this needs %d descriptors, and the hard limit is %d: raise it with ulimit -Hn", 2*maxSessions+100, limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit of descriptors: %w", err)
	}
	return nil
}
