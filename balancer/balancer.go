// Package balancer is the owner: it knows which server gets the next session
// and which sessions must die. One goroutine, Run's, writes its state;
// everybody else sends it values and reads snapshots. Probing is left to
// healthcheck, moving bytes to balancer/relay, and reading files to nobody
// here: a configuration arrives as a value, by Apply.
//
//	config.Config ──Apply──▶ ┌───────┐ ──routes──▶ loops (Route)
//	monitors ────reports───▶ │ owner │ ──Fence, Recall, Wake──▶ loops
//	loops ───────events────▶ └───────┘ ──Hint, SetTransition──▶ monitors
package balancer

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pointsman/balancer/relay"
	"pointsman/config"
	"pointsman/healthcheck"
)

const (
	// tick is how often the owner looks at what only time changes: overdue
	// reports, the end of a transition, a lone claimant. No failover waits for it.
	tick = 250 * time.Millisecond
	// retry is how often a held client is asked about again although nothing
	// was heard: after a refused connect to a server that is still vouched for.
	retry = 250 * time.Millisecond
)

// Options are what the balancer needs beside its configuration.
type Options struct {
	Version string
	Loops   int // event loops; 0 = one per core, at most 4
	Log     *slog.Logger
}

// Balancer runs the frontends and backends of one configuration.
type Balancer struct {
	opt    Options
	log    *slog.Logger
	engine *relay.Engine
	routes atomic.Pointer[routes] // what the loops see; only the owner stores

	reports  chan report
	events   chan relay.Event
	calls    chan func()
	sessions chan relay.Record // ended sessions, to be logged
	missed   atomic.Int32      // ended sessions that found that queue full
	done     chan struct{}     // closed when Run has ended

	// What follows belongs to the owner's goroutine.
	ctx        context.Context
	monitors   sync.WaitGroup
	cfg        config.Config
	started    time.Time
	ticked     time.Time
	listeners  []*listener
	frontends  []*frontend // in the configuration's order
	backends   []*backend
	stores     []*store
	servers    map[int32]*server // of the backends, by number
	next       routes            // the tables that only grow; the rest is made by publish
	lastEpoch  relay.Epoch
	generation uint32 // of the last monitor that was started
	history    history
}

// report is a monitor's report with the monitor's generation, so that a word
// of one that was stopped is not taken for its successor's.
type report struct {
	healthcheck.Report
	generation uint32
}

// New makes a balancer without any configuration.
func New(o Options) (*Balancer, error) {
	b := &Balancer{
		opt: o, log: o.Log,
		reports:  make(chan report, 64),
		events:   make(chan relay.Event, 256),
		calls:    make(chan func()),
		sessions: make(chan relay.Record, 1024),
		done:     make(chan struct{}),
		servers:  map[int32]*server{},
		started:  time.Now(),
	}
	b.routes.Store(&routes{})
	var err error
	b.engine, err = relay.New(relay.Options{Loops: o.Loops, Director: b, Log: o.Log})
	return b, err
}

// Run owns the balancer's state until ctx is done; then it stops accepting,
// lets sessions end for stop_grace, and closes the rest.
func (b *Balancer) Run(ctx context.Context) error {
	defer close(b.done)
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.ctx = own
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		b.logSessions(own)
	}()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	b.ticked = time.Now()
	for ctx.Err() == nil {
		b.step(ctx.Done(), ticker.C)
	}
	b.stop(ticker.C)
	err := b.engine.Close()
	cancel()
	b.monitors.Wait()
	<-logged // after the engine: its last sessions have lines too
	return err
}

// step handles one message.
func (b *Balancer) step(done <-chan struct{}, ticks <-chan time.Time) {
	select {
	case r := <-b.reports:
		b.onReport(r)
	case e := <-b.events:
		b.onEvent(e)
	case call := <-b.calls:
		call()
	case <-ticks:
		b.onTick(time.Now())
	case <-done:
	}
}

// do runs f on the owner's goroutine and waits for it. It reports false if
// the balancer has ended.
func (b *Balancer) do(f func()) bool {
	ran := make(chan struct{})
	select {
	case b.calls <- func() { f(); close(ran) }:
		<-ran
		return true
	case <-b.done:
		return false
	}
}

// stop ends the service but for the sessions that are left after their grace:
// those end with the engine. Checks go on meanwhile, because a deposed leader's
// sessions must end even now.
func (b *Balancer) stop(ticks <-chan time.Time) {
	for _, l := range b.listeners {
		b.engine.Unlisten(l.id)
	}
	for _, f := range b.frontends {
		f.backend = nil // who waits is refused
	}
	b.publish()
	b.engine.Wake(-1)
	grace := b.cfg.Global.StopGrace
	if n := b.current(); grace > 0 && n > 0 {
		b.log.Info("stopping: sessions may end by themselves", "sessions", n, "grace", grace)
	}
	over, cancel := context.WithTimeout(b.ctx, grace)
	defer cancel()
	for over.Err() == nil && b.current() > 0 {
		b.step(over.Done(), ticks)
	}
}

// current counts the sessions that have a server.
func (b *Balancer) current() (n int64) {
	for _, s := range b.next.server {
		n += int64(s.taken.Load())
	}
	return n
}
