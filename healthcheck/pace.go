package healthcheck

import "time"

const (
	// In transition a server that hangs must not keep its fresh answer back for
	// the whole of timeout_check: the next probe may find a new leader.
	transitionLimit = 700 * time.Millisecond
	// A host that showed no sign of life on either port is asked in short: what
	// lives on the same network answers long before.
	deadLimit = 400 * time.Millisecond
	// A connect to the SQL port, alone or beside a request that is late.
	witnessLimit = 400 * time.Millisecond
	witnessDelay = 300 * time.Millisecond
	// A server that holds Patroni's lock and is not writable yet is about to be
	// the leader, and is asked so often, for as long. Then something is wrong
	// with its promotion, and the usual pace is enough.
	promotingInter = 50 * time.Millisecond
	promotingSpell = 5 * time.Second
	// From the first success of a DOWN server to the probe that confirms it.
	//
	// A new leader shall be confirmed within 150 ms of being writable. Where a
	// probe takes T, the one that came just too early ends T after that moment;
	// the next one sees the claim promotingInter and T later, and is confirmed
	// risingInter and T later: 70 ms + 3 T at worst, so T may be 26 ms. Patroni
	// answers in 3 to 10 ms on a network at home.
	risingInter = 20 * time.Millisecond
	// The least time between two probes, however many hints ask for one.
	hintGap = 20 * time.Millisecond
	// "No route" comes back at once, and often speaks of this router's own
	// network while an interface restarts. Counted one after the other, fall
	// would be through in half a second.
	unreachableGap = time.Second
	// A probe that returns so long after its deadline was not late: this
	// process did not run.
	stalledAfter = 200 * time.Millisecond
)

// witness is what the SQL port says when REST does not vouch for a server.
type witness uint8

const (
	notAsked witness = iota // or this machine could not ask
	sqlAlive                // accepted a connect: PostgreSQL lives
	sqlDead                 // refused it or said nothing
)

// pace says when a server is asked next, how long it may take, and which
// answers count. It knows no sockets and no clock.
type pace struct {
	inter, fast, down, timeout time.Duration
	witnessed                  bool // two ports speak for the server
	counter                    *Counter

	asked   bool
	ok      bool          // the latest answer
	dead    bool          // the latest probe found no sign of life on either port
	deaths  int           // failures in a row that found none, and counted
	late    bool          // the latest probe ran into its deadline
	hinted  bool          // a hint asked for the latest probe
	holding time.Time     // since when it has held the lock without being writable; zero = it does not
	soon    bool          // it may be writable at any moment
	counted time.Time     // when the latest failure counted; zero = none since the last success
	blamed  Class         // what that failure was
	usual   time.Duration // what an answer takes here; 0 = none came yet
}

// unsettled reports whether the latest answer speaks against the server's state.
func (p *pace) unsettled() bool { return p.asked && p.ok != p.counter.Up() }

// next returns the time from the end of the latest probe to the start of the
// next one; fromStart: from its start. A probe that ran into its deadline has
// already been waited for.
func (p *pace) next(transition bool) (wait time.Duration, fromStart bool) {
	up := p.counter.Up()
	switch {
	case !up && p.ok:
		return min(p.fast, risingInter), false
	case p.soon:
		return min(p.fast, promotingInter), false
	case !up && p.hinted:
		// Who told of a change may know it before Patroni does: the key in etcd
		// is written before the REST API says so.
		return min(p.fast, promotingInter), false
	case transition || p.unsettled() || p.dying():
		return p.fast, p.late
	case !up:
		return p.down, false
	}
	return p.inter, false
}

// dying reports whether a server that was DOWN already seems to have died, and
// the proof is not complete.
func (p *pace) dying() bool { return p.dead && p.deaths < p.counter.fall }

// limit returns how long the next probe may take, and whether that is less
// than timeout_check. Where answers are slow as a rule, no limit is so short
// that it would always fail: a busy or far-off server stays usable.
func (p *pace) limit(transition bool) (limit time.Duration, cut bool) {
	limit = p.timeout
	switch {
	case p.dead:
		limit = p.patience(deadLimit)
	case transition || p.hinted || p.unsettled():
		limit = p.patience(transitionLimit)
	}
	return limit, limit < p.timeout
}

// hurried is what a hint leaves of the limit of a probe that is under way,
// counted from the probe's start: so long would it have had in transition. Two
// ports that fell silent are found dead by then, because the SQL port is asked
// witnessDelay after REST for witnessLimit.
//
// A host that vanishes is so marked DOWN, after a hint and with fall 3, within
//
//	700 ms  the probe under way, or one that starts with the hint
//	400 ms  the second, at deadLimit
//	400 ms  the third
//	 60 ms  three times hintGap at most
//
// 1.56 s, where answers take less than 200 ms as a rule (see patience).
func (p *pace) hurried() time.Duration { return p.patience(transitionLimit) }

func (p *pace) patience(least time.Duration) time.Duration {
	return min(p.timeout, max(least, 2*p.usual))
}

// witnessLimit is the limit of a connect to the SQL port.
func (p *pace) witnessLimit() time.Duration {
	return max(witnessLimit, p.patience(witnessLimit))
}

// note takes in the outcome of a probe that ended at now, under a limit that
// was cut or not. It reports whether the server was marked UP or DOWN.
func (p *pace) note(now time.Time, r Result, sql witness, cut bool) (changed bool) {
	p.asked, p.ok = true, r.OK()
	p.dead = sql == sqlDead && noAnswer(r.Class)
	p.late = r.Class == Timeout
	p.promotion(now, r)
	switch {
	case r.Class == Passed, r.Class == Status, r.Class == Protocol:
		p.usual = r.Took
	case r.Class == Timeout && cut && !p.dead:
		p.usual = p.timeout // it may be slow: let the next probe find out
	}
	lifeless := noAnswer(r.Class) && (p.dead || !p.witnessed)
	if !lifeless && r.Class != SocketError {
		p.deaths = 0
	}
	switch {
	case r.Class == SocketError:
		return false // a lack of our own counts for nobody and against nobody
	case r.OK():
		p.counted = time.Time{}
	case !p.counted.IsZero() && now.Sub(p.counted) < p.gap(r.Class):
		return false
	default:
		p.counted, p.blamed = now, r.Class
		if lifeless {
			p.deaths++
		}
	}
	return p.counter.Add(r.OK())
}

// promotion keeps the spell in which a server holds the lock without being
// writable. An answer that does not come does not end it.
func (p *pace) promotion(now time.Time, r Result) {
	switch {
	case r.Promoting && p.holding.IsZero():
		p.holding = now
	case !r.Promoting && !noAnswer(r.Class):
		p.holding = time.Time{}
	}
	p.soon = r.Promoting && now.Sub(p.holding) < promotingSpell
}

// gap is the least time between two failures that count, while the server is
// UP. No rival, no haste: as long as one of two witnesses has not been found
// dead, sessions may well be alive, and fall keeps HAProxy's pace.
func (p *pace) gap(class Class) time.Duration {
	switch {
	case p.witnessed && !p.dead:
		return p.inter
	case class == Unreachable && p.blamed == Unreachable:
		return min(p.inter, unreachableGap)
	}
	return 0
}

// noAnswer reports whether REST said nothing at all. A refused connect is the
// kernel's word, not the server's.
func noAnswer(c Class) bool { return c == Refused || c == Timeout || c == Unreachable }

// maxSilence bounds the time from one report to the next. The second probe is
// for one that is thrown away because the process did not run.
func (p *pace) maxSilence(transition bool) time.Duration {
	const slack = time.Second // for a loaded machine
	longest := p.timeout
	if p.witnessed { // who is asked by then at the latest
		longest = min(p.timeout, witnessDelay) + max(p.timeout, witnessLimit)
	}
	wait := max(p.inter, p.down)
	if transition {
		wait = p.fast
	}
	return wait + 2*longest + slack
}
