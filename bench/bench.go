package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"pointsman/bench/postgres"
	"pointsman/netlab"
)

const (
	// warmUp lets a fresh proxy grow its heap and pools, and TCP its windows.
	warmUp = 200 * time.Millisecond
	// settle lets a proxy give back what idle sessions do not need.
	settle = 400 * time.Millisecond
)

// fixedShare is the part of the slowest proxy's full rate at which latencies
// are compared: a rate that each of them can carry, on a machine that has not
// to wait for itself. With more, two cores were busy to 85 % with client, proxy
// and server, as fewer messages are handled at a time than at full speed.
const fixedShare = 0.4

// harness runs proxies one at a time, each with a server and a client.
type harness struct {
	self  string // this program
	dir   string // for configurations and logs; removed in the end
	runs  int
	sites map[string]site // by proxy
	net   *network        // nil = loopback
	sql   *postgres.Server

	warm, measure, settle time.Duration
}

// bench is the whole command: it measures, prints the tables, writes the file.
func bench(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := raiseDescriptorLimit(); err != nil {
		return err
	}
	if _, err := netlab.Sweep(labKind); err != nil {
		return err
	}
	h := &harness{warm: warmUp, measure: o.measure, settle: settle, sites: map[string]site{}}
	if h.self, err = os.Executable(); err != nil {
		return err
	}
	if h.dir, err = os.MkdirTemp("", netlab.Prefix(labKind)); err != nil {
		return err
	}
	defer os.RemoveAll(h.dir)

	var earlier *report
	if o.keep { // before all that takes minutes
		if earlier, err = readReport(o.out); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
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
	if o.place == inNamespaces {
		h.net = newNetwork()
		defer func() { err = errors.Join(err, h.net.close()) }()
		for _, p := range o.proxies {
			if h.sites[p.name], err = h.net.site(p.name); err != nil {
				return err
			}
		}
	}
	defer func() { err = errors.Join(err, h.stopSQL()) }()
	release, ok := stayAwake()
	defer release()
	rep.Awake = ok
	if err := h.measureAll(ctx, o, rep, stderr); err != nil {
		return err
	}
	if earlier != nil {
		rep.keep(earlier)
	}
	rep.finish()
	if err := rep.print(stdout); err != nil {
		return err
	}
	if o.out != "" {
		if err := rep.write(o.out); err != nil {
			return err
		}
	}
	if o.pictures != "" {
		if err := rep.draw(o.pictures); err != nil {
			return err
		}
	}
	if failed := rep.failures(); len(failed) > 0 {
		return fmt.Errorf("%d measurements did not work; the first: %s", len(failed), failed[0])
	}
	return nil
}

// measureAll takes one workload after the other.
func (h *harness) measureAll(ctx context.Context, o options, rep *report, progress io.Writer) error {
	calm := &patience{o.patience}
	begun := time.Now()
	defer func() { fmt.Fprintf(progress, "measured for %s\n", time.Since(begun).Round(time.Second)) }()
	for _, w := range o.workloads {
		if w.sql != nil {
			if err := h.startSQL(ctx); errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(progress, "no %s: %v\n", w.name, err)
				continue
			} else if err != nil {
				return err
			}
		} else if err := h.stopSQL(); err != nil {
			return err
		}
		if err := h.rounds(ctx, o, rep, w, calm, progress); err != nil {
			return err
		}
		if o.inspect {
			if err := h.inspect(ctx, o, rep, w, progress); err != nil {
				return err
			}
		}
		if rate := o.fixedRate(rep, w); rate > 0 {
			if err := h.rounds(ctx, o, rep, w.fixed(rate), calm, progress); err != nil {
				return err
			}
		}
	}
	return nil
}

// fixedRate is the rate at which a workload is measured again; 0 = it is not.
func (o options) fixedRate(rep *report, w workload) float64 {
	if !o.fixed || !w.rated() {
		return 0
	}
	slowest := math.Inf(1)
	for _, p := range o.proxies {
		if res := rep.find(w.name, p.name); res != nil && len(res.Samples) > 0 {
			slowest = min(slowest, each(rate)(res))
		}
	}
	if math.IsInf(slowest, 1) {
		return 0
	}
	return twoDigits(fixedShare * slowest)
}

// twoDigits rounds a rate down, so that two runs are likely to compare the same.
func twoDigits(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v))-1)
	return math.Floor(v/unit) * unit
}

// rounds takes the proxies in turns, so that what slows the machine down for a
// while slows all of them. A proxy that fails does not stop the others.
func (h *harness) rounds(ctx context.Context, o options, rep *report, w workload, calm *patience, progress io.Writer) error {
	rounds := o.rounds
	if w.rounds > 0 {
		rounds = min(rounds, w.rounds)
	}
	for round := range rounds {
		for _, p := range o.proxies {
			if !o.takes(w, p) {
				continue
			}
			s, err := calm.calmest(func() (sample, error) {
				if err := calm.quiet(ctx); err != nil {
					return sample{}, err
				}
				return h.run(ctx, p, w, "")
			})
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			rep.add(w, p, s, err)
			outcome := brief(w, p, s)
			if err != nil {
				outcome = err.Error()
			}
			fmt.Fprintf(progress, "round %d/%d  %-14s %-15s %s\n", round+1, rounds, w.name, p.name, outcome)
		}
	}
	return nil
}

// inspect looks closer at each proxy once, in runs that are not timed. Where
// that is not permitted the report says so, and goes on without.
func (h *harness) inspect(ctx context.Context, o options, rep *report, w workload, progress io.Writer) error {
	if w.kind == idle || w.kind == fence || w.kind == checks || w.curve != "" {
		return nil
	}
	for _, p := range o.proxies {
		if p.kernel || !o.takes(w, p) {
			continue
		}
		kinds := []inspection{byMode}
		if w.calls {
			kinds = append(kinds, bySyscall)
		}
		for _, kind := range kinds {
			s, err := h.run(ctx, p, w, kind)
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			if err != nil {
				fmt.Fprintf(progress, "no look at %s of %s: %v\n", kind, p.name, err)
				continue
			}
			res := rep.of(w, p)
			switch kind {
			case byMode:
				res.Profile = s.Profile
				rep.User = bySamples
			case bySyscall:
				res.Calls = s.Profile
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
	case p.name == ours && o.pointsman != "":
		p.program = o.pointsman
	case p.name == ours:
		p.program = filepath.Join(h.dir, "pointsman")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", p.program, "./cmd/pointsman")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building pointsman: %w\n%s", err, text)
		}
	}
	return nil
}

// raiseDescriptorLimit lifts the soft limit to the hard one, and root's hard
// one where it is too low. Go would lift the soft one for itself, but puts the
// old limit back for the programs that it starts.
func raiseDescriptorLimit() error {
	const needed = 2*maxSessions + 500
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of descriptors: %w", err)
	}
	hard := limit.Max
	limit.Max = max(limit.Max, needed)
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit of descriptors: %w (it needs %d, and the hard limit is %d: see ulimit -Hn)", err, needed, hard)
	}
	return nil
}
