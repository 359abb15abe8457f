package healthcheck

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const ms = time.Millisecond

// fake is a port that answers by the clock: what, and after how long.
type fake struct {
	scene   *scene
	answers func(at time.Duration) (Class, time.Duration)
	holds   func(at time.Duration) bool // whether a Status is one of a holder of the lock; nil = never

	mu       sync.Mutex
	starts   []time.Duration // since the scene's start
	limits   []time.Duration
	inFlight int
	most     int
}

const never = time.Hour

func (f *fake) Probe(ctx context.Context, _ netip.AddrPort, deadline time.Time) Result {
	start := time.Now()
	at := start.Sub(f.scene.start)
	f.mu.Lock()
	f.starts = append(f.starts, at)
	f.limits = append(f.limits, deadline.Sub(start))
	f.inFlight++
	f.most = max(f.most, f.inFlight)
	f.mu.Unlock()

	class, delay := f.answers(at)
	late := deadline.Sub(start)
	if delay < never && delay > 2*time.Second+late {
		late = delay // a stopped process: not even the deadline holds
	}
	timer := time.NewTimer(min(delay, late))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		class = Timeout
	}
	if delay > deadline.Sub(start) {
		class = Timeout
	}
	f.mu.Lock()
	f.inFlight--
	f.mu.Unlock()
	holds := class == Status && f.holds != nil && f.holds(time.Since(f.scene.start))
	return Result{Class: class, Reason: "scripted", Took: time.Since(start), Promoting: holds}
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.starts)
}

// always answers the same after so long.
func always(class Class, delay time.Duration) func(time.Duration) (Class, time.Duration) {
	return func(time.Duration) (Class, time.Duration) { return class, delay }
}

// until answers as before up to a moment, and then as after.
func until(when time.Duration, before, after func(time.Duration) (Class, time.Duration)) func(time.Duration) (Class, time.Duration) {
	return func(at time.Duration) (Class, time.Duration) {
		if at < when {
			return before(at)
		}
		return after(at)
	}
}

var (
	passes  = always(Passed, 5*ms)
	refuses = always(Refused, ms)
	dropped = always(Timeout, never)
)

// scene is one monitor with two scripted ports, in a bubble of fake time.
type scene struct {
	start     time.Time
	rest, sql *fake
	m         *Monitor
	mu        sync.Mutex
	reports   []Report
	stop      func()
}

// play starts a monitor with the defaults of a leader backend, as changed.
func play(t *testing.T, rest, sql func(time.Duration) (Class, time.Duration), change func(*MonitorOptions)) *scene {
	s := &scene{start: time.Now()}
	s.rest, s.sql = &fake{scene: s, answers: rest}, &fake{scene: s, answers: sql}
	o := MonitorOptions{
		Server: 7, Prober: s.rest, SQLProber: s.sql,
		Addr: netip.MustParseAddrPort("10.100.2.5:8008"), SQLAddr: netip.MustParseAddrPort("10.100.2.5:5432"),
		Inter: 3 * time.Second, FastInter: 250 * ms, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Witness: true,
	}
	if change != nil {
		change(&o)
	}
	s.m = NewMonitor(o, func(r Report) {
		s.mu.Lock()
		s.reports = append(s.reports, r)
		s.mu.Unlock()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.m.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		for name, f := range map[string]*fake{"REST": s.rest, "SQL": s.sql} {
			if f.inFlight != 0 || f.most > 1 {
				t.Errorf("%s: %d probes left in flight, %d at once", name, f.inFlight, f.most)
			}
		}
	})
	return s
}

// run lets time pass, and returns the reports of that time.
func (s *scene) run(d time.Duration) []Report {
	s.mu.Lock()
	before := len(s.reports)
	s.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports[before:]
}

// downAt returns when the server was marked DOWN, or 0.
func (s *scene) downAt() time.Duration {
	for _, r := range s.reports {
		if r.Changed && !r.Up {
			return r.At.Sub(s.start)
		}
	}
	return 0
}

func up() *Counter {
	c := NewCounter(2, 3)
	c.Add(true)
	c.Add(true)
	return c
}

func startUp(o *MonitorOptions) { o.Counter = up() }

func equal(a, b []time.Duration) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
