package relay

// endBatch is how many sockets of ended sessions a loop closes at least before
// others have their turn. A close takes 5 to 10 us, most of it the peer's FIN;
// with 32 of them at a time the others waited twice as long.
const endBatch = 8

// Ending many sessions at once must neither leave one of them alive for a
// moment nor hold up those that stay. So an order to end sessions first marks
// them, all in one walk: from then on nothing moves in them. Then their sockets
// are ended, a batch per round: first all clients get their FIN, so that each of
// them sees the end as soon as can be; then both sockets are closed.

// doom marks a session to be ended soon.
func (l *loop) doom(s *session, c Cause) {
	l.unschedule(s)
	s.why = c
	l.become(s, doomed)
	l.dying = append(l.dying, revisit{s.slot, s.side[serverSide].generation})
}

// endSome closes the next batch. A round that had many events takes long by
// itself; there the ends get a third of the time, or they would come too late.
func (l *loop) endSome(events int) {
	for range max(endBatch, events/2) {
		if l.buried == len(l.dying) {
			l.dying, l.buried, l.parted = l.dying[:0], 0, 0
			return
		}
		last := l.parted == len(l.dying) // every client has gone
		next := &l.parted
		if last {
			next = &l.buried
		}
		r := l.dying[*next]
		*next++
		s := l.sessions.at(r.slot)
		if s.state != doomed || s.side[serverSide].generation != r.generation {
			continue // another order has ended it meanwhile
		}
		if last {
			l.kill(s, s.why)
		} else {
			shutdownWrite(s.side[clientSide].fd) // half the time of a close
		}
	}
}

// fence ends every session of the epoch. Connects under way go back to Route.
// It returns how many sessions end.
func (l *loop) fence(epoch Epoch, c Cause) (n int) {
	for s := range l.each {
		if s.state == relaying && s.epoch == epoch {
			l.doom(s, c)
			n++
		}
	}
	l.recall(epoch)
	return n
}

// recall takes back the connects of an epoch, and those that are about to be.
func (l *loop) recall(epoch Epoch) {
	for s := range l.each {
		if s.place != Slotted || s.epoch != epoch {
			continue
		}
		switch s.state {
		case connecting, opening:
			l.withdraw(s)
			l.ask(s, -1)
		case greeting:
			l.leaveServer(s)
		case waiting:
			l.unschedule(s)
			l.ask(s, -1)
		}
	}
}

// killFrontend ends all sessions of a frontend, waiting clients included. -1 is
// every frontend. It returns how many had a server.
func (l *loop) killFrontend(frontend int32, c Cause) (n int) {
	for s := range l.each {
		switch {
		case frontend >= 0 && s.frontend != frontend:
		case s.state == relaying:
			l.doom(s, c)
			n++
		case s.state != free && s.state != doomed:
			l.kill(s, c)
		}
	}
	return n
}

// killAll ends everything at once.
func (l *loop) killAll(c Cause) {
	for s := range l.each {
		if s.state != free {
			l.kill(s, c)
		}
	}
}

// each walks over all slots. The body may free the session it is given.
func (l *loop) each(yield func(*session) bool) {
	for _, page := range l.sessions.pages {
		for i := range page {
			if !yield(&page[i]) {
				return
			}
		}
	}
}
