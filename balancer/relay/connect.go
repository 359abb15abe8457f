package relay

import (
	"time"

	"golang.org/x/sys/unix"

	"pointsman/balancer/pgwire"
)

const (
	// slowConnect is long for a connect in a local network, where SYN and
	// SYN-ACK take well under 10 ms; Linux sends the second SYN after 1 s.
	slowConnect = 300 * time.Millisecond
	// maxBurst is how many connects may fail one right after the other before
	// the client rests, whatever Route says: HAProxy's default of retries.
	maxBurst = 3
	// defaultRetry is used for backends without BackendOptions.Retry.
	defaultRetry = 250 * time.Millisecond
)

// Why no session of a fenced epoch can come to life after the fence: the owner
// first publishes the state that Route reads, and then orders the fence. Route
// runs on the loop's thread, and what it answers becomes a session in the slab
// before the loop takes its next order. So either Route answered before the
// loop took the fence, and the fence finds the session, as connecting or as
// relaying; or it answered after, and then it read the new state, because the
// order came through the mailbox's lock, after the publication. A connect that
// is under way has sent no byte, and goes back to Route with its client kept.

// ask asks Route where the client goes now, and does as it says. failed is the
// server whose connect just failed, or -1.
func (l *loop) ask(s *session, failed int32) {
	l.become(s, asking)
	if failed < 0 {
		s.why = Denied
	}
	t, limit := l.director.Route(Request{
		Frontend: s.frontend,
		Client:   s.client.addrPort(),
		Waited:   l.now - s.accepted,
		Have:     s.ticket(),
		Limit:    s.limit,
		Failed:   failed,
		Failures: int(s.failures),
		WasHeld:  s.wasHeld,
		Cancel:   s.request == pgwire.Cancel,
	})
	s.setTicket(t)
	s.limit = limit
	switch t.Place {
	case Held, Queued:
		giveUp := never
		if limit < never-s.accepted {
			giveUp = s.accepted + limit
		}
		l.wait(s, giveUp, l.now+l.retryOf(s.backend))
	case Slotted:
		if rest := l.restOf(s); l.now < rest {
			l.wait(s, never, rest)
			return
		}
		l.connect(s)
	default:
		l.frontends.at(s.frontend).Refused++
		l.refuse(s, s.why)
	}
}

// restOf is until when a client does not connect, whatever Route says: the
// same reign of the same server has just failed it, or several servers have.
// Else a Route that knows no better would make the loop spin.
func (l *loop) restOf(s *session) time.Duration {
	if s.burst == 0 || (s.burst < maxBurst && (s.server != s.failed || s.epoch != s.failedEpoch)) {
		return 0
	}
	return s.failedAt + l.retryOf(s.backend)
}

func (l *loop) retryOf(backend int32) time.Duration {
	if r := l.engine.backend(backend).Retry; r > 0 {
		return r
	}
	return defaultRetry
}

// watchClient registers the client's socket. That is left until there is a use
// for it: a connect in a local network is established before a client would
// give up, and what the client sends meanwhile would wake the loop for nothing.
// It reports false if the session has ended.
func (l *loop) watchClient(s *session) bool {
	d := &s.side[clientSide]
	if d.is(watched) {
		return true
	}
	d.set(watched)
	if errno := l.register(s, clientSide); errno != 0 {
		l.complain(errno)
		l.finish(s, Exhausted, politely, reset)
		return false
	}
	return true
}

// wait keeps the client, unread: what arrives only sets a flag, and fills its
// receive buffer until its window closes.
func (l *loop) wait(s *session, giveUp, retry time.Duration) {
	l.become(s, waiting)
	if !l.watchClient(s) {
		return
	}
	if s.side[clientSide].is(finSeen | dead) {
		l.gaveUp(s)
		return
	}
	s.giveUp, s.retry = giveUp, retry
	l.keep(s)
	l.arm(s)
}

// gaveUp forgets a client that left before it had a server.
func (l *loop) gaveUp(s *session) { l.finish(s, ClientAborted, politely, reset) }

// waitedEnough is the timer of a waiting client.
func (l *loop) waitedEnough(s *session) {
	if s.giveUp <= l.now {
		l.refuse(s, ServerTimeout)
		return
	}
	s.burst = 0
	l.ask(s, -1)
}

// connect starts a connect to the session's target.
func (l *loop) connect(s *session) {
	l.become(s, connecting)
	l.join(s)
	l.knowServer(s.server)
	s.started = l.now
	s.slow = false
	d := &s.side[serverSide]
	d.flags = 0
	fd, errno := l.engine.below(socketTCP(s.target.family()))
	d.fd = fd
	if errno == 0 {
		errno = connectFD(fd, s.target)
	}
	if errno != 0 && errno != unix.EINPROGRESS {
		l.connectFailed(s, errno)
		return
	}
	l.tuneSocket(fd)
	if errno := l.register(s, serverSide); errno != 0 {
		l.connectFailed(s, errno)
		return
	}
	l.arm(s)
}

// connectDeadline is when TimeoutConnect is over.
func (l *loop) connectDeadline(s *session) time.Duration {
	if t := l.engine.backend(s.backend).TimeoutConnect; t > 0 {
		return s.started + t
	}
	return never // the kernel gives up in the end: ETIMEDOUT after tcp_syn_retries
}

// connectIsLate is the timer of a connecting session.
func (l *loop) connectIsLate(s *session) {
	if l.connectDeadline(s) <= l.now {
		l.connectFailed(s, unix.ETIMEDOUT)
		return
	}
	s.slow = true
	l.observe(s, ConnectSlow)
	if l.watchClient(s) {
		l.arm(s)
	}
}

// connectFailed tells what happened, and asks Route what is next.
func (l *loop) connectFailed(s *session, errno unix.Errno) {
	switch errno {
	case unix.ETIMEDOUT:
		l.observe(s, ConnectTimeout)
		s.why = ServerTimeout
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ENOSPC, unix.EADDRNOTAVAIL, unix.EAGAIN:
		s.why = Exhausted // our own lack, and no word about the server
		l.complain(errno)
	default:
		l.observe(s, ConnectRefused)
		s.why = ServerAborted
	}
	l.servers.at(s.server).Refused++
	l.failOver(s)
}

// failOver takes the client back from a server that failed it, and asks Route
// what is next.
func (l *loop) failOver(s *session) {
	s.failed, s.failedEpoch, s.failedAt = s.server, s.epoch, l.now
	s.failures++
	s.burst++
	l.withdraw(s)
	l.ask(s, s.failed)
}

// withdraw takes a connect back. Nothing was written to the server but an
// opening that can be written to another one.
func (l *loop) withdraw(s *session) {
	l.unschedule(s)
	l.closeSide(s, serverSide, reset)
	l.part(s)
	l.changed = true
}

// onConnecting handles an event of the server's socket while it connects.
func (l *loop) onConnecting(s *session, events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if errno := socketError(s.side[serverSide].fd); errno != 0 {
			l.connectFailed(s, errno)
			return
		}
	}
	switch {
	case events&unix.EPOLLOUT == 0:
	case s.opening >= 0:
		l.open(s)
	default:
		l.establish(s)
	}
}

// establish begins to relay. What the client has sent is told in the first
// event after it is registered.
func (l *loop) establish(s *session) {
	l.become(s, relaying)
	s.connected = true
	s.established = l.now
	for i := range s.side {
		s.side[i].heard, s.side[i].wrote = l.now, l.now
	}
	l.servers.at(s.server).Total++
	l.changed = true
	if s.epoch > l.newest {
		l.newest = s.epoch
		l.observe(s, FirstSession)
	}
	if l.watchClient(s) {
		l.arm(s)
	}
}

func (l *loop) observe(s *session, kind EventKind) {
	l.director.Observe(Event{Kind: kind, Server: s.server, Epoch: s.epoch})
}
