package relay

import "slices"

// wakeBatch is how many waiting clients are asked about before others have
// their turn. Each may start a connect, which takes about 20 us.
const wakeBatch = 8

// waking goes through the waiting clients for one backend after the other, a
// batch per round, in the order in which they came.
type waking struct {
	backends []int32 // still to do; the first is under way. -1 = every backend
	under    bool    // next and last are those of the first backend
	next     int32   // the client to ask about next
	last     int32   // who came to wait after the order is asked about by Route itself
}

// wake has Route asked again for all who wait for the backend.
func (l *loop) wake(backend int32) {
	w := &l.waking
	// One that is under way has asked for some already: it does not count.
	pending := w.backends
	if w.under {
		pending = pending[1:]
	}
	if !slices.Contains(pending, backend) {
		w.backends = append(w.backends, backend)
	}
}

// wakeSome asks for the next batch.
func (l *loop) wakeSome() {
	w := &l.waking
	for asked := 0; asked < wakeBatch && len(w.backends) > 0; {
		if !w.under {
			w.under, w.next, w.last = true, l.waiters.first, l.waiters.last
		}
		if w.next < 0 {
			w.under = false
			w.backends = slices.Delete(w.backends, 0, 1)
			continue
		}
		s := l.sessions.at(w.next)
		w.pass(s)
		if backend := w.backends[0]; backend < 0 || s.backend == backend {
			asked++
			l.unschedule(s)
			l.ask(s, -1)
		}
	}
}

// pass goes on behind a client.
func (w *waking) pass(s *session) {
	if w.next = s.next; s.slot == w.last {
		w.next = -1
	}
}

// left keeps the place when a client leaves the list of those who wait.
func (w *waking) left(s *session) {
	switch {
	case !w.under:
	case s.slot == w.next:
		w.pass(s)
	case s.slot == w.last:
		w.last = s.prev
	}
}
