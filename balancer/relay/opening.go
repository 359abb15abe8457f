package relay

import (
	"time"

	"golang.org/x/sys/unix"

	"pointsman/balancer/pgwire"
)

// The opening of a PostgreSQL session is read from the client before there is
// a server for it, a message at a time and never more than that, and is kept
// until the server has said something that the client may hear. Until then it
// can be sent again, to another server, and the client notices nothing. What
// is looked at stays in the sockets' buffers (MSG_PEEK) until it is known
// whether it may pass, so there is nothing to take back.
//
//	greeting    the client is to speak: StartupMessage, SSLRequest, …
//	asking …    as for every session, with what it said kept
//	opening     that was sent to the server, which is to answer
//	relaying    gated while authentication goes on: the client was told
//	            something that no other server knows of
const (
	// greetingLimit is how long a client may take to speak: PostgreSQL's
	// default of authentication_timeout.
	greetingLimit = 60 * time.Second
	// mostExcuses bounds what is logged of malformed openings, per complainEvery.
	mostExcuses = 5
)

// greet waits for the client's next message.
func (l *loop) greet(s *session) {
	l.become(s, greeting)
	s.giveUp = l.now + greetingLimit
	if !l.watchClient(s) {
		return
	}
	l.arm(s)
	l.onGreeting(s)
}

// onGreeting handles an event of a session whose client is to speak. A server
// that it has already only waits; if it is gone, another one is asked for later.
func (l *loop) onGreeting(s *session) {
	c, v := &s.side[clientSide], &s.side[serverSide]
	if c.is(dead) {
		l.gaveUp(s)
		return
	}
	if v.fd >= 0 && v.is(finSeen|dead) {
		l.leaveServer(s)
	}
	if c.is(readable) {
		l.hear(s)
	}
}

// hear looks at what the client says, and takes it when it is whole.
func (l *loop) hear(s *session) {
	d := &s.side[clientSide]
	n, errno := peek(d.fd, l.scratch[:min(len(l.scratch), pgwire.MaxStartup)])
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0 || n == 0:
		l.gaveUp(s)
		return
	}
	request, size, err := pgwire.Identify(l.scratch[:n])
	if err == nil && request == pgwire.Startup && size <= n {
		err = pgwire.Check(l.scratch[:size])
	}
	switch {
	case err != nil:
		l.malformed(s, err)
		return
	case request == pgwire.None || size > n:
		if d.is(finSeen) {
			l.gaveUp(s)
		}
		return
	}
	if size > 0 { // else it is not taken: encryption begins with it
		recv(d.fd, l.scratch[:size])
		d.heard = l.now
		s.opening, s.openSize = l.chunks.put(l.scratch[:size]), int16(size)
		l.chunksUsed++
	}
	if n == size && !d.is(finSeen) {
		d.clear(readable)
	}
	s.request = request
	switch {
	case s.side[serverSide].fd < 0:
		l.ask(s, -1)
	case size == 0:
		l.opened(s) // TLS to a server that has just declined it: it will say so
	default:
		l.open(s)
	}
}

// malformed ends a client that does not speak PostgreSQL's protocol.
func (l *loop) malformed(s *session, err error) {
	if l.now >= l.rudeUntil {
		l.rude, l.rudeUntil = 0, l.now+complainEvery
	}
	if l.rude++; l.rude <= mostExcuses {
		l.log.Warn("a client was closed: not the opening of a PostgreSQL session", "client", s.client.addrPort().String(), "error", err)
	}
	l.finish(s, Malformed, politely, reset)
}

// open sends the opening to the server that the session is connected to now.
func (l *loop) open(s *session) {
	l.become(s, opening)
	s.sent, s.slow, s.giveUp = 0, false, l.now+slowConnect
	if l.watchClient(s) {
		l.arm(s)
		l.sendOpening(s)
	}
}

// sendOpening writes what the server has not taken yet.
func (l *loop) sendOpening(s *session) {
	v := &s.side[serverSide]
	n, errno := send(v.fd, l.chunks.bytes(s.opening)[s.sent:s.openSize])
	if s.sent += int16(n); s.sent < s.openSize {
		v.clear(writable)
		if errno != 0 && errno != unix.EAGAIN {
			l.notAccepting(s, ServerNotAccepting)
		}
		return
	}
	if s.request == pgwire.Cancel { // it is never answered
		l.opened(s)
	} else if v.is(readable) {
		l.judge(s)
	}
}

// onOpening handles an event of a session whose server is to answer.
func (l *loop) onOpening(s *session) {
	v := &s.side[serverSide]
	switch {
	case s.side[clientSide].is(dead), s.slow && s.side[clientSide].is(finSeen):
		l.gaveUp(s)
	case s.sent < s.openSize && v.is(writable|dead):
		l.sendOpening(s)
	case s.sent == s.openSize && v.is(readable):
		l.judge(s)
	}
}

// replyIsLate is the timer of a session whose server is to answer. A client that
// has left does not wait for that any longer.
func (l *loop) replyIsLate(s *session) {
	s.slow = true
	l.observe(s, ConnectSlow)
	if s.side[clientSide].is(finSeen) {
		l.gaveUp(s)
	}
}

// judge looks at what the server says to the opening.
func (l *loop) judge(s *session) {
	v := &s.side[serverSide]
	n, errno := peek(v.fd, l.scratch)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		v.clear(readable)
		return
	}
	verdict, pass := pgwire.Unavailable, 0 // it is gone
	if errno == 0 && n > 0 {
		verdict, pass = pgwire.Reply(s.request, l.scratch[:n])
	}
	switch {
	case verdict == pgwire.Undecided && v.is(finSeen|dead):
		l.notAccepting(s, ServerNotAccepting) // nor will it be decided
	case verdict == pgwire.Undecided && n < len(l.scratch):
		v.clear(readable)
	case verdict == pgwire.Unavailable:
		l.notAccepting(s, ServerNotAccepting)
	case verdict == pgwire.Standby && l.engine.backend(s.backend).Primary:
		l.notAccepting(s, ServerStandby)
	case verdict == pgwire.Declined:
		l.declined(s, pass)
	case verdict == pgwire.Asks:
		v.set(gated)
		l.opened(s)
	default:
		l.opened(s)
	}
}

// notAccepting takes the client back from a server that took its connection,
// but will have no session now. The client has been told nothing of it.
func (l *loop) notAccepting(s *session, kind EventKind) {
	l.observe(s, kind)
	s.why = ServerAborted
	l.servers.at(s.server).Refused++
	l.failOver(s)
}

// declined tells the client that there is no encryption, and lets it speak again.
func (l *loop) declined(s *session, n int) {
	n, _ = recv(s.side[serverSide].fd, l.scratch[:n])
	send(s.side[clientSide].fd, l.scratch[:n]) // the first byte of all; a buffer has room for it
	l.count(s, clientSide, int(s.openSize))
	l.count(s, serverSide, n)
	l.forgetOpening(s)
	l.greet(s)
}

// opened begins to relay.
func (l *loop) opened(s *session) {
	size := int(s.openSize)
	if s.request != pgwire.Cancel {
		l.observe(s, ServerAccepts)
	}
	l.forgetOpening(s)
	l.establish(s)
	l.count(s, clientSide, size)
	l.pump(s)
}

// forgetOpening frees what the client said first. From here on the session
// cannot begin anew.
func (l *loop) forgetOpening(s *session) {
	if s.opening >= 0 {
		l.chunks.free(s.opening)
		l.chunksUsed--
	}
	s.opening, s.openSize, s.sent, s.request = -1, 0, 0, pgwire.None
}

// admitSome is copySome for what a server says while authentication goes on:
// only messages that may pass are read.
func (l *loop) admitSome(s *session) int {
	v := &s.side[serverSide]
	n, errno := peek(v.fd, l.scratch)
	if errno != 0 { // the look has used up the error: a read would take the reset for a FIN
		l.dry(s, serverSide, errno)
		return 0
	}
	verdict, pass := pgwire.Open, 0
	if n > 0 {
		verdict, pass = pgwire.Reply(pgwire.Startup, l.scratch[:n])
	}
	switch {
	case verdict == pgwire.Asks:
		n, errno := recv(v.fd, l.scratch[:pass])
		n = l.received(s, serverSide, n, errno)
		v.set(readable) // there may be more
		return n
	case verdict == pgwire.Undecided && !v.is(finSeen|dead) && n < len(l.scratch):
		v.clear(readable)
		return 0
	case verdict == pgwire.Standby && l.engine.backend(s.backend).Primary:
		// The client has proven who it is to this server and no other.
		l.observe(s, ServerStandby)
		l.excuse(s, "the server is in hot standby: it stopped being the primary")
		v.clear(readable)
		l.doom(s, ServerAborted)
		return 0
	}
	v.clear(gated)
	return l.copySome(s, serverSide)
}

// refuse ends a client that gets no server, and tells it why where it can be told.
func (l *loop) refuse(s *session, c Cause) {
	switch s.request {
	case pgwire.Startup, pgwire.SSL, pgwire.GSS:
		l.excuse(s, l.director.Excuse(s.frontend))
	}
	l.finish(s, c, politely, reset)
}

// excuse sends the client an error in clear text.
func (l *loop) excuse(s *session, why string) {
	send(s.side[clientSide].fd, pgwire.ErrorResponse(pgwire.CannotConnectNow, why, ""))
}

// leaveServer gives a server back to which the client has said nothing yet
// that it would have to say again.
func (l *loop) leaveServer(s *session) {
	l.withdraw(s)
	l.director.Release(s.ticket(), Normal)
	s.setTicket(Ticket{})
	l.arm(s)
}
