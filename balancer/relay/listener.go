package relay

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// acceptBatch is how many clients are accepted before sessions have their
	// turn. Each of them takes about 60 us with the connect that it starts.
	acceptBatch = 8
	// acceptPause is how long a listener rests when there is no descriptor or
	// memory left: the backlog stays readable, and would be tried for nothing.
	acceptPause = 100 * time.Millisecond
	// complainEvery keeps a lack that lasts from flooding the log.
	complainEvery = 10 * time.Second
)

// ListenerID names a listener for its whole life. IDs are never used twice.
type ListenerID uint32

// listener is one listening socket. It belongs to one loop.
type listener struct {
	id       ListenerID
	fd       int32
	index    int32
	frontend int32 // -1 = none yet: clients wait in the backlog
	addr     string
	ready    bool          // the backlog may hold clients
	resume   time.Duration // after a lack: when to try again
}

// frontend is what the loops share of a frontend.
type frontend struct {
	id      int32
	options atomic.Pointer[FrontendOptions]
	clients gauge
	full    atomic.Bool // a listener stopped at MaxConn, and waits for a client to end
}

// reserve makes room for one more client, unless there are MaxConn.
func (f *frontend) reserve() bool {
	most := f.options.Load().MaxConn
	for {
		n := f.clients.current.Load()
		if most <= 0 || int(n) < most {
			if f.clients.current.CompareAndSwap(n, n+1) {
				return true
			}
			continue
		}
		// Whoever leaves after this sees full; who left before it is seen here.
		f.full.Store(true)
		if int(f.clients.current.Load()) >= most {
			return false
		}
	}
}

// leave counts one client less, and lets listeners go on that wait for that.
func (l *loop) leave(f *frontend) {
	f.clients.current.Add(-1)
	if f.full.Load() && f.full.CompareAndSwap(true, false) {
		l.engine.listening().mail.post(order{kind: orderResume, frontend: f.id})
	}
}

// addListener takes over a listener that is bound already.
func (l *loop) addListener(ln *listener) {
	ln.index = int32(len(l.listeners))
	for i := range l.listeners {
		if l.listeners[i] == nil {
			ln.index = int32(i)
		}
	}
	if int(ln.index) == len(l.listeners) {
		l.listeners = append(l.listeners, nil)
	}
	l.listeners[ln.index] = ln
	// Registered edge-triggered: a full frontend or an empty purse of
	// descriptors then costs no wake-ups.
	if errno := l.epollAdd(ln.fd, unix.EPOLLIN|unix.EPOLLET, listenerKey(ln.index), uint32(ln.id)); errno != 0 {
		l.log.Error("cannot accept: no event registration", "address", ln.addr, "error", errno)
	}
}

func (l *loop) listener(id ListenerID) *listener {
	for _, ln := range l.listeners {
		if ln != nil && ln.id == id {
			return ln
		}
	}
	return nil
}

// assign gives a listener its frontend.
func (l *loop) assign(id ListenerID, frontend int32) {
	if ln := l.listener(id); ln != nil {
		ln.frontend = frontend
		ln.ready = true
		l.acceptFrom(ln)
	}
}

// resume goes on with the listeners of a frontend that was full.
func (l *loop) resume(frontend int32) {
	for _, ln := range l.listeners {
		if ln != nil && ln.frontend == frontend && ln.ready {
			l.acceptFrom(ln)
		}
	}
}

// removeListener accepts who waits in the backlog already, MaxConn or not,
// since closing would reset them; then it closes.
func (l *loop) removeListener(id ListenerID) {
	ln := l.listener(id)
	if ln == nil {
		return
	}
	if ln.frontend >= 0 {
		f := l.engine.frontend(ln.frontend)
		for range backlog() {
			fd, from, errno := accept(ln.fd)
			if errno == 0 {
				f.clients.join()
				l.assignSession(fd, ln.frontend, from)
			} else if !passing(errno) {
				break
			}
		}
		l.handOver()
	}
	closeFD(ln.fd)
	l.listeners[ln.index] = nil
}

// acceptFrom accepts until the backlog is empty, the frontend full, or sessions
// should have their turn.
func (l *loop) acceptFrom(ln *listener) {
	if ln.frontend < 0 {
		return
	}
	f := l.engine.frontend(ln.frontend)
	for range acceptBatch {
		if !f.reserve() {
			l.handOver()
			return
		}
		fd, from, errno := int32(-1), endpoint{}, unix.EMFILE
		if !l.engine.crowded() {
			fd, from, errno = accept(ln.fd)
			fd, errno = l.engine.below(fd, errno)
		}
		if errno == 0 {
			f.clients.mark()
			l.assignSession(fd, ln.frontend, from)
			continue
		}
		l.leave(f)
		switch {
		case errno == unix.EAGAIN:
			ln.ready = false
		case passing(errno):
			continue
		default: // EMFILE, ENFILE, ENOBUFS, ENOMEM
			ln.resume = l.now + acceptPause
			l.acceptAt = min(l.acceptAt, ln.resume)
			l.complain(errno)
		}
		l.handOver()
		return
	}
	l.handOver()
	l.acceptMore = true
}

// passing reports whether accept only tells of one connection that came to
// nothing (accept(2): network errors are passed on), so the next may work.
func passing(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNABORTED, unix.EINTR, unix.EPERM, unix.EPROTO, unix.ENOPROTOOPT,
		unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENONET, unix.EOPNOTSUPP:
		return true
	}
	return false
}

// resumeListeners tries again where a lack or the batch's end stopped us.
func (l *loop) resumeListeners() {
	l.acceptMore, l.acceptAt = false, never
	for _, ln := range l.listeners {
		switch {
		case ln == nil || !ln.ready:
		case ln.resume > l.now:
			l.acceptAt = min(l.acceptAt, ln.resume)
		default:
			l.acceptFrom(ln)
		}
	}
}

// assignSession gives a new client to the working loop with the fewest sessions.
// For another loop it is put aside until handOver, so a batch costs one wake-up.
func (l *loop) assignSession(fd, frontend int32, from endpoint) {
	l.frontends.at(frontend).Total++
	l.changed = true
	best := l.engine.loops[0]
	for _, other := range l.engine.loops[1:l.engine.working.Load()] {
		if other.load.Load() < best.load.Load() {
			best = other
		}
	}
	best.load.Add(1)
	o := order{kind: orderAdopt, fd: fd, frontend: frontend, client: from, accepted: l.now}
	if best == l {
		l.adopt(o)
		return
	}
	l.handovers[best.number] = append(l.handovers[best.number], o)
}

// handOver sends the clients that were put aside.
func (l *loop) handOver() {
	for i, orders := range l.handovers {
		if len(orders) == 0 {
			continue
		}
		if !l.engine.loops[i].mail.post(orders...) {
			for _, o := range orders {
				l.discard(o)
			}
		}
		l.handovers[i] = orders[:0]
	}
}

// discard closes a client that no loop can take any more.
func (l *loop) discard(o order) {
	closeFD(o.fd)
	l.frontends.at(o.frontend).Ended[Killed]++
	l.leave(l.engine.frontend(o.frontend))
}

// adopt makes an accepted client a session of this loop.
func (l *loop) adopt(o order) {
	s := l.sessions.get()
	// The loop that accepted may be a little ahead of this one's clock.
	s.frontend, s.client, s.accepted = o.frontend, o.client, min(o.accepted, l.now)
	d := &s.side[clientSide]
	d.fd = o.fd
	d.heard, d.wrote = s.accepted, s.accepted
	l.frontends.at(s.frontend)
	l.tuneSocket(d.fd)
	if l.engine.frontend(s.frontend).options.Load().PostgreSQL {
		l.greet(s)
		return
	}
	l.become(s, asking)
	l.ask(s, -1)
}
