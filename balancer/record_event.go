package balancer

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Outcome is what became of an event.
type Outcome string

// The outcomes.
const (
	Ongoing        Outcome = "ongoing"         // nobody leads, the leader is in doubt, or several claim to lead
	LeaderChanged  Outcome = "leader_changed"  // another server was confirmed; also the first one
	LeaderReturned Outcome = "leader_returned" // the same server was confirmed anew, its old sessions were ended
	VouchedAgain   Outcome = "vouched_again"   // the doubt passed: the leader's sessions stayed
	ClaimsSettled  Outcome = "claims_settled"  // others claimed to lead, or were refused; the leader was never in doubt
	Abandoned      Outcome = "abandoned"       // the backend was removed, or its policy changed
)

// History is all events that are kept.
type History struct {
	Taken  time.Time     `json:"taken"`
	Events []LeaderEvent `json:"events"` // in the order in which they began
}

// LeaderEvent is what befell the leader of a backend: from the first doubt to
// the next leader, or until the doubt had passed. Its wall-clock times are told
// by the clock as it is at History.Taken, so that what happened before the clock
// was set is right too; durations do not depend on it.
type LeaderEvent struct {
	Number  uint32  `json:"number"` // since the start, from 1
	Backend string  `json:"backend"`
	Outcome Outcome `json:"outcome"`
	Old     Reign   `json:"old"`
	New     Reign   `json:"new"` // all empty while, and where, there is none
	Doubt   Doubt   `json:"doubt"`

	LastGood     *Moment `json:"last_good"`     // last good answer of the old leader
	Stopped      *Moment `json:"stopped"`       // newcomers get no sessions from here on
	Fenced       *Moment `json:"fenced"`        // the old leader's sessions were ended
	Claimed      *Moment `json:"claimed"`       // the new leader's first claim, unconfirmed
	Confirmed    *Moment `json:"confirmed"`     // the new leader takes sessions
	FirstSession *Moment `json:"first_session"` // to the new leader
	Over         *Moment `json:"over"`          // newcomers get sessions again, and nothing is in dispute

	NoLeaderMS    float64 `json:"no_leader_ms"`   // how long newcomers found no leader; while ongoing, so far
	SessionsEnded int     `json:"sessions_ended"` // by the fence
	Held          Holds   `json:"held"`
	Notes         []Note  `json:"notes"`
	NotesLost     int     `json:"notes_lost"` // notes beyond those that are kept
}

// Reign is a leader and how it was known.
type Reign struct {
	Server   string `json:"server"`   // "" = nobody
	Epoch    uint32 `json:"epoch"`    // 0 = none
	Timeline uint32 `json:"timeline"` // 0 = not told
}

// Moment is a point in time.
type Moment struct {
	At      time.Time `json:"at"`
	AfterMS float64   `json:"after_ms"` // since the doubt; negative = before
}

// Doubt is how an event began.
type Doubt struct {
	At     time.Time `json:"at"`
	By     string    `json:"by"`     // session, dcs, check, start, reload
	Source string    `json:"source"` // who noticed: a server, etcd; "" = nobody in particular
	Text   string    `json:"text"`   // what: "reset a session"
}

func (d Doubt) String() string {
	return sign{by: hintKind(d.By), source: d.Source, text: d.Text}.String()
}

// Note is a text of the time between: reasons, and later hints.
type Note struct {
	Moment
	Text string `json:"text"`
}

// Holds is what happened to clients that had to wait.
type Holds struct {
	Clients   uint32  `json:"clients"`          // how many
	Most      int32   `json:"most"`             // at once
	LongestMS float64 `json:"longest_ms"`       // from accept to the connect, or to the refusal
	Left      uint32  `json:"left"`             // gave up by themselves
	Late      uint32  `json:"refused_hold"`     // refused: `hold` was over
	Full      uint32  `json:"refused_hold_max"` // refused: `hold_max` clients were held already
}

// By whom a doubt began, where that was no hint.
const (
	byCheck  hintKind = "check"
	byStart  hintKind = "start"
	byReload hintKind = "reload"
)

// String is the sign as people read it: "hint: postgres-1: reset a session".
func (s sign) String() string {
	text := s.text
	if s.source != "" {
		text = s.source + ": " + text
	}
	switch s.by {
	case byDCS:
		return text
	case bySession:
		return "hint: " + text
	}
	return string(s.by) + ": " + text
}

// history keeps the events of all backends, oldest first.
type history struct {
	events []*event
	count  uint32 // of all that ever were
}

// maxEvents is how many events are kept: in memory some 200 KiB at the most.
const maxEvents = 100

// add numbers an event and keeps it. What makes room is the oldest; but doubts
// that passed push out no leader changes once they are more than half.
func (h *history) add(e *event) {
	h.count++
	e.number = h.count
	if len(h.events) == maxEvents {
		var passed []int
		for i, old := range h.events {
			if old.outcome != LeaderChanged && old.outcome != LeaderReturned && old.finished {
				passed = append(passed, i)
			}
		}
		goes := 0
		if len(passed) > maxEvents/2 {
			goes = passed[0]
		}
		h.events = slices.Delete(h.events, goes, goes+1)
	}
	h.events = append(h.events, e)
}

// tell makes the history a value that others may keep.
func (h *history) tell(now time.Time) *History {
	out := &History{Taken: now, Events: []LeaderEvent{}}
	for _, e := range h.events {
		out.Events = append(out.Events, e.tell(now))
	}
	return out
}

// event is a LeaderEvent in the making.
type event struct {
	number   uint32
	backend  string
	outcome  Outcome
	old, new Reign
	doubt    sign
	ended    int
	held     Holds
	notes    []sign // by and source are empty
	lost     int
	finished bool

	// Zero = not reached.
	good, stopped, fenced, claimed, confirmed, session, over time.Time
}

func reignOf(l leading) Reign { return Reign{l.leader, l.epoch, l.timeline} }

// note keeps a text, unless the event has it already.
func (e *event) note(at time.Time, text string) {
	text = cut(text)
	switch same := func(s sign) bool { return s.text == text }; {
	case text == e.doubt.text, text == e.doubt.String(), slices.ContainsFunc(e.notes, same):
	case len(e.notes) == maxNotes:
		e.lost++
	default:
		e.notes = append(e.notes, sign{at: at, text: text})
	}
}

// tell makes the event a value that others may keep.
func (e *event) tell(now time.Time) LeaderEvent {
	// By the clock as it is now: only how long ago it was is beyond doubt.
	wall := func(t time.Time) time.Time { return now.Add(-now.Sub(t)).Truncate(time.Millisecond) }
	since := func(t time.Time) Moment { return Moment{wall(t), ms(t.Sub(e.doubt.at))} }
	moment := func(t time.Time) *Moment {
		if t.IsZero() {
			return nil
		}
		m := since(t)
		return &m
	}
	out := LeaderEvent{
		Number: e.number, Backend: e.backend, Outcome: e.outcome, Old: e.old, New: e.new,
		Doubt:    Doubt{wall(e.doubt.at), string(e.doubt.by), e.doubt.source, e.doubt.text},
		LastGood: moment(e.good), Stopped: moment(e.stopped), Fenced: moment(e.fenced), Claimed: moment(e.claimed),
		Confirmed: moment(e.confirmed), FirstSession: moment(e.session), Over: moment(e.over),
		NoLeaderMS: ms(e.without(now)), SessionsEnded: e.ended, Held: e.held, Notes: []Note{}, NotesLost: e.lost,
	}
	for _, n := range e.notes {
		out.Notes = append(out.Notes, Note{since(n.at), n.text})
	}
	return out
}

// without is how long newcomers found no leader.
func (e *event) without(now time.Time) time.Duration {
	switch {
	case e.stopped.IsZero():
		return 0
	case e.over.IsZero():
		return now.Sub(e.stopped)
	}
	return e.over.Sub(e.stopped)
}

// ms is a duration in milliseconds, as JSON tells it.
func ms(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// cut bounds a text.
func cut(text string) string {
	if len(text) <= maxNote {
		return text
	}
	at := maxNote - len("…")
	for at > 0 && text[at]&0xC0 == 0x80 { // within a character
		at--
	}
	return text[:at] + "…"
}

// changed reports whether the leader of before is gone, or reigns anew.
func (e *event) changed() bool {
	return e.old.Server != "" && (e.outcome == LeaderChanged || e.outcome == LeaderReturned)
}

// line is the log's line of a leader change that is over: "failover 7 of bk: a
// -> b: doubt by …".
func (e *event) line() string {
	type phase struct {
		name string
		at   time.Time
	}
	phases := []phase{{"fenced", e.fenced}, {"claimed", e.claimed}, {"confirmed", e.confirmed}, {"first session", e.session}}
	slices.SortStableFunc(phases, func(a, b phase) int { return a.at.Compare(b.at) })
	text := fmt.Sprintf("failover %d of %s: %s -> %s: doubt by %s at %s", e.number, e.backend, e.old.Server, e.new.Server,
		e.doubt, e.doubt.at.Format("15:04:05.000"))
	for _, p := range phases {
		if !p.at.IsZero() {
			text += fmt.Sprintf(", %s %+.3f s", p.name, p.at.Sub(e.doubt.at).Seconds())
		}
	}
	return text + fmt.Sprintf("; %d sessions ended, %d clients held, longest %.1f s, %d refused", e.ended, e.held.Clients, e.held.LongestMS/1000,
		e.held.Late+e.held.Full)
}

// Timeline is all that is known of the event as notes for people, in order.
func (e LeaderEvent) Timeline() []Note {
	notes := []Note{{Moment{e.Doubt.At, 0}, "doubt by " + e.Doubt.String()}}
	add := func(m *Moment, format string, args ...any) {
		if m != nil {
			notes = append(notes, Note{*m, fmt.Sprintf(format, args...)})
		}
	}
	add(e.LastGood, "last good answer of %s%s", e.Old.Server, e.Old.known())
	add(e.Stopped, "new clients are held")
	add(e.Claimed, "%s claims to lead", e.New.Server)
	for _, n := range e.Notes {
		if n.Text != e.New.Server+" claims to lead, not confirmed yet" { // told just above
			notes = append(notes, n)
		}
	}
	add(e.Confirmed, "%s is confirmed%s", e.New.Server, e.New.known())
	add(e.Fenced, "fence: %d sessions ended", e.SessionsEnded)
	add(e.FirstSession, "first session to %s", e.New.Server)
	switch e.Outcome {
	case VouchedAgain:
		add(e.Over, "%s is vouched for again", e.Old.Server)
	case ClaimsSettled:
		add(e.Over, "nobody else claims to lead")
	case Abandoned:
		add(e.Over, "no longer followed: removed, or of another policy")
	}
	slices.SortStableFunc(notes, func(a, b Note) int { return cmp.Compare(a.AfterMS, b.AfterMS) })
	return notes
}

// known is how a reign was known: " (epoch 4, timeline 6)".
func (r Reign) known() string {
	if r.Timeline == 0 {
		return fmt.Sprintf(" (epoch %d)", r.Epoch)
	}
	return fmt.Sprintf(" (epoch %d, timeline %d)", r.Epoch, r.Timeline)
}
