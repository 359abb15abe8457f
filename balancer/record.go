package balancer

import (
	"cmp"
	"strings"
	"time"
)

const (
	// hintSpell is how long after the last hint a doubt is still laid to it: a
	// Patroni that lost its PostgreSQL, or its lock, says so within its loop_wait.
	hintSpell = 10 * time.Second
	// ttl is Patroni's: how long a deposed leader may go on claiming, and how old
	// a hint may become while others follow it.
	ttl = 30 * time.Second
	// sessionWait is how long a leader change waits for its first session before
	// it is written to the log; one that comes later is still put down.
	sessionWait = 5 * time.Second
	// drainWait is how long held clients are waited for when all is well again.
	drainWait = time.Second
	// maxNotes and maxNote bound what one event keeps: how many texts, and the
	// bytes of each.
	maxNotes = 12
	maxNote  = 160
)

// recorder keeps the timeline of what befalls the leader of one backend. It is
// fed facts with their times, and knows no clock and no socket, so its stories
// can be told in text. Times of one recorder must be of one clock.
type recorder struct {
	backend string
	history *history
	told    leading           // as look was told last
	servers map[string]*voice // by name
	sign    *sign             // what came in since the last look
	hints   []sign            // of a spell of hints, while nothing came of them
	hinted  time.Time         // the last of them
	quiet   tally             // when nothing was under way, last
	base    tally             // the same, before that spell or the event began
	open    *event            // nil = all is well
	last    *event            // the last that was over, for a first session that comes late
	change  *event            // the last of those that deposed a leader
}

// leading is how a backend is led.
type leading struct {
	leader          string // "" = nobody
	epoch, timeline uint32
	accepting       bool
	loud            bool
	reason          string
}

func (l leading) settled() bool { return l.leader != "" && l.accepting }

// voice is what one server said.
type voice struct {
	good    time.Time // its last claim
	before  time.Time // the one before that
	claimed time.Time // the first claim in a row; zero = its last answer was none
}

// sign is a fact that may begin a doubt.
type sign struct {
	at           time.Time
	by           hintKind
	source, text string
}

func newRecorder(at time.Time, backend string, h *history, t tally) *recorder {
	r := &recorder{backend: backend, history: h, servers: map[string]*voice{}, quiet: t}
	r.begin(at, Reign{}, &sign{at, byStart, "", "no leader is known yet"})
	r.open.stopped = at
	return r
}

// idle reports whether a tally may be taken afresh. It may also be when an event
// was finished, for the next may have begun with it.
func (r *recorder) idle() bool { return r.open == nil && len(r.hints) == 0 }

// hear takes in a hint.
func (r *recorder) hear(at time.Time, h hint) {
	s := sign{at, h.by, h.source, cut(h.text)}
	if e := r.open; e != nil && e.over.IsZero() {
		e.note(at, s.String())
		return
	}
	if len(r.hints) == 0 {
		r.base = r.quiet // the loops may have held clients before this was heard
	}
	r.hinted = at
	for _, old := range r.hints {
		if old.source == s.source && old.text == s.text {
			return
		}
	}
	if len(r.hints) < maxNotes {
		r.hints = append(r.hints, s)
	}
}

// answer takes in what a probe of a server found.
func (r *recorder) answer(at time.Time, server string, claims bool, why string) {
	v := r.servers[server]
	if v == nil {
		v = &voice{}
		r.servers[server] = v
	}
	r.sign = &sign{at, byCheck, server, cut(why)}
	if !claims {
		v.claimed = time.Time{}
		return
	}
	r.sign.text = "claims to lead"
	v.before, v.good = v.good, at
	if v.claimed.IsZero() {
		v.claimed = at
	}
}

// reloaded takes in that the configuration was read again.
func (r *recorder) reloaded(at time.Time) {
	r.sign = &sign{at, byReload, "", "the configuration changed"}
}

// look takes in how the backend is led since at, and, where that fenced a
// reign, by when the loops had obeyed (else zero) and how many sessions that
// ended. It returns an event that this finished, or nil.
func (r *recorder) look(at time.Time, l leading, fenced time.Time, ended int, t tally) (done *event) {
	was := r.told
	r.told = l
	if len(r.hints) > 0 && (at.Sub(r.hinted) > hintSpell || at.Sub(r.hints[0].at) > ttl) {
		r.hints = nil // nothing came of them
	}
	anew := l.leader != was.leader || l.epoch != was.epoch
	if e := r.open; e != nil && !e.over.IsZero() && (anew || !l.settled()) {
		done = r.finish(t)
	}
	switch {
	case r.open != nil:
	case anew, !l.settled():
		r.begin(at, reignOf(was), r.sign)
	case l.loud && r.aftermath(at):
		r.change.note(at, l.reason)
	case l.loud:
		r.begin(at, reignOf(was), &sign{at, byCheck, "", cut(l.reason)})
	}
	e, news := r.open, r.sign
	r.sign = nil
	if e == nil {
		if r.idle() {
			r.quiet = t
		}
		return done
	}
	// A reason that says what the answer said is no news.
	if l.reason != was.reason && l.reason != "confirmed" && (news == nil || !strings.HasSuffix(l.reason, news.text)) {
		e.note(at, l.reason)
	}
	e.ended += ended
	if e.over.IsZero() {
		r.proceed(e, at, l, fenced)
	}
	return cmp.Or(done, r.settle(at, t))
}

// aftermath reports whether whoever else claims to lead is the one that was
// deposed just now and does not know it yet.
func (r *recorder) aftermath(at time.Time) bool {
	if r.change == nil || at.Sub(r.change.over) >= ttl {
		return false
	}
	for name, v := range r.servers {
		if !v.claimed.IsZero() && name != r.told.leader && name != r.change.old.Server {
			return false
		}
	}
	return true
}

// proceed puts down the phase that the event reached.
func (r *recorder) proceed(e *event, at time.Time, l leading, fenced time.Time) {
	if e.fenced.IsZero() {
		e.fenced = fenced
	}
	if !l.accepting {
		if e.stopped.IsZero() {
			e.stopped = at
		}
		if v := r.servers[e.old.Server]; v != nil && l.epoch == e.old.Epoch {
			e.good = v.good // also one that comes while a rival claims
		}
	}
	if l.leader != "" && l.epoch != e.old.Epoch {
		e.new, e.confirmed = reignOf(l), at
		if v := r.servers[l.leader]; v != nil {
			e.claimed = v.claimed
		}
		if l.leader == e.old.Server && e.claimed.Before(e.doubt.at) {
			e.claimed = at // promoted anew between two claims
		}
	}
	switch {
	case !l.settled(), e.stopped.IsZero() && e.confirmed.IsZero() && l.loud:
		return
	case e.confirmed.IsZero() && e.stopped.IsZero():
		e.outcome = ClaimsSettled
	case e.confirmed.IsZero():
		e.outcome = VouchedAgain
	case e.new.Server == e.old.Server:
		e.outcome = LeaderReturned
	default:
		e.outcome = LeaderChanged
	}
	e.over = at
}

// session takes in that the first session of an epoch was established. It
// returns an event that this finished, or nil.
func (r *recorder) session(at time.Time, epoch uint32, t tally) *event {
	for _, e := range []*event{r.open, r.last} {
		if e != nil && e.new.Epoch == epoch && e.session.IsZero() {
			e.session = at
		}
	}
	return r.settle(at, t)
}

// settle looks at what time changes. It returns an event that this finished,
// or nil.
func (r *recorder) settle(at time.Time, t tally) *event {
	e := r.open
	if e == nil {
		return nil
	}
	e.held = t.since(r.base)
	if e.over.IsZero() {
		return nil
	}
	calm := at.Sub(e.over)
	drained := t.held == 0 || calm >= drainWait
	expected := !e.confirmed.IsZero() && e.session.IsZero() && calm < sessionWait
	if !drained || expected {
		return nil
	}
	return r.finish(t)
}

// abandon ends what is open: the backend is no longer followed.
func (r *recorder) abandon(at time.Time, t tally) {
	if e := r.open; e != nil {
		if e.over.IsZero() {
			e.outcome, e.over = Abandoned, at
		}
		r.finish(t)
	}
}

// begin opens an event of the leader that there was. s is what came in just now;
// hints that came before it are what began the doubt.
func (r *recorder) begin(at time.Time, old Reign, s *sign) {
	if s == nil { // time alone
		s = &sign{at, byCheck, "", "no news"}
	}
	e := &event{backend: r.backend, outcome: Ongoing, old: old}
	if v := r.servers[e.old.Server]; v != nil {
		e.good = v.good
		if e.good.Equal(s.at) {
			e.good = v.before // the latest told of another reign
		}
	}
	if len(r.hints) > 0 {
		e.doubt = r.hints[0]
		for _, h := range r.hints[1:] {
			e.note(h.at, h.String())
		}
		e.note(s.at, s.String())
	} else {
		e.doubt, r.base = *s, r.quiet
	}
	r.hints, r.open = nil, e
	r.history.add(e)
}

func (r *recorder) finish(t tally) *event {
	e := r.open
	e.held = t.since(r.base)
	e.finished = true
	r.open, r.last, r.quiet = nil, e, t
	if e.changed() {
		r.change = e
	}
	return e
}

// since is what happened to waiting clients since base.
func (t tally) since(base tally) Holds {
	return Holds{
		Clients: t.total - base.total, Most: max(t.most, t.held), LongestMS: ms(t.longest),
		Left: t.left - base.left, Late: t.late - base.late, Full: t.full - base.full,
	}
}
