package relay

import (
	"net/netip"
	"time"

	"pointsman/balancer/pgwire"
)

// A session's life. become is the only place that changes state.
//
//	            accept
//	              │
//	              ▼      refused by Route
//	┌────────▶ asking ──────────────────────────────┐
//	│          │    │                               │
//	│     Held,│    │Slotted                        │
//	│    Queued│    └───────────────┐               │
//	│          ▼                    ▼               ▼
//	│       waiting             connecting        (free)
//	│          │                │   │    │          ▲
//	├──────────┘   refused, slow│   │    │client    │
//	│ Wake, Retry  Fence, Recall│   │    │reset     │
//	└───────────────────────────┘   │    └──────────┤
//	           │                    │established    │
//	           │client left,        ▼               │
//	           │limit            relaying ──────────┤
//	           │                    │  both streams │
//	           │             Fence, │  ended, reset,│
//	           │             Kill   ▼  idle, silent │
//	           │                 doomed ────────────┤
//	           └────────────────────────────────────┘
//
// asking lasts only as long as Route does. A client may also wait although it
// has a slot: when a connect to the same server has just failed.
type state uint8

const (
	free state = iota
	asking
	waiting
	connecting
	relaying
	doomed
	greeting // of PostgreSQL sessions only, as the next: see opening.go
	opening
)

// The two sides of a session; also the index of a direction, by its source.
const (
	clientSide = 0
	serverSide = 1
)

// What is known of a side's socket.
const (
	readable uint16 = 1 << iota // a read may bring something
	writable                    // a write may be taken
	finSeen                     // the peer's FIN arrived: read on to the 0 behind what is queued
	urgent                      // urgent data is about: a read stops at its mark, so a short one does not mean drained
	ended                       // the 0 was read: the peer sent all that it will
	passedOn                    // and the other side was told so
	dead                        // reset or timed out; what the peer sent before may still be read
	unsure                      // what was written to it may not be acknowledged yet
	kept                        // keepalive is on
	watched                     // registered for events
	gated                       // a server's: authentication goes on, and what it says is looked at first
)

// never is a deadline that does not come.
const never = time.Duration(1<<63 - 1)

// A side is one socket and the stream that comes from it. What was read from
// it and could not be written to the other side yet is either in a chunk or in
// a pipe, never in both; while there is any, nothing more is read.
type side struct {
	fd         int32  // -1 = none
	generation uint32 // of events that are meant for fd
	flags      uint16
	mode       mode  // how the stream is moved
	streak     uint8 // operations in a row that speak for the other mode
	chunk      int32 // index of the chunk that holds bytes, or -1
	at, end    int32 // where they are in the chunk
	pipe       int32 // index of the pipe, or -1
	piped      int32 // bytes in it
	passed     uint64
	heard      time.Duration // when something was last read
	wrote      time.Duration // when something was last written to it
	unanswered time.Duration // since when the sweeper saw it owe an answer; 0 = it does not
}

func (d *side) is(flag uint16) bool { return d.flags&flag != 0 }
func (d *side) set(flag uint16)     { d.flags |= flag }
func (d *side) clear(flag uint16)   { d.flags &^= flag }

// holds reports whether bytes wait to be written to the other side.
func (d *side) holds() bool { return d.chunk >= 0 || d.piped > 0 }

// A session is all that a loop knows of a client. It holds no pointers, so the
// collector never looks at the slabs. Times are since the engine's start.
type session struct {
	side  [2]side
	slot  int32
	next  int32 // in the list of waiting clients, or of free slots; -1 = end
	prev  int32
	timer int32 // index in the loop's heap, or -1
	due   time.Duration

	state      state
	place      Place
	listed     bool  // among the waiting clients
	queued     bool  // in the loop's list of sessions to look at again
	slow       bool  // ConnectSlow was told of this connect
	told       bool  // ServerClosed or ServerReset was told
	connected  bool  // the server's side was once established
	holdingFin bool  // the client's FIN is held back until finAt
	wasHeld    bool  // its place was Held once
	clientLast bool  // the last bytes that moved came from the client
	why        Cause // if Route refuses, or of a doomed session

	frontend, backend, server int32
	epoch                     Epoch
	target, client            endpoint

	failures    int32
	burst       int16          // of them without a rest
	joined      bool           // counted among the sessions of its server
	request     pgwire.Request // what the kept opening asks for; None = nothing is kept
	failed      int32          // server of the last failed connect, or -1
	failedEpoch Epoch
	failedAt    time.Duration

	accepted    time.Duration
	started     time.Duration // the last connect
	established time.Duration
	limit       time.Duration // of the whole wait, as Route said
	giveUp      time.Duration // when it comes to its end
	retry       time.Duration // when to ask again
	finAt       time.Duration

	// What a PostgreSQL client said last: kept until its server has answered.
	opening  int32 // index of the chunk, or -1
	openSize int16 // bytes
	sent     int16 // of them, to the present server

	// Where pointers have 64 bits, a session is five cache lines: one for each
	// side, and a third for what else an ordinary event looks at.
}

// ticket is what the client occupies with the Director.
func (s *session) ticket() Ticket {
	t := Ticket{Place: s.place, Backend: s.backend}
	if s.place == Slotted {
		t.Target = Target{Addr: s.target.addrPort(), Server: s.server, Epoch: s.epoch}
	}
	return t
}

func (s *session) setTicket(t Ticket) {
	s.place, s.backend = t.Place, t.Backend
	s.wasHeld = s.wasHeld || t.Place == Held
	s.server, s.epoch = -1, 0
	if t.Place == Slotted {
		s.server, s.epoch, s.target = t.Target.Server, t.Target.Epoch, packEndpoint(t.Target.Addr)
	}
}

// become changes the state, and keeps what depends on it: the list of waiting
// clients (who is asked again keeps its turn), and the number of those whom a
// Wake may concern. That number includes whoever is just asking, so that a Wake
// which comes between Route's answer and the waiting is not lost.
func (l *loop) become(s *session, next state) {
	was, is := s.state == asking || s.state == waiting, next == asking || next == waiting
	if is && !was {
		l.wakeable.Add(1)
	} else if was && !is {
		l.wakeable.Add(-1)
	}
	if next == waiting && !s.listed {
		l.waiters.append(l, s)
	} else if !is && s.listed {
		l.waking.left(s)
		l.waiters.remove(l, s)
	}
	s.state = next
}

// closing is how a socket is closed.
type closing bool

const (
	politely closing = false // FIN behind what was written; RST if something was not read
	reset    closing = true  // RST at once
)

func (l *loop) closeSide(s *session, i int, how closing) {
	d := &s.side[i]
	if d.fd < 0 {
		return
	}
	// keep has set kept sockets to reset already.
	if (how == reset) != d.is(kept) {
		setLinger(d.fd, how)
	}
	closeFD(d.fd)
	d.fd = -1
	d.generation++
	l.sure(d)
	l.drop(d)
	l.drop(&s.side[1-i]) // nobody is left to take it
}

// finish ends a session in any state: the client first, then the server.
func (l *loop) finish(s *session, c Cause, toClient, toServer closing) {
	l.closeSide(s, clientSide, toClient)
	l.closeSide(s, serverSide, toServer)
	l.forgetOpening(s)
	l.account(s, c)
	if s.place != Nowhere {
		l.director.Release(s.ticket(), c)
	}
	l.unschedule(s)
	l.become(s, free)
	l.sessions.put(s)
	l.load.Add(-1)
}

// kill is the end that a session does not choose: the client sees a FIN, and
// the server an RST, so that nothing that is still on its way is carried out.
func (l *loop) kill(s *session, c Cause) { l.finish(s, c, politely, reset) }

// account counts the end, and tells it where that is wanted.
func (l *loop) account(s *session, c Cause) {
	f := l.engine.frontend(s.frontend)
	l.frontends.at(s.frontend).Ended[c]++
	if s.connected {
		l.servers.at(s.server).Ended[c]++
	}
	l.part(s)
	l.changed = true
	if f.options.Load().LogSessions {
		r := &l.record
		*r = Record{
			Frontend: s.frontend, Client: s.client.addrPort(), Ticket: s.ticket(), Cause: c,
			Connected: s.connected, Greeting: s.state == greeting, Lasted: l.now - s.accepted, Failures: int(s.failures),
			In: s.side[clientSide].passed, Out: s.side[serverSide].passed,
			Accepted: l.engine.started.Add(s.accepted),
		}
		if s.place != Slotted {
			r.Ticket.Target = Target{Addr: netip.AddrPort{}, Server: -1}
		}
		r.Waited = r.Lasted
		if s.started > 0 {
			r.Waited = s.started - s.accepted
		}
		if s.connected {
			r.Connect = s.established - s.started
		}
		l.director.Ended(r)
	}
	l.leave(f)
}

// join counts the session among those of its server, until part.
func (l *loop) join(s *session) {
	s.joined = true
	l.engine.server(s.server).join()
}

func (l *loop) part(s *session) {
	if s.joined {
		s.joined = false
		l.engine.server(s.server).current.Add(-1)
	}
}

// list is a doubly linked list of sessions through their slots.
type list struct{ first, last int32 }

func (q *list) append(l *loop, s *session) {
	s.prev, s.next = q.last, -1
	if q.last >= 0 {
		l.sessions.at(q.last).next = s.slot
	} else {
		q.first = s.slot
	}
	q.last = s.slot
	s.listed = true
}

func (q *list) remove(l *loop, s *session) {
	if s.prev >= 0 {
		l.sessions.at(s.prev).next = s.next
	} else {
		q.first = s.next
	}
	if s.next >= 0 {
		l.sessions.at(s.next).prev = s.prev
	} else {
		q.last = s.prev
	}
	s.prev, s.next, s.listed = -1, -1, false
}
