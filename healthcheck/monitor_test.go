package healthcheck

import (
	"context"
	"math/rand/v2"
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
	}
	if delay > deadline.Sub(start) {
		class = Timeout
	}
	f.mu.Lock()
	f.inFlight--
	f.mu.Unlock()
	return Result{Class: class, Reason: "scripted", Took: time.Since(start)}
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

func TestMonitorPace(t *testing.T) {
	tests := []struct {
		name   string
		rest   func(time.Duration) (Class, time.Duration)
		change func(*MonitorOptions)
		starts []time.Duration
	}{
		{"UP: inter counts from end to start", always(Passed, 100*ms), startUp,
			[]time.Duration{0, 3100 * ms, 6200 * ms, 9300 * ms}},
		{"from DOWN to UP: confirmed fast", always(Passed, 100*ms), nil,
			[]time.Duration{0, 150 * ms, 3250 * ms, 6350 * ms, 9450 * ms}},
		{"fastinter below 50 ms is kept", passes, func(o *MonitorOptions) { o.FastInter = 10 * ms },
			[]time.Duration{0, 15 * ms, 3020 * ms, 6025 * ms, 9030 * ms}},
		{"staggered", passes, func(o *MonitorOptions) { o.Stagger = time.Second; o.Counter = up() },
			[]time.Duration{1000 * ms, 4005 * ms, 7010 * ms}},
		{"DOWN: downinter", always(Status, 5*ms), func(o *MonitorOptions) { o.DownInter = 5 * time.Second },
			[]time.Duration{0, 5005 * ms}},
		{"DOWN: inter where downinter is not given", always(Status, 5*ms), nil,
			[]time.Duration{0, 3005 * ms, 6010 * ms, 9015 * ms}},
		{"a failure quickens", until(3*time.Second, passes, until(3500*ms, always(Status, 5*ms), passes)), startUp,
			// Each failure takes 5 ms more for the witness.
			[]time.Duration{0, 3005 * ms, 3265 * ms, 3525 * ms, 6530 * ms, 9535 * ms}},
		{"timeouts", dropped, nil, []time.Duration{0, 5000 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, tt.rest, passes, tt.change)
				s.run(9900 * ms)
				s.stop()
				if !equal(s.rest.starts, tt.starts) {
					t.Errorf("probes at %v\nwant      %v", s.rest.starts, tt.starts)
				}
			})
		})
	}
}

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

// In transition probes come at fastinter, whatever was waited for, and back.
func TestMonitorTransition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, passes, passes, startUp)
		s.run(1 * time.Second)
		s.m.SetTransition(true) // the latest probe ended at 5 ms: one is due now
		s.run(600 * ms)         // 1000, 1255, 1510
		s.m.SetTransition(false)
		s.run(4 * time.Second)
		s.stop()
		want := []time.Duration{0, 1000 * ms, 1255 * ms, 1510 * ms, 4515 * ms}
		if !equal(s.rest.starts, want) {
			t.Errorf("probes at %v\nwant      %v", s.rest.starts, want)
		}
		if s.rest.limits[0] != 2*time.Second || s.rest.limits[1] != 700*ms || s.rest.limits[4] != 2*time.Second {
			t.Errorf("limits %v", s.rest.limits)
		}
	})
}

func TestMonitorHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, always(Passed, 100*ms), passes, startUp)
		s.run(1 * time.Second)
		s.m.Hint() // at once: 1000
		s.run(50 * ms)
		for range 50 {
			s.m.Hint() // while in flight: one more, right after 1100
		}
		s.run(4 * time.Second)
		s.stop()
		want := []time.Duration{0, 1000 * ms, 1120 * ms, 4220 * ms}
		if !equal(s.rest.starts, want) {
			t.Errorf("probes at %v\nwant      %v", s.rest.starts, want)
		}
	})
}

func TestMonitorHintBeforeTheFirstProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, passes, passes, func(o *MonitorOptions) { o.Stagger = 2 * time.Second })
		s.run(500 * ms)
		s.m.Hint()
		s.run(10 * ms)
		s.stop()
		if !equal(s.rest.starts, []time.Duration{500 * ms}) {
			t.Errorf("probes at %v", s.rest.starts)
		}
	})
}

// A storm of hints is no attack on Patroni's five threads.
func TestMonitorHintStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, passes, passes, startUp)
		for range 1000 {
			s.m.Hint()
			time.Sleep(ms)
		}
		s.stop()
		if n := s.rest.count(); n < 30 || n > 41 {
			t.Errorf("%d probes in a second", n)
		}
	})
}

// The host of an UP server is gone without a word, at any moment between two
// probes: inter 3s, fall 3, timeout_check 2s, fastinter 250ms.
func TestMonitorHostVanishes(t *testing.T) {
	const budget, typical = 6500 * ms, 5 * time.Second
	var worst, sum time.Duration
	n := 0
	for gone := 3010 * ms; gone < 6020*ms; gone += 25 * ms {
		synctest.Test(t, func(t *testing.T) {
			vanished := until(gone, passes, dropped)
			s := play(t, vanished, vanished, startUp)
			s.run(20 * time.Second)
			s.stop()
			took := s.downAt() - gone
			if took <= 0 || took > budget {
				t.Errorf("vanished at %v, DOWN after %v: probes at %v", gone, took, s.rest.starts)
			}
			worst, sum, n = max(worst, took), sum+took, n+1
		})
	}
	if mean := sum / time.Duration(n); mean > typical {
		t.Errorf("on average DOWN after %v", mean)
	}
	t.Logf("DOWN after %v at worst, %v on average", worst, sum/time.Duration(n))
}

// What becomes of an UP server whose two ports answer like this from 3.1 s on.
// REST's first failure is at 6.01 s.
func TestMonitorTwoWitnesses(t *testing.T) {
	from := func(f func(time.Duration) (Class, time.Duration)) func(time.Duration) (Class, time.Duration) {
		return until(3100*ms, passes, f)
	}
	brief := func(d time.Duration, f func(time.Duration) (Class, time.Duration)) func(time.Duration) (Class, time.Duration) {
		return from(until(6010*ms+d, f, passes))
	}
	noRoute := always(Unreachable, ms)
	tests := []struct {
		name      string
		rest, sql func(time.Duration) (Class, time.Duration)
		change    func(*MonitorOptions)
		from, to  time.Duration // DOWN so long after 6.01 s; 0 = never
	}{
		{"Patroni's process restarts in 5 s", brief(5*time.Second, refuses), passes, nil, 0, 0},
		{"Patroni's process is gone", from(refuses), passes, nil, 6 * time.Second, 6600 * ms},
		{"Patroni hangs", from(dropped), passes, nil, 8 * time.Second, 11 * time.Second},
		{"not the primary any more", from(always(Status, 5*ms)), passes, nil, 6 * time.Second, 6600 * ms},
		{"not the primary, PostgreSQL stopped", from(always(Status, 5*ms)), from(refuses), nil, 6 * time.Second, 6600 * ms},
		{"both processes are gone", from(refuses), from(refuses), nil, 400 * ms, 600 * ms},
		{"both are silent", from(dropped), from(dropped), nil, 3200 * ms, 3400 * ms},
		{"REST refuses, SQL is silent", from(refuses), from(dropped), nil, 1600 * ms, 1800 * ms},
		{"no network for a second and a half", brief(1500*ms, noRoute), brief(1500*ms, noRoute), nil, 0, 0},
		{"no network", from(noRoute), from(noRoute), nil, 2 * time.Second, 2600 * ms},
		{"silence, then no route", from(until(6100*ms, dropped, noRoute)), from(until(7*time.Second, dropped, noRoute)), nil, 2300 * ms, 3600 * ms},
		{"no descriptor for REST", from(always(SocketError, ms)), passes, nil, 0, 0},
		{"no descriptor for the witness", from(refuses), from(always(SocketError, ms)), nil, 6 * time.Second, 6600 * ms},
		{"no witness: every failure counts", from(refuses), passes, func(o *MonitorOptions) { o.Witness = false }, 400 * ms, 600 * ms},
		{"no witness, no network", from(noRoute), passes, func(o *MonitorOptions) { o.Witness = false }, 2 * time.Second, 2600 * ms},
		{"one failure now and then", from(func(at time.Duration) (Class, time.Duration) {
			if at/(500*ms)%2 == 0 {
				return Refused, ms
			}
			return Passed, ms
		}), refuses, nil, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, tt.rest, tt.sql, func(o *MonitorOptions) {
					startUp(o)
					if tt.change != nil {
						tt.change(o)
					}
				})
				s.run(30 * time.Second)
				s.stop()
				down := s.downAt()
				if down != 0 {
					down -= 6010 * ms
				}
				if down < tt.from || down > tt.to {
					t.Errorf("DOWN %v after the first failure; want %v to %v\nREST asked at %v\nSQL asked at %v",
						down, tt.from, tt.to, s.rest.starts, s.sql.starts)
				}
			})
		})
	}
}

// The witness is asked when REST fails, or is late; never beside a quick
// answer, and never about a DOWN server.
func TestMonitorAsksTheWitness(t *testing.T) {
	tests := []struct {
		name   string
		rest   func(time.Duration) (Class, time.Duration)
		sql    func(time.Duration) (Class, time.Duration)
		change func(*MonitorOptions)
		asked  []time.Duration
		alive  bool
		ends   time.Duration // of the first probe
	}{
		{"REST passes", always(Passed, 250*ms), passes, startUp, nil, false, 250 * ms},
		{"REST refuses", refuses, passes, startUp, []time.Duration{ms}, true, 6 * ms},
		{"REST says no", always(Status, 40*ms), passes, startUp, []time.Duration{40 * ms}, true, 45 * ms},
		{"REST is late and passes", always(Passed, 400*ms), dropped, startUp, []time.Duration{300 * ms}, false, 400 * ms},
		{"REST is silent", dropped, passes, startUp, []time.Duration{300 * ms}, true, 2000 * ms},
		{"both are silent", dropped, dropped, startUp, []time.Duration{300 * ms}, false, 2000 * ms},
		{"REST refuses, SQL is silent", refuses, dropped, startUp, []time.Duration{ms}, false, 401 * ms},
		{"a DOWN server", refuses, passes, nil, nil, false, ms},
		{"a short timeout_check", dropped, passes, func(o *MonitorOptions) { o.Timeout = 100 * ms; o.Counter = up() },
			[]time.Duration{100 * ms}, true, 105 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, tt.rest, tt.sql, tt.change)
				reports := s.run(2100 * ms)
				s.stop()
				if len(reports) == 0 {
					t.Fatal("no report")
				}
				r := reports[0]
				if at := r.At.Sub(s.start); at != tt.ends || r.SQLAlive != tt.alive {
					t.Errorf("ended at %v, SQLAlive %v; want %v, %v", at, r.SQLAlive, tt.ends, tt.alive)
				}
				asked := s.sql.starts
				if len(asked) > 1 {
					asked = asked[:1]
				}
				if !equal(asked, tt.asked) {
					t.Errorf("SQL asked at %v, want %v", asked, tt.asked)
				}
			})
		})
	}
}

// A server becomes writable at any moment of a transition: it must be UP
// within 0.7 s, and with room to spare for what follows.
func TestMonitorFindsANewLeader(t *testing.T) {
	var worst time.Duration
	for at := 5 * time.Second; at < 5300*ms; at += 5 * ms {
		synctest.Test(t, func(t *testing.T) {
			s := play(t, until(at, always(Status, 20*ms), always(Passed, 20*ms)), passes, nil)
			s.m.SetTransition(true)
			s.run(8 * time.Second)
			s.stop()
			for _, r := range s.reports {
				if r.Changed {
					worst = max(worst, r.At.Sub(s.start)-at)
					return
				}
			}
			t.Error("never UP")
		})
	}
	if worst > 400*ms {
		t.Errorf("UP after %v at worst", worst)
	}
	t.Logf("UP after %v at worst", worst)
}

// Where answers take longer than the limits of a transition, the server is
// found and kept all the same.
func TestMonitorSlowServer(t *testing.T) {
	for _, slow := range []time.Duration{500 * ms, 800 * ms, 1500 * ms} {
		synctest.Test(t, func(t *testing.T) {
			s := play(t, always(Passed, slow), always(Passed, slow), nil)
			s.m.SetTransition(true)
			s.run(20 * time.Second)
			if !s.reports[len(s.reports)-1].Up {
				t.Errorf("answers after %v: never UP; limits %v", slow, s.rest.limits)
			}
			s.stop()
		})
		synctest.Test(t, func(t *testing.T) {
			// Quick until now; then REST turns slow, and a transition begins.
			s := play(t, until(4*time.Second, passes, always(Passed, slow)), passes, startUp)
			s.run(5 * time.Second)
			s.m.SetTransition(true)
			s.run(20 * time.Second)
			if at := s.downAt(); at != 0 {
				t.Errorf("answers after %v: DOWN at %v; limits %v", slow, at, s.rest.limits)
			}
			s.stop()
		})
	}
}

// A process that was stopped in the midst of a probe does not blame the
// server, and makes one probe then, not all that it missed.
func TestMonitorProcessStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopped := func(at time.Duration) (Class, time.Duration) {
			if at > 2*time.Second && at < 4*time.Second {
				return Passed, time.Minute
			}
			return Passed, 5 * ms
		}
		s := play(t, stopped, passes, func(o *MonitorOptions) { o.Rise, o.Fall, o.Counter = 1, 1, NewCounter(1, 1); o.Witness = false })
		s.run(70 * time.Second)
		s.stop()
		if s.downAt() != 0 {
			t.Errorf("DOWN at %v", s.downAt())
		}
		want := []time.Duration{0, 3005 * ms, 63025 * ms, 66030 * ms, 69035 * ms}
		if !equal(s.rest.starts, want) {
			t.Errorf("probes at %v\nwant      %v", s.rest.starts, want)
		}
		if len(s.reports) != len(want)-1 {
			t.Errorf("%d reports", len(s.reports))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// A prober that is late every time is not excused for ever.
		s := play(t, always(Passed, 10*time.Second), passes, func(o *MonitorOptions) { o.Counter = up(); o.Witness = false })
		s.run(100 * time.Second)
		s.stop()
		if s.downAt() == 0 {
			t.Error("never DOWN")
		}
	})
}

func TestMonitorReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, until(3100*ms, passes, until(6200*ms, refuses, passes)), refuses, nil)
		s.run(10 * time.Second)
		s.stop()
		want := []struct {
			up, changed            bool
			streak, needed, health int
		}{
			{false, false, 1, 2, 1}, {true, true, 0, 3, 4}, {true, false, 0, 3, 4}, // 0, 0.055, 3.06
			{true, false, 1, 3, 3}, {true, false, 0, 3, 4}, {true, false, 0, 3, 4}, // 6.065 fails
		}
		if len(s.reports) != len(want) {
			t.Fatalf("%d reports: %+v", len(s.reports), s.reports)
		}
		for i, w := range want {
			r := s.reports[i]
			if r.Server != 7 || r.Up != w.up || r.Changed != w.changed || r.Streak != w.streak || r.Needed != w.needed || r.Health != w.health {
				t.Errorf("report %d: %+v\nwant %+v", i, r, w)
			}
		}
	})
}

func TestMonitorAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, passes, passes, func(o *MonitorOptions) { o.Addr = netip.AddrPort{} })
		reports := s.run(time.Second)
		if len(reports) != 1 || reports[0].Class != Unresolved || reports[0].Up || s.rest.count() != 0 {
			t.Errorf("without an address: %+v", reports)
		}
		s.m.SetAddrs(netip.MustParseAddrPort("10.0.0.1:8008"), netip.MustParseAddrPort("10.0.0.1:5432"))
		reports = s.run(100 * ms)
		if len(reports) != 2 || !reports[1].Up {
			t.Errorf("with one: %+v", reports)
		}
		s.stop()
	})
}

// A probe in flight is abandoned when Run is told to end, and not reported.
func TestMonitorEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, dropped, dropped, startUp)
		s.run(500 * ms) // both are being asked
		begin := time.Now()
		s.stop()
		if took := time.Since(begin); took != 0 {
			t.Errorf("took %v", took)
		}
		if len(s.reports) != 0 {
			t.Errorf("reported %+v", s.reports)
		}
	})
}

func TestMaxSilence(t *testing.T) {
	tests := []struct {
		name                string
		change              func(*MonitorOptions)
		settled, transition time.Duration
	}{
		{name: "default", settled: 8600 * ms, transition: 5850 * ms},
		{name: "no witness", change: func(o *MonitorOptions) { o.Witness = false }, settled: 8 * time.Second, transition: 5250 * ms},
		{name: "long downinter", change: func(o *MonitorOptions) { o.DownInter = time.Minute }, settled: 65600 * ms, transition: 5850 * ms},
		{name: "short timeout_check", change: func(o *MonitorOptions) { o.Timeout = 100 * ms }, settled: 5 * time.Second, transition: 2250 * ms},
	}
	for _, tt := range tests {
		o := MonitorOptions{Inter: 3 * time.Second, FastInter: 250 * ms, Timeout: 2 * time.Second, Rise: 2, Fall: 3, Witness: true}
		if tt.change != nil {
			tt.change(&o)
		}
		m := NewMonitor(o, nil)
		if a, b := m.MaxSilence(false), m.MaxSilence(true); a != tt.settled || b != tt.transition {
			t.Errorf("%s: %v and %v, want %v and %v", tt.name, a, b, tt.settled, tt.transition)
		}
	}
}

// Whatever the ports do, and whatever the owner asks, no report is later than
// MaxSilence says, no port is asked twice at a time, and a server is DOWN only
// after fall failures and UP only after rise successes.
func TestMonitorNeverSilent(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			random := func(time.Duration) (Class, time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				classes := []Class{Passed, Passed, Refused, Timeout, Unreachable, Status, Protocol, SocketError}
				delays := []time.Duration{ms, 20 * ms, 290 * ms, 310 * ms, 690 * ms, 710 * ms, 1900 * ms, never}
				return classes[rnd.IntN(len(classes))], delays[rnd.IntN(len(delays))]
			}
			owner := rand.New(rand.NewPCG(seed, 2))
			s := play(t, random, random, func(o *MonitorOptions) {
				o.Witness = seed%3 != 0
				o.Inter = time.Duration(1+owner.IntN(5000)) * ms
				o.DownInter = time.Duration(1+owner.IntN(5000)) * ms
			})
			last, transition := time.Now(), false
			for range 400 {
				reports := s.run(time.Duration(1+owner.IntN(300)) * ms)
				for _, r := range reports {
					if silence := r.At.Sub(last); silence > s.m.MaxSilence(transition) {
						t.Fatalf("seed %d: silent for %v, promised %v", seed, silence, s.m.MaxSilence(transition))
					}
					last = r.At
				}
				if silence := time.Since(last); silence > s.m.MaxSilence(transition) {
					t.Fatalf("seed %d: silent for %v, promised %v", seed, silence, s.m.MaxSilence(transition))
				}
				switch owner.IntN(12) {
				case 0:
					transition = !transition
					s.m.SetTransition(transition)
					last = time.Now()
				case 1:
					s.m.Hint()
				}
			}
			s.stop()
		})
	}
}
