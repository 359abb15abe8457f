package relay

import "time"

// Timers are lazy: a session is in the heap once, under the earliest moment at
// which something could be due, and traffic does not touch it. When the moment
// comes, the session looks what is really due, and goes back for the rest. A
// session without any limit is not in the heap at all.

// heap is a binary heap of slots by session.due.
type heap []int32

// schedule puts the session's timer to due; never takes it out.
func (l *loop) schedule(s *session, due time.Duration) {
	if due == never {
		l.unschedule(s)
		return
	}
	if s.timer < 0 {
		s.timer = int32(len(l.timers))
		l.timers = append(l.timers, s.slot)
	}
	s.due = due
	l.timers.fix(l, s.timer)
}

func (l *loop) unschedule(s *session) {
	i := s.timer
	if i < 0 {
		return
	}
	last := int32(len(l.timers) - 1)
	if i != last {
		l.timers.place(l, i, l.timers[last])
	}
	l.timers = l.timers[:last]
	s.timer = -1
	if i != last {
		l.timers.fix(l, i)
	}
}

func (h heap) due(l *loop, i int32) time.Duration { return l.sessions.at(h[i]).due }

func (h heap) place(l *loop, i, slot int32) {
	h[i] = slot
	l.sessions.at(slot).timer = i
}

func (h heap) swap(l *loop, i, j int32) {
	a, b := h[i], h[j]
	h.place(l, i, b)
	h.place(l, j, a)
}

// fix moves the entry at i to where its due belongs.
func (h heap) fix(l *loop, i int32) {
	for i > 0 && h.due(l, i) < h.due(l, (i-1)/2) {
		h.swap(l, i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && int(child) < len(h); child++ {
			if h.due(l, child) < h.due(l, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(l, i, least)
		i = least
	}
}

// arm schedules the session by its state.
func (l *loop) arm(s *session) {
	due := never
	switch s.state {
	case waiting:
		due = min(s.retry, s.giveUp)
	case greeting:
		due = s.giveUp
	case opening:
		if !s.slow {
			due = s.giveUp
		}
	case connecting:
		due = l.connectDeadline(s)
		if !s.slow {
			due = min(due, s.started+slowConnect)
		}
	case relaying:
		due = min(l.idleDeadline(s, clientSide), l.idleDeadline(s, serverSide))
		if s.holdingFin {
			due = min(due, s.finAt)
		}
		if !s.side[serverSide].is(kept) {
			due = min(due, s.established+l.tune.keepAfter)
		}
	}
	l.schedule(s, due)
}

// expire runs what is due.
func (l *loop) expire() {
	for len(l.timers) > 0 {
		s := l.sessions.at(l.timers[0])
		if s.due > l.now {
			return
		}
		l.unschedule(s)
		switch s.state {
		case waiting:
			l.waitedEnough(s)
		case connecting:
			l.connectIsLate(s)
		case relaying:
			l.relayIsLate(s)
		case greeting:
			l.finish(s, ClientTimeout, politely, reset)
		case opening:
			l.replyIsLate(s)
		}
	}
}

// relayIsLate looks for what is due, and otherwise waits on.
func (l *loop) relayIsLate(s *session) {
	switch {
	case s.holdingFin && s.finAt <= l.now:
		l.releaseFin(s)
		return
	case l.idleDeadline(s, clientSide) <= l.now:
		l.kill(s, ClientTimeout)
		return
	case l.idleDeadline(s, serverSide) <= l.now:
		l.kill(s, ServerTimeout)
		return
	case l.now >= s.established+l.tune.keepAfter:
		l.keep(s)
	}
	l.arm(s)
}

// idleDeadline is when a side will have been idle for too long.
func (l *loop) idleDeadline(s *session, i int) time.Duration {
	d := &s.side[i]
	var limit, fin time.Duration
	if i == clientSide {
		o := l.engine.frontend(s.frontend).options.Load()
		limit, fin = o.Timeout, o.TimeoutFin
	} else {
		o := l.engine.backend(s.backend)
		limit, fin = o.Timeout, o.TimeoutFin
	}
	if d.is(ended) && fin > 0 {
		limit = fin
	}
	if limit <= 0 {
		return never
	}
	return max(d.heard, d.wrote) + limit
}
