// Command profile shows where the time of a message goes, in pointsman and in
// HAProxy beside it: the system calls it takes, by name; the CPU it takes, by
// what it is spent on; and a flame graph of each.
//
// Client and server are those of the benchmark, on loopback. perf counts the
// calls and takes the samples, because strace stops the program at every call
// and so changes what it does. It needs root, perf and haproxy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"pointsman/bench/page"
)

// Children are tied to the life of the thread that starts them (PDEATHSIG), so
// they are all started from the main one.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := profile(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "profile:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds    int
	length    time.Duration // of one measurement
	sessions  int
	size      int
	pointsman string // path of a binary; "" = build it
	pictures  string // folder; "" = none
	doc       string // page whose marked places are written anew; "" = none
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("profile", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 3, "how often each proxy is profiled, in turns")
	flags.DurationVar(&o.length, "length", 1500*time.Millisecond, "of one measurement")
	flags.IntVar(&o.sessions, "sessions", 16, "sessions at once")
	flags.IntVar(&o.size, "size", 100, "bytes of a message")
	flags.StringVar(&o.pointsman, "pointsman", "", "pointsman program to profile (default: build ./cmd/pointsman)")
	flags.StringVar(&o.pictures, "pictures", "docs/pictures", "folder for flame graphs; '' = none")
	flags.StringVar(&o.doc, "doc", "docs/performance.md", "page whose marked places are written anew; '' = none")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 1 || o.length < time.Second || o.sessions < 1 || o.size < 8 {
		return o, errors.New("at least 1 round of 1s, 1 session and 8 bytes are needed")
	}
	return o, nil
}

// profile is the whole command.
func profile(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	rig, err := newRig(ctx, o)
	if err != nil {
		return err
	}
	defer rig.close()
	results := make([]*result, len(subjects))
	for i, s := range subjects {
		results[i] = &result{subject: s, calls: map[string]float64{}, stacks: map[string]int{}}
	}
	for round := range o.rounds {
		for i, s := range subjects {
			fmt.Fprintf(stderr, "round %d/%d  %s\n", round+1, o.rounds, s.title)
			if err := rig.profile(ctx, s, results[i]); err != nil {
				return fmt.Errorf("profiling %s: %w", s.title, err)
			}
		}
	}
	calls, times := callTable(o, results), timeTable(o, results)
	fmt.Fprintf(stdout, "%s\n%s", calls, times)
	if o.pictures != "" {
		if err := draw(o, results); err != nil {
			return err
		}
	}
	if o.doc != "" {
		return page.Refresh(o.doc, map[string]string{"profile:calls": calls, "profile:time": times})
	}
	return nil
}

// draw writes a flame graph of each proxy.
func draw(o options, results []*result) error {
	if err := os.MkdirAll(o.pictures, 0o755); err != nil {
		return fmt.Errorf("making the folder for pictures: %w", err)
	}
	for _, r := range results {
		svg, err := r.flame(o)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.pictures, "flame-"+r.key+".svg"), svg, 0o644); err != nil {
			return fmt.Errorf("writing a picture: %w", err)
		}
	}
	return nil
}
