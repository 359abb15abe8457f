// Command bench measures pointsman beside HAProxy, nginx and a plain io.Copy
// relay: the same client, the same server, the same workloads, one after the
// other in turns, and the medians in one table. Client, proxy and server are
// processes of their own, so that each one's CPU is known by itself.
//
// It starts itself again for the client ("load"), the server ("echo",
// "source") and the io.Copy relay ("copy").
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
		err = serve(role, args[0])
	case "copy":
		err = copyRelay(args[0], args[1])
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
	want := map[string]int{"load": 2, "echo": 2, "source": 2, "copy": 3}
	if len(args) > 0 && want[args[0]] == len(args) {
		return args[0], args[1:]
	}
	return "", args
}

// options is what the command line says.
type options struct {
	rounds    int
	measure   time.Duration
	patience  time.Duration
	workloads []workload
	proxies   []proxy
	pointsman string // path of a binary; "" = build it
	old       string // path of another
	place     string
	out       string
}

func parse(args []string, stderr io.Writer) (options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	rounds := flags.Int("rounds", 5, "rounds; the table shows medians")
	seconds := flags.Float64("seconds", 1.5, "length of one measurement")
	patience := flags.Duration("patience", 30*time.Second, "time to lose, in all, by waiting for other programs to be quiet and by measuring again where they were not")
	only := flags.String("only", "", "comma-separated workloads: "+strings.Join(names(allWorkloads), ", "))
	which := flags.String("proxies", "haproxy,nginx,copy,pointsman", "comma-separated proxies: "+strings.Join(names(allProxies), ", "))
	program := flags.String("pointsman", "", "pointsman program to measure (default: build ./cmd/pointsman)")
	old := flags.String("old", "", "another pointsman program, for the proxy \"old\"")
	place := flags.String("place", "loopback", "where client, proxy and server are: loopback")
	out := flags.String("out", "bench/result.json", "where every figure is written")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *rounds < 1 || *seconds <= 0 {
		return options{}, errors.New("-rounds and -seconds must be above 0")
	}
	o := options{rounds: *rounds, measure: time.Duration(*seconds * float64(time.Second)), patience: *patience, pointsman: *program, old: *old, place: *place, out: *out}
	if o.place != "loopback" {
		return o, fmt.Errorf("no place %q; there is: loopback", o.place)
	}
	var err error
	if o.workloads, err = pick("workload", allWorkloads, *only); err != nil {
		return o, err
	}
	o.proxies, err = pick("proxy", allProxies, *which)
	return o, err
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
