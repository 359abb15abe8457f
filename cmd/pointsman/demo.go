package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pointsman/balancer"
	"pointsman/cmd/pointsman/demo"
)

func demoCommand(e env) *cli.Command {
	var o demo.Options
	return &cli.Command{
		Name:  "demo",
		Usage: "watch it work: three simulated Patroni nodes, clients that write, and failovers",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "failover-every", Value: 10 * time.Second, Usage: "`DURATION` from one failover to the next, at least 2s; 0 = none", Destination: &o.FailoverEvery},
			&cli.IntFlag{Name: "clients", Value: 4, Usage: "`NUMBER` of clients that write, 1 to 500", Destination: &o.Clients},
			&cli.DurationFlag{Name: "for", Usage: "end after `DURATION`; default: at ctrl-C", Destination: &o.For},
			&cli.BoolFlag{Name: "json", Usage: "one JSON object per line: what happens, and a summary", Destination: &o.JSON},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return fmt.Errorf("demo takes no argument: '%s'", c.Args().First())
			}
			if o.FailoverEvery != 0 && o.FailoverEvery < 2*time.Second {
				return fmt.Errorf("--failover-every %s: a failover takes 1.2s and the old leader's return as long again; at least 2s, or 0 for none", o.FailoverEvery)
			}
			if o.Clients < 1 || o.Clients > 500 {
				return fmt.Errorf("--clients %d: 1 to 500", o.Clients)
			}
			if o.For < 0 {
				return fmt.Errorf("--for %s: must not be negative", o.For)
			}
			// The daemon reloads at SIGHUP; a terminal that is closed ends the demonstration.
			ctx, stop := signal.NotifyContext(c.Context, syscall.SIGHUP)
			defer stop()
			o.Out, o.Daemon = e.stdout, demoDaemon
			return demo.Run(ctx, o)
		},
	}
}

// demoDaemon is the daemon as `pointsman run` starts it, its log to w.
func demoDaemon(ctx context.Context, configFile string, w io.Writer, ready func(func() *balancer.Snapshot)) error {
	level := new(slog.LevelVar)
	return daemon(ctx, daemonOptions{
		configFile: configFile,
		log:        newLog(env{stdout: w, stderr: w}, level),
		level:      level,
		ready:      func(b *balancer.Balancer) { ready(b.Snapshot) },
	})
}
