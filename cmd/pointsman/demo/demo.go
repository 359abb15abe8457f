// Package demo shows the daemon at work: it runs it in front of simulated
// nodes, lets clients write through it, makes the nodes fail over, and tells
// what happens as a live view, as lines, or as JSON.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"pointsman/balancer"
	"pointsman/cmd/pointsman/simulation"
)

// Options say what a demonstration is made of.
type Options struct {
	Out           io.Writer     // gets the live view if it is a terminal
	JSON          bool          // one object per line instead
	Clients       int           // that write
	FailoverEvery time.Duration // 0 = never
	For           time.Duration // how long it goes on; 0 = until the context is done

	// Daemon runs the daemon with a configuration file until ctx is done. It
	// calls ready once its listeners are bound.
	Daemon func(ctx context.Context, configFile string, log io.Writer, ready func(snapshot func() *balancer.Snapshot)) error
}

// backendName is as in the configuration that OpenWrt's package installs.
const backendName = "bk_postgres_primary"

// Run shows the demonstration. It returns nil when ctx or Options.For ended
// it, and else why the daemon or the simulation could not go on.
func Run(ctx context.Context, o Options) error {
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	cluster, err := simulation.NewCluster("postgres-1", "postgres-2", "postgres-3")
	if err != nil {
		return err
	}
	defer cluster.Close()
	listen, release, err := simulation.Reserve()
	if err != nil {
		return err
	}
	defer release()
	dir, err := os.MkdirTemp("", "pointsman-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	s := &show{o: o, cluster: cluster, listen: listen, started: time.Now(), changes: make(chan outcome, 1)}
	s.config = filepath.Join(dir, "pointsman")
	text := uci(cluster, listen, filepath.Join(dir, "control.sock"))
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return err
	}
	s.feed = newFeed(o)
	s.feed.start(s.config, listen.String(), text)
	for i := range o.Clients {
		name := fmt.Sprint("client-", i+1)
		s.clients = append(s.clients, &seat{client: simulation.NewClient(name, simulation.StyleOf(i), listen.String(), func(err error) {
			s.feed.clientError(name, err)
		})})
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	s.feed.end(s.summary())
	return nil
}

// uci is the configuration of a router before a Patroni cluster, but for the
// addresses; what it says of checks are the defaults, to be seen.
func uci(cluster *simulation.Cluster, listen netip.AddrPort, socket string) string {
	return fmt.Sprintf(`config global 'global'
	option control '%s'

config frontend 'ft_postgres'
	list bind '%s'
	option default_backend '%s'

config backend '%[3]s'
	option policy 'leader'
	option check 'http'
	option check_uri '/primary'
	option inter '3s'
	option fall '3'
	option rise '2'
	option on_marked_down 'shutdown-sessions'
	option hold '60s'

%[4]s`, socket, listen, backendName, cluster.UCI(backendName))
}

// run starts the daemon, then the clients, and stops them in reverse.
func (s *show) run(ctx context.Context) error {
	own, stopDaemon := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDaemon()
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		err := s.o.Daemon(own, s.config, s.feed, func(snapshot func() *balancer.Snapshot) {
			s.snapshot = snapshot
			close(ready)
		})
		if err == nil && own.Err() == nil {
			err = errors.New("it stopped by itself")
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("starting the daemon: %w", err)
	case <-ready:
	}

	s.feed.openView()
	err := s.play(ctx, ended)
	stopDaemon()
	for late := range ended {
		err = errors.Join(err, late)
	}
	s.feed.closeView(err)
	if err != nil {
		err = fmt.Errorf("running the daemon: %w", err)
	}
	return err
}

// play lets the clients write and the cluster fail over until ctx is done, or
// the daemon ended; its error is then the daemon's.
func (s *show) play(ctx context.Context, ended <-chan error) error {
	playing, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	for _, c := range s.clients {
		clients.Go(func() { c.client.Run(playing) })
	}
	defer func() {
		stop()
		clients.Wait()
		s.failing.Wait()
		s.settle(true)
		s.count()
	}()
	frames := time.NewTicker(frame)
	defer frames.Stop()
	var failovers <-chan time.Time
	if s.o.FailoverEvery > 0 {
		ticker := time.NewTicker(s.o.FailoverEvery)
		defer ticker.Stop()
		failovers, s.next = ticker.C, time.Now().Add(s.o.FailoverEvery)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return err
		case <-failovers:
			s.next = time.Now().Add(s.o.FailoverEvery)
			s.beginFailover(playing)
		case o := <-s.changes:
			s.promoted(o)
		case <-frames.C:
			s.sample()
			s.count()
			s.settle(false)
			s.feed.draw(s.view)
		}
	}
}
