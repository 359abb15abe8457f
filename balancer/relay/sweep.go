package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultSilence is how long a peer may leave data unacknowledged.
	defaultSilence = 15 * time.Second
	sweepPasses    = 4  // looks at each session within the limit
	sweepSteps     = 16 // in which a pass is done, so that none takes long
)

// The sweeper finds peers that vanished while data was on its way to them,
// where keepalive is silent and the kernel would go on for 15 minutes.
//
// last_ack_recv alone would not do. A live peer whose window is closed is only
// probed ever more rarely (up to 120 s apart), and has nothing to answer in
// between; and it may leave a probe unanswered, as Linux answers two within
// 500 ms only once (net.ipv4.tcp_invalid_ratelimit). So a peer is silent if
// something that was sent after its last word stays unanswered for the limit,
// although it was sent again. TCP_USER_TIMEOUT would not do either: it kills
// exactly that live peer.
type sweep struct {
	limit  time.Duration
	unsure int           // sides with data that may be unacknowledged
	next   time.Duration // never = no side is unsure
	cursor int32
}

// doubt notes that something was written to a side.
func (l *loop) doubt(d *side) {
	if d.is(unsure) {
		return
	}
	d.set(unsure)
	l.sweep.unsure++
	if l.sweep.next == never {
		l.sweep.next = l.now + l.sweep.limit/sweepPasses
	}
}

// sure notes that nothing is unacknowledged, or that nobody cares any more.
func (l *loop) sure(d *side) {
	if d.is(unsure) {
		d.clear(unsure)
		l.sweep.unsure--
		l.changed = true
	}
	d.unanswered = 0
}

// sweepSome looks at the next part of the sessions.
func (l *loop) sweepSome() {
	w := &l.sweep
	if w.unsure == 0 {
		w.next = never
		return
	}
	w.next = l.now + w.limit/(sweepPasses*sweepSteps)
	for range l.sessions.slots()/sweepSteps + 1 {
		if w.cursor >= l.sessions.slots() {
			w.cursor = 0
		}
		s := l.sessions.at(w.cursor)
		w.cursor++
		if s.state != relaying {
			continue
		}
		for i := range s.side {
			if l.silent(&s.side[i], s.side[1-i].holds()) {
				if i == serverSide {
					l.observe(s, ServerSilent)
				}
				l.vanished(s, i)
				break
			}
		}
	}
}

// vanished ends a session. The side that is gone is not kept by the kernel for
// the sake of what it did not take.
func (l *loop) vanished(s *session, i int) {
	toClient := politely
	if i == clientSide {
		toClient = reset
	}
	l.finish(s, PeerVanished, toClient, reset)
}

// silent reports whether a side's peer has owed an answer for too long. pending
// says that more waits to be written to it.
func (l *loop) silent(d *side, pending bool) bool {
	w := &l.sweep
	if !d.is(unsure) || l.now-d.heard < w.limit/sweepPasses {
		return false
	}
	var info unix.TCPInfo
	if !tcpInfo(d.fd, &info) {
		return false
	}
	heard := min(info.Last_ack_recv, info.Last_data_recv) // both say that it lives
	since := time.Duration(heard) * time.Millisecond
	owes := info.Probes > 0 || (info.Unacked > 0 && info.Last_data_sent < heard)
	again := info.Probes > 1 || info.Retransmits > 1
	switch {
	case !owes:
		d.unanswered = 0
		if info.Unacked == 0 && info.Notsent_bytes == 0 && !pending {
			l.sure(d)
		}
	case d.unanswered == 0 || since < l.now-d.unanswered:
		d.unanswered = l.now
	default:
		// What it owes was seen up to a pass after it was sent.
		return again && since >= w.limit && l.now-d.unanswered >= w.limit-w.limit/sweepPasses
	}
	return false
}
