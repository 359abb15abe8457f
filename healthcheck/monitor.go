package healthcheck

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// MonitorOptions say what a Monitor watches, and at which pace.
type MonitorOptions struct {
	Server  int32          // the number in its reports
	Prober  Prober         // asks Addr
	Addr    netip.AddrPort // where checks go; invalid = the name has no address
	SQLAddr netip.AddrPort // where sessions go

	Inter     time.Duration // from the end of one probe to the start of the next
	FastInter time.Duration // the same in transition
	DownInter time.Duration // the same for a server that is DOWN; 0 = Inter
	Timeout   time.Duration // limit of one probe
	Rise      int           // with Fall for a new Counter
	Fall      int
	Counter   *Counter      // to go on with, the monitor's own until Run returns; nil = a new one
	Stagger   time.Duration // delay of the first probe

	// Witness: where an UP server's probe fails, its SQL port is asked too, and
	// while that accepts, failures count once per Inter.
	Witness   bool
	SQLProber Prober // how it is asked; nil = TCP
	// Drains: a server that is DOWN may have sessions, and the witness speaks
	// for them.
	Drains bool
}

// Monitor probes one server over and over, and reports each time.
type Monitor struct {
	o    MonitorOptions
	out  func(Report)
	wake chan struct{} // something changed that moves the next probe

	mu         sync.Mutex
	transition bool
	hinted     bool
	flight     *flight // the probe under way; nil = none
	addr, sql  netip.AddrPort

	pace         pace      // Run's own
	begun, ended time.Time // of the latest probe; zero = none yet
	start        time.Time // of Run
}

// NewMonitor returns a monitor that does nothing until Run. out is called on
// Run's goroutine after each probe; no probe starts until it returns.
func NewMonitor(o MonitorOptions, out func(Report)) *Monitor {
	if o.Counter == nil {
		o.Counter = NewCounter(o.Rise, o.Fall)
	}
	if o.DownInter == 0 {
		o.DownInter = o.Inter
	}
	if o.SQLProber == nil {
		o.SQLProber = TCP{}
	}
	return &Monitor{
		o: o, out: out, wake: make(chan struct{}, 1), addr: o.Addr, sql: o.SQLAddr,
		pace: pace{inter: o.Inter, fast: o.FastInter, down: o.DownInter, timeout: o.Timeout, witnessed: o.Witness, counter: o.Counter},
	}
}

// Hint asks for a probe now. While one is in flight, it is given no more time
// than in transition, and another follows it; many hints make one.
func (m *Monitor) Hint() {
	m.mu.Lock()
	m.hinted = true
	m.flight.hurry()
	m.mu.Unlock()
	m.stir()
}

// SetTransition says whether the backend is in transition: then probes come at
// FastInter. By itself the monitor does so only while answers speak against
// the server's state.
func (m *Monitor) SetTransition(on bool) {
	m.mu.Lock()
	m.transition = on
	m.mu.Unlock()
	m.stir()
}

// SetAddrs gives the server other addresses, and asks for a probe there. Its
// health stays as it was: whether it is still the same server is the owner's
// to say.
func (m *Monitor) SetAddrs(check, sql netip.AddrPort) {
	m.mu.Lock()
	m.addr, m.sql = check, sql
	m.mu.Unlock()
	m.Hint()
}

// MaxSilence is the time in which the next report must come, from the latest
// report or the latest call of SetTransition, whichever is later. A monitor
// that takes longer is stuck, unless the whole process did not run meanwhile.
// The first report may come later by Stagger.
func (m *Monitor) MaxSilence(transition bool) time.Duration { return m.pace.maxSilence(transition) }

func (m *Monitor) stir() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run probes until ctx is cancelled, and then returns nil; a probe in flight
// is abandoned without a report.
func (m *Monitor) Run(ctx context.Context) error {
	m.start = time.Now()
	stalled := false
	for m.wait(ctx) {
		limit, cut := m.pace.limit(m.inTransition())
		m.begun = time.Now()
		deadline := m.begun.Add(limit)
		flight := m.takeOff(ctx, m.begun.Add(m.pace.hurried()))
		r, sql := m.ask(ctx, flight.ctx, deadline)
		cut = m.land(flight) || cut
		if ctx.Err() != nil {
			return nil
		}
		m.ended = time.Now()
		// A process that was stopped finds its deadlines past, and would blame
		// the server. One probe is thrown away for that, not two in a row.
		stalled = !stalled && !r.OK() && m.ended.Sub(deadline) > stalledAfter+m.witnessTime()
		if stalled {
			m.Hint()
			continue
		}
		changed := m.pace.note(m.ended, r, sql, cut)
		m.report(r, sql, changed)
	}
	return nil
}

// witnessTime is by how much a witness may outlast the deadline of REST.
func (m *Monitor) witnessTime() time.Duration {
	if !m.o.Witness {
		return 0
	}
	return m.pace.witnessLimit()
}

func (m *Monitor) report(r Result, sql witness, changed bool) {
	c := m.o.Counter
	n, needed := c.Streak()
	m.out(Report{Result: r, Server: m.o.Server, At: m.ended, Up: c.Up(), Changed: changed,
		Streak: n, Needed: needed, Health: c.Health(), SQLAlive: sql == sqlAlive, Dead: m.pace.deaths >= c.fall})
}

func (m *Monitor) inTransition() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.transition
}

// wait returns true when the next probe is due. However long that was ago, one
// probe is due, not those that were missed.
func (m *Monitor) wait(ctx context.Context) bool {
	for {
		d := time.Until(m.due())
		if d <= 0 {
			break
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-m.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
	m.mu.Lock()
	m.pace.hinted, m.hinted = m.hinted, false
	m.mu.Unlock()
	return ctx.Err() == nil
}

func (m *Monitor) due() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.ended.IsZero() && m.hinted:
		return m.start
	case m.ended.IsZero():
		return m.start.Add(m.o.Stagger)
	}
	wait, fromStart := m.pace.next(m.transition)
	if fromStart {
		wait = max(wait-m.ended.Sub(m.begun), hintGap)
	}
	if m.hinted {
		wait = min(wait, hintGap)
	}
	return m.ended.Add(wait)
}

// ask probes once, and asks the witness where REST does not vouch or is late.
// flight ends the question to REST alone, and so leaves the witness its time.
// Whatever it started has ended when it returns.
func (m *Monitor) ask(ctx, flight context.Context, deadline time.Time) (Result, witness) {
	m.mu.Lock()
	addr, sql := m.addr, m.sql
	m.mu.Unlock()
	if !addr.IsValid() {
		return Result{Class: Unresolved, Reason: "the server's name has no address"}, notAsked
	}
	// A DOWN server has no sessions that a witness could speak for.
	needed := m.o.Counter.Up() || m.o.Drains
	if !m.o.Witness || !needed || !sql.IsValid() {
		return m.o.Prober.Probe(flight, addr, deadline), notAsked
	}

	rest := start(flight, m.o.Prober, addr, deadline)
	delay := time.NewTimer(witnessDelay)
	defer delay.Stop()
	if m.pace.dead {
		delay.Reset(0)
	}
	var r Result
	select {
	case r = <-rest:
		if r.OK() {
			return r, notAsked
		}
	case <-delay.C:
	}
	// It may outlast REST's deadline: a refused request is no reason to give
	// it less, and a late one has left it little.
	sqlCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := start(sqlCtx, m.o.SQLProber, sql, time.Now().Add(m.pace.witnessLimit()))
	if r.Class == 0 {
		if r = <-rest; r.OK() {
			cancel()
		}
	}
	return r, testimony(r, <-answer)
}

func testimony(rest, sql Result) witness {
	switch {
	case rest.OK():
		return notAsked
	case sql.OK():
		return sqlAlive
	case noAnswer(sql.Class):
		return sqlDead
	}
	return notAsked
}

// start probes on a goroutine of its own, which ends with the probe.
func start(ctx context.Context, p Prober, addr netip.AddrPort, deadline time.Time) <-chan Result {
	out := make(chan Result, 1)
	go func() { out <- p.Probe(ctx, addr, deadline) }()
	return out
}
