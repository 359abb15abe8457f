package healthcheck

import (
	"testing"
	"testing/synctest"
	"time"
)

// The host of an UP server is gone without a word, at any moment between two
// probes: inter 3s, fall 3, timeout_check 2s, fastinter 250ms.
func TestMonitorHostVanishes(t *testing.T) {
	const budget, typical = 5900 * ms, 4500 * ms
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
		{"both are silent", from(dropped), from(dropped), nil, 2800 * ms, 2900 * ms},
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

// When a server counts as dead, so that what drains there ends: so long after
// 3.1 s, when its two ports begin to answer like this. 0 = never.
func TestMonitorDeath(t *testing.T) {
	from := func(f func(time.Duration) (Class, time.Duration)) func(time.Duration) (Class, time.Duration) {
		return until(3100*ms, passes, f)
	}
	lags, noRoute := always(Status, 5*ms), always(Unreachable, ms)
	drains := func(o *MonitorOptions) { startUp(o); o.Drains = true }
	tests := []struct {
		name      string
		rest, sql func(time.Duration) (Class, time.Duration)
		change    func(*MonitorOptions)
		from, to  time.Duration
	}{
		{"lags", from(lags), passes, drains, 0, 0},
		{"lags, takes no sessions", from(lags), from(refuses), drains, 0, 0},
		{"Patroni is gone", from(refuses), passes, drains, 0, 0},
		{"Patroni hangs", from(dropped), passes, drains, 0, 0},
		{"both processes are gone", from(refuses), from(refuses), drains, 3 * time.Second, 3600 * ms},
		{"the host is gone", from(dropped), from(dropped), drains, 5 * time.Second, 6 * time.Second},
		// DOWN from 12.2 s on; the next probe is at 15.2 s.
		{"lags, then both processes are gone", from(until(14*time.Second, lags, refuses)), from(until(14*time.Second, passes, refuses)),
			drains, 12 * time.Second, 13 * time.Second},
		{"lags, then the host is gone", from(until(14*time.Second, lags, dropped)), from(until(14*time.Second, passes, dropped)),
			drains, 14 * time.Second, 15500 * ms},
		{"lags, then no network for a second and a half", from(until(14*time.Second, lags, until(16700*ms, noRoute, lags))),
			from(until(14*time.Second, passes, until(16700*ms, noRoute, passes))), drains, 0, 0},
		{"dead, and DOWN without sessions", from(until(14*time.Second, lags, refuses)), from(until(14*time.Second, passes, refuses)), startUp, 0, 0},
		{"one port alone, refuses", from(refuses), passes, func(o *MonitorOptions) { drains(o); o.Witness = false }, 3 * time.Second, 3600 * ms},
		{"one port alone, says no", from(lags), passes, func(o *MonitorOptions) { drains(o); o.Witness = false }, 0, 0},
		{"no descriptor to ask with", from(always(SocketError, ms)), from(always(SocketError, ms)), drains, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := play(t, tt.rest, tt.sql, tt.change)
				s.run(40 * time.Second)
				s.stop()
				var dead time.Duration
				for _, r := range s.reports {
					if r.Dead {
						dead = r.At.Sub(s.start) - 3100*ms
						break
					}
				}
				if dead < tt.from || dead > tt.to {
					t.Errorf("dead after %v, want %v to %v\nREST asked at %v\nSQL asked at %v", dead, tt.from, tt.to, s.rest.starts, s.sql.starts)
				}
			})
		})
	}
}
