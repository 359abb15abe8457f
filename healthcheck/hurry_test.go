package healthcheck

import (
	"testing"
	"testing/synctest"
	"time"
)

// delayed answers as f says at the moment of the answer, not of the question:
// so long after the question, half of it on the way back.
func delayed(delay time.Duration, writable time.Duration) func(time.Duration) (Class, time.Duration) {
	return func(asked time.Duration) (Class, time.Duration) {
		if asked+delay/2 < writable {
			return Status, delay
		}
		return Passed, delay
	}
}

// A server holds the lock for a second and is writable then, at any moment
// between two probes. However slow its answers, up to 26 ms, it is UP within
// 150 ms.
func TestMonitorNoticesAPromotion(t *testing.T) {
	for _, delay := range []time.Duration{2 * ms, 10 * ms, 26 * ms} {
		var worst time.Duration
		for writable := 4 * time.Second; writable < 4120*ms; writable += ms {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, delayed(delay, writable), passes, func(o *MonitorOptions) {
					o.Prober.(*fake).holds = func(at time.Duration) bool { return at > writable-time.Second }
				})
				s.m.SetTransition(true)
				s.run(8 * time.Second)
				s.stop()
				for _, r := range s.reports {
					if r.Changed {
						worst = max(worst, r.At.Sub(s.start)-writable)
						return
					}
				}
				t.Error("never UP")
			})
		}
		if worst > 150*ms {
			t.Errorf("answers in %v: UP %v after it was writable", delay, worst)
		}
		t.Logf("answers in %v: UP %v after it was writable, at worst", delay, worst)
	}
}

// A promotion that does not end is asked after in haste for 5 s, and no
// longer; a silence in between is no new beginning.
func TestMonitorPromotionThatHangs(t *testing.T) {
	for _, silence := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := play(t, func(at time.Duration) (Class, time.Duration) {
				if silence && at > 4*time.Second && at < 4200*ms {
					return Refused, ms
				}
				return Status, 5 * ms
			}, passes, func(o *MonitorOptions) { o.Prober.(*fake).holds = func(time.Duration) bool { return true } })
			s.run(10 * time.Second)
			s.stop()
			haste, after := 0, 0
			for _, at := range s.rest.starts {
				if at < 5200*ms {
					haste++
				} else {
					after++
				}
			}
			// 55 ms from start to start, then downinter. A refused connect is
			// followed by downinter too: no transition is on.
			least := 90
			if silence {
				least = 70
			}
			if haste < least || haste > 94 || after > 2 {
				t.Errorf("silence %v: %d probes within 5 s, %d after\n%v", silence, haste, after, s.rest.starts)
			}
		})
	}
}

// A leader that restarts is UP, and is seen running at once; a plain refusal
// is not hastened.
func TestMonitorPromotionOfALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, until(5*time.Second, always(Status, 5*ms), passes), passes, func(o *MonitorOptions) {
			startUp(o)
			o.Prober.(*fake).holds = func(at time.Duration) bool { return at > 3*time.Second }
		})
		s.run(8 * time.Second)
		s.stop()
		quick := 0
		for _, r := range s.reports {
			if at := r.At.Sub(s.start); at > 3100*ms && at < 5*time.Second {
				quick++
			}
			if r.Changed {
				t.Errorf("DOWN after %v", r.At.Sub(s.start))
			}
		}
		if quick < 28 {
			t.Errorf("%d answers in 1.9 s", quick)
		}
	})
}

// The key in etcd is written before the REST API says so: what a hint finds
// unchanged is asked again soon.
func TestMonitorHintBeforeTheTruth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, until(1030*ms, always(Status, 5*ms), passes), passes, nil)
		s.run(time.Second)
		s.m.Hint()
		s.run(150 * ms)
		s.stop()
		want := []time.Duration{0, 1000 * ms, 1055 * ms, 1080 * ms}
		if !equal(s.rest.starts, want) {
			t.Errorf("probes at %v\nwant      %v", s.rest.starts, want)
		}
	})
}

// The host of an UP server is gone without a word, at any moment between two
// probes, and a session's bytes have not been acknowledged for half a second.
func TestMonitorHostVanishesUnderLoad(t *testing.T) {
	const budget = 2800 * ms
	for _, transition := range []bool{true, false} { // what a hint means is known without the owner
		for _, answer := range []time.Duration{5 * ms, 90 * ms, 250 * ms} {
			var worst time.Duration
			for gone := 3010 * ms; gone < 6300*ms; gone += 10 * ms {
				synctest.Test(t, func(t *testing.T) {
					vanished := until(gone, always(Passed, answer), dropped)
					s := play(t, vanished, vanished, startUp)
					s.run(gone + 500*ms)
					s.m.SetTransition(transition)
					s.m.Hint()
					s.run(20 * time.Second)
					s.stop()
					took := s.downAt() - gone
					if took <= 0 || took > budget {
						t.Errorf("answers in %v: vanished at %v, DOWN after %v: probes at %v", answer, gone, took, s.rest.starts)
					}
					worst = max(worst, took)
				})
			}
			t.Logf("transition %v, answers in %v: DOWN after %v at worst", transition, answer, worst)
		}
	}
}

// A server that lives, though its answers are slow, or come from its SQL port
// alone, is marked DOWN by a hint no sooner than HAProxy would: never, or by
// three failures with inter from the first to the last.
func TestMonitorHintsAtALivingServer(t *testing.T) {
	slow := always(Passed, 600*ms)
	tests := []struct {
		name      string
		rest, sql func(time.Duration) (Class, time.Duration)
		least     time.Duration // from the first failure; 0 = never DOWN
	}{
		{"both answer in 600 ms", slow, slow, 0},
		{"REST answers in 600 ms", slow, passes, 0},
		{"REST answers in 1.5 s", always(Passed, 1500*ms), passes, 0},
		{"REST is silent", dropped, passes, 6 * time.Second},
		{"REST refuses", refuses, passes, 6 * time.Second},
		{"not the primary", always(Status, 5*ms), passes, 6 * time.Second},
		{"not the primary, and slowly", always(Status, 600*ms), slow, 6 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for from := 3010 * ms; from < 6300*ms; from += 70 * ms {
				synctest.Test(t, func(t *testing.T) {
					s := play(t, until(from, passes, tt.rest), until(from, passes, tt.sql), startUp)
					s.run(from + 500*ms)
					s.m.SetTransition(true)
					for range 40 { // one hint after the other
						s.m.Hint()
						s.run(250 * ms)
					}
					s.stop()
					var first time.Duration
					for _, r := range s.reports {
						if !r.OK() && first == 0 {
							first = r.At.Sub(s.start)
						}
					}
					switch down := s.downAt(); {
					case down == 0:
					case tt.least == 0:
						t.Errorf("from %v: DOWN at %v", from, down)
					case down-first < tt.least:
						t.Errorf("from %v: DOWN %v after the first failure", from, down-first)
					}
				})
			}
		})
	}
}

// A hint leaves a probe that is under way the time that it has in transition,
// from its start, and no more.
func TestMonitorHintCutsAProbeShort(t *testing.T) {
	tests := []struct {
		name       string
		hint, ends time.Duration // after the probe's start
	}{
		{"no hint", 0, 2000 * ms},
		{"early", 100 * ms, 700 * ms},
		{"late", 1200 * ms, 1200 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, dropped, passes, startUp)
				if tt.hint > 0 {
					s.run(tt.hint)
					s.m.Hint()
				}
				s.run(3 * time.Second)
				s.stop()
				if r := s.reports[0]; r.At.Sub(s.start) != tt.ends || r.Class != Timeout || !r.SQLAlive {
					t.Errorf("ended at %v, want %v: %+v", r.At.Sub(s.start), tt.ends, r)
				}
			})
		})
	}
}

// In transition a probe that ran into its deadline has been waited for already.
func TestMonitorDeadlinesCountFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, dropped, dropped, func(o *MonitorOptions) { o.Witness = false; o.FastInter = 900 * ms })
		s.m.SetTransition(true)
		s.run(5 * time.Second)
		s.stop()
		// 700 ms, then timeout_check in case it is only slow.
		want := []time.Duration{0, 900 * ms, 2920 * ms, 4940 * ms}
		if !equal(s.rest.starts, want) {
			t.Errorf("probes at %v\nwant      %v", s.rest.starts, want)
		}
	})
}

// A hint between the moment that a probe is due and its start is none too late.
func TestFlightHintedBeforeItTookOff(t *testing.T) {
	m := NewMonitor(MonitorOptions{}, nil)
	m.Hint()
	f := m.takeOff(t.Context(), time.Now())
	select {
	case <-f.ctx.Done():
	case <-time.After(5 * time.Second):
		t.Error("it has the time of one without a hint")
	}
	if !m.land(f) {
		t.Error("it was not cut short")
	}
}

// REST and SQL port turn slow at once. The hint that cuts REST short leaves
// the witness its time, and the next probe may take as long as it must.
func TestMonitorHintAtASlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, until(3*time.Second, always(Passed, 400*ms), always(Passed, 1500*ms)),
			until(3*time.Second, passes, always(Passed, 790*ms)), startUp)
		s.run(3500 * ms) // the second probe started at 3.4 s
		s.m.Hint()
		s.run(5 * time.Second)
		s.stop()
		if r := s.reports[1]; r.Class != Timeout || !r.SQLAlive || r.At.Sub(s.start) != 4490*ms {
			t.Errorf("at %v: %+v", r.At.Sub(s.start), r)
		}
		if r := s.reports[2]; !r.OK() {
			t.Errorf("at %v: %+v; limits %v", r.At.Sub(s.start), r, s.rest.limits)
		}
	})
}
