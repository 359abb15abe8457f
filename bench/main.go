// Command bench measures pointsman beside HAProxy, nginx and the kernel: the
// same client, the same server, the same workloads, one after the other in
// turns, and the medians in one table. Client, proxy and server are processes
// of their own, so that each one's CPU is known by itself.
//
// Client, proxy and server are in network namespaces of their own, joined by
// virtual cables, or all on loopback.
//
// It starts itself again for the client ("load"), the server ("echo",
// "source"), the nodes' REST API ("patroni") and the io.Copy relay ("copy").
// "table FILE" prints the tables of an earlier run; "draw FILE…" makes the
// pictures in docs/pictures of it, and the figures in the pages.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Children are tied to the life of the thread that starts them (PDEATHSIG), so
// they are all started from the main one.
func init() { runtime.LockOSThread() }

func main() {
	var err error
	switch role, args := role(os.Args[1:]); role {
	case "load":
		err = load(args[0], os.Stdout)
	case "echo", "source":
		err = serve(role, args)
	case "patroni":
		err = servePatroni(args)
	case "copy":
		err = copyRelay(args[0], args[1])
	case "table":
		err = table(args[0], os.Stdout)
	case "draw":
		err = draw(args, "docs/pictures", "README.md", "docs/performance.md")
	default:
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		err = bench(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// role splits off the first argument if it names one of the program's parts.
func role(args []string) (string, []string) {
	least := map[string]int{"load": 2, "echo": 2, "source": 2, "patroni": 3, "copy": 3, "table": 2, "draw": 2}
	if len(args) > 0 && least[args[0]] > 0 && len(args) >= least[args[0]] {
		return args[0], args[1:]
	}
	return "", args
}

// table prints what a file of results holds.
func table(path string, out io.Writer) error {
	r, err := readReport(path)
	if err != nil {
		return err
	}
	return r.print(out)
}

// Where client, proxy and server are.
const (
	inNamespaces = "namespaces"
	onLoopback   = "loopback"
)

// options is what the command line says.
type options struct {
	rounds    int
	measure   time.Duration
	patience  time.Duration
	workloads []workload
	proxies   []proxy
	chosen    bool   // proxies were named, so each measures all that it can
	quick     bool   // the rows that have limits, and the proxies in them
	fixed     bool   // latencies also at fixed rates
	inspect   bool   // user mode and system calls in runs of their own
	pointsman string // path of a binary; "" = build it
	old       string // path of another
	place     string
	out       string // "" = nowhere
	keep      bool   // what out has of other workloads
	pictures  string // folder; "" = none
}

// defaultProxies leaves out what is only for comparisons by name.
const defaultProxies = "haproxy,haproxy-splice,nginx,dnat,pointsman"

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "rounds; the table shows medians")
	seconds := flags.Float64("seconds", 1.2, "length of one measurement")
	flags.DurationVar(&o.patience, "patience", time.Minute, "time to lose, in all, by waiting for other programs to be quiet and by measuring again where they were not")
	flags.BoolVar(&o.quick, "quick", false, "only the rows that have limits, and the proxies in them")
	flags.BoolVar(&o.fixed, "fixed", true, "measure latencies also at a fixed rate")
	flags.BoolVar(&o.inspect, "inspect", true, "look at user mode and system calls, in runs of their own")
	withCurves := flags.Bool("curves", false, "measure how cost grows with sessions, servers and sizes (instead of the rows)")
	only := flags.String("only", "", "comma-separated workloads: "+strings.Join(names(allWorkloads), ", "))
	which := flags.String("proxies", "", "comma-separated proxies: "+strings.Join(names(allProxies), ", "))
	flags.StringVar(&o.pointsman, "pointsman", "", "pointsman program to measure (default: build ./cmd/pointsman)")
	flags.StringVar(&o.old, "old", "", "another pointsman program, for the proxy \"old\"")
	place := inNamespaces
	if os.Geteuid() != 0 {
		place = onLoopback
	}
	flags.StringVar(&o.place, "place", place, "where client, proxy and server are: namespaces (needs root), loopback")
	flags.StringVar(&o.out, "out", "", "where every figure is written (default bench/result.json, if nothing was left out)")
	flags.BoolVar(&o.keep, "keep", false, "keep what -out has of other workloads and proxies")
	flags.StringVar(&o.pictures, "pictures", "", "folder where pictures are drawn")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 1 || *seconds <= 0 {
		return options{}, errors.New("-rounds and -seconds must be above 0")
	}
	if o.place != inNamespaces && o.place != onLoopback {
		return o, fmt.Errorf("no place %q; there are: %s, %s", o.place, inNamespaces, onLoopback)
	}
	o.measure = time.Duration(*seconds * float64(time.Second))
	if *withCurves {
		o.keep = true
	}
	if o.out == "" && *only == "" && *which == "" && !o.quick {
		o.out = "bench/result.json"
	}
	if o.keep && o.out == "" {
		return o, errors.New("-keep and -curves add to a file: -out FILE")
	}
	all := allWorkloads
	if *only == "" {
		all = nil
		for _, w := range allWorkloads {
			if (w.curve != "") == *withCurves && (w.quick || !o.quick) {
				all = append(all, w)
			}
		}
	}
	var err error
	if o.workloads, err = pick("workload", all, *only); err != nil {
		return o, err
	}
	if o.chosen = *which != ""; !o.chosen {
		*which = defaultProxies
	}
	return o, o.pickProxies(*which)
}

// pickProxies leaves out those that have nothing to do.
func (o *options) pickProxies(list string) error {
	wanted, err := pick("proxy", allProxies, list)
	if err != nil {
		return err
	}
	for _, p := range wanted {
		for _, w := range o.workloads {
			if o.takes(w, p) {
				o.proxies = append(o.proxies, p)
				break
			}
		}
	}
	if len(o.proxies) == 0 {
		return errors.New("none of these proxies can do any of these workloads here")
	}
	return nil
}

// takes reports whether a workload is measured through a proxy.
func (o options) takes(w workload, p proxy) bool {
	switch {
	case p.kernel && o.place != inNamespaces, !w.can(p):
		return false
	case o.chosen:
		return true
	case p.name == "haproxy-splice":
		return w.kind == bulk || w.kind == copying || w.curve == bySize
	case p.name == "nginx" || p.kernel:
		return !o.quick && w.curve == ""
	}
	return true
}

type named interface{ id() string }

func names[T named](all []T) []string {
	var out []string
	for _, x := range all {
		out = append(out, x.id())
	}
	return out
}

// pick returns the items of all that the comma-separated list names, in the
// order of all; an empty list is everything.
func pick[T named](what string, all []T, list string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := map[string]bool{}
	for _, name := range strings.Split(list, ",") {
		wanted[strings.TrimSpace(name)] = true
	}
	var out []T
	for _, x := range all {
		if wanted[x.id()] {
			out = append(out, x)
			delete(wanted, x.id())
		}
	}
	for name := range wanted {
		return nil, fmt.Errorf("no %s %q; there are: %s", what, name, strings.Join(names(all), ", "))
	}
	return out, nil
}
