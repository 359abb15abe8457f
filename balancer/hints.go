package balancer

import (
	"time"

	"pointsman/balancer/relay"
)

// hint is why all servers of a backend should be asked now. It decides nothing.
type hint struct {
	by     hintKind
	source string // who noticed: a server's name, "etcd"
	text   string // what: "reset a session", "leader key is gone"
}

func (h hint) String() string { return h.source + ": " + h.text }

// hintKind is where hints come from, as JSON tells it.
type hintKind string

// The kinds of hint.
const (
	bySession hintKind = "session" // sessions and connects of a server
	byDCS     hintKind = "dcs"     // the store in which Patroni keeps the leader's key
)

// A burst of server-side closes is burstSize of them within burstWindow: a
// PostgreSQL that shuts down closes all at once, while a single close is a
// client's own doing (pg_terminate_backend, idle_session_timeout).
const (
	burstSize   = 2
	burstWindow = time.Second
)

// burst counts closes within a window.
type burst struct {
	start time.Time
	n     int
}

// add counts one more, and reports whether it makes a burst.
func (u *burst) add(now time.Time) bool {
	if now.Sub(u.start) > burstWindow {
		u.start, u.n = now, 0
	}
	u.n++
	return u.n >= burstSize
}

// Observe implements relay.Director. What finds the queue full is dropped: the
// owner has hints enough then.
func (b *Balancer) Observe(e relay.Event) {
	switch e.Kind {
	case relay.ServerNotAccepting, relay.ServerStandby:
		b.routes.Load().server[e.Server].close(e.Epoch)
	case relay.ServerAccepts:
		if b.routes.Load().server[e.Server].open() {
			b.engine.Wake(-1)
		}
		return
	}
	select {
	case b.events <- e:
	default:
	}
}

// onEvent turns a fact about a server's connection into a hint.
func (b *Balancer) onEvent(e relay.Event) {
	s := b.servers[e.Server]
	if s == nil || e.Epoch != s.epoch {
		return // of a reign that is over: nothing new
	}
	if e.Kind == relay.FirstSession {
		if r := s.backend.recorder; r != nil {
			b.logEvent(s.backend, r.session(time.Now(), uint32(e.Epoch), s.backend.tally()))
		}
		return
	}
	if e.Kind == relay.ServerClosed && !s.closes.add(time.Now()) && s.slots.taken.Load() > 0 {
		return
	}
	b.hint(s.backend, hint{bySession, s.cfg.Name, eventText[e.Kind]})
}

var eventText = map[relay.EventKind]string{
	relay.ConnectRefused: "connect refused",
	relay.ConnectTimeout: "connect timed out",
	relay.ConnectSlow:    "connect is slow",
	relay.ServerClosed:   "closed its sessions",
	relay.ServerReset:    "reset a session",
	relay.ServerSilent:   "acknowledges nothing",
	relay.ServerStalled:  "has not acknowledged what was sent half a second ago",

	relay.ServerNotAccepting: "takes connections, but no sessions",
	relay.ServerStandby:      "is in hot standby",
}
