package healthcheck

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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
			[]time.Duration{0, 120 * ms, 3220 * ms, 6320 * ms, 9420 * ms}},
		{"fastinter below 20 ms is kept", passes, func(o *MonitorOptions) { o.FastInter = 10 * ms },
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
