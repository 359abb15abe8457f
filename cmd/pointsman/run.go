package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pointsman/balancer"
	"pointsman/balancer/control"
	"pointsman/config"
	"pointsman/openwrt/uci"
)

var configFlag = &cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: defaultConfig, Usage: "UCI `FILE`"}

func runCommand(e env) *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "the daemon, in the foreground; SIGHUP reads the file again",
		Flags: []cli.Flag{configFlag},
		Action: func(c *cli.Context) error {
			level := new(slog.LevelVar)
			return daemon(c.Context, daemonOptions{configFile: c.String("config"), log: newLog(e, level), level: level})
		},
	}
}

// daemonOptions say what one run of the daemon works with.
type daemonOptions struct {
	configFile string
	log        *slog.Logger
	level      *slog.LevelVar           // set from log_level; nil = the log's own
	ready      func(*balancer.Balancer) // called once the listeners are bound; nil = nobody waits
}

// daemon runs the balancer until ctx is done.
func daemon(ctx context.Context, o daemonOptions) error {
	// First of all, because a SIGHUP that nobody expects ends a process.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	cfg, err := uci.Load(o.configFile)
	if err != nil {
		return err
	}
	d := &running{options: o, global: cfg.Global}
	d.setLevel(cfg.Global.LogLevel)
	loops := cfg.Global.Loops
	if loops == 0 {
		loops = min(runtime.NumCPU(), 4)
	}
	// One more than the loops, so that a loop that waits in the kernel never
	// delays a check or a kill.
	runtime.GOMAXPROCS(loops + 1)
	tuneCollector()
	d.balancer, err = balancer.New(balancer.Options{Version: version, Loops: loops, Log: o.log})
	if err != nil {
		return err
	}

	own, cancel := context.WithCancel(ctx)
	defer cancel()
	var tasks sync.WaitGroup
	ended := make(chan error, 2)
	task := func(run func(context.Context) error) {
		tasks.Go(func() {
			err := run(own)
			cancel() // one that ends takes the others with it
			ended <- err
		})
	}
	task(d.balancer.Run)
	err = d.start(cfg, task)
	if err == nil {
		d.serve(own, hangups)
	}
	cancel()
	tasks.Wait()
	close(ended)
	for taskErr := range ended {
		err = errors.Join(err, taskErr)
	}
	if err == nil {
		o.log.Info("stopped")
	}
	return err
}

// heapGrowth is how much the heap may grow between two collections, per cent.
// Sessions leave no garbage, only checks and questions of operators do, so a
// collection is rare. At 50 instead of Go's 100 the daemon stays smaller by 1
// to 3 MB, and a collection each 100 checks costs nothing that can be measured;
// less than 50 saves nothing more. There is no memory limit: one that is too
// low has the collector run all the time (docs/performance.md has the figures).
const heapGrowth = 50

// tuneCollector leaves the choice to whoever made one in the environment.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
}

// running is a daemon and what is known of its configuration.
type running struct {
	options  daemonOptions
	balancer *balancer.Balancer
	global   config.Global // as at the start

	reloads   sync.Mutex // one at a time
	mu        sync.Mutex // guards what a reload changes
	reloaded  time.Time
	reloadErr error
}

// start takes up the first configuration and opens the control socket.
func (d *running) start(cfg config.Config, task func(func(context.Context) error)) error {
	if err := d.balancer.Apply(cfg); err != nil {
		return err
	}
	d.reloaded = time.Now()
	if cfg.Global.Control != "" {
		server, err := control.Listen(cfg.Global.Control, control.Source{Snapshot: d.snapshot, History: d.balancer.History, Reload: d.reload}, d.options.log)
		if err != nil {
			return err
		}
		task(server.Run)
	}
	for _, f := range cfg.Frontends {
		d.options.log.Info(fmt.Sprintf("frontend %s listens on %v, for backend %s", f.Name, f.Binds, f.DefaultBackend))
	}
	if d.options.ready != nil {
		d.options.ready(d.balancer)
	}
	return nil
}

// serve reloads at each SIGHUP, until ctx is done.
func (d *running) serve(ctx context.Context, hangups <-chan os.Signal) {
	for {
		select {
		case <-hangups:
			d.reload()
		case <-ctx.Done():
			return
		}
	}
}

// reload takes up the file as it is now, or changes nothing and says why.
func (d *running) reload() *control.Outcome {
	d.reloads.Lock()
	defer d.reloads.Unlock()
	outcome := &control.Outcome{File: d.options.configFile}
	cfg, err := uci.Load(d.options.configFile)
	if err == nil {
		err = d.balancer.Apply(cfg)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reloadErr = err
	if err != nil {
		d.options.log.Error(fmt.Sprintf("reload refused, the running configuration goes on:\n%v", err))
		outcome.Error = err.Error()
		return outcome
	}
	d.reloaded = time.Now()
	d.setLevel(cfg.Global.LogLevel)
	d.options.log.Info("reloaded " + d.options.configFile)
	if cfg.Global.Control != d.global.Control || cfg.Global.Loops != d.global.Loops {
		outcome.Notes = append(outcome.Notes, "options 'control' and 'loops' are read at the start only: restart for their new values")
		d.options.log.Warn(outcome.Notes[0])
	}
	return outcome
}

func (d *running) snapshot() *balancer.Snapshot {
	s := d.balancer.Snapshot()
	if s == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Config, s.Reloaded = d.options.configFile, d.reloaded
	if d.reloadErr != nil {
		s.ReloadErr = d.reloadErr.Error()
	}
	return s
}

func (d *running) setLevel(l config.LogLevel) {
	if d.options.level == nil {
		return
	}
	d.options.level.Set(map[config.LogLevel]slog.Level{
		config.LogError: slog.LevelError, config.LogWarning: slog.LevelWarn, config.LogInfo: slog.LevelInfo, config.LogDebug: slog.LevelDebug,
	}[l])
}
