// Package relay is the data plane: a few event loops, each locked to a thread,
// that accept clients, connect them to the target they are given, move bytes
// both ways, and end sessions when told. It knows no policy: where a client
// goes is the Director's answer, and which sessions die is the owner's order.
//
// One thread, the session's loop, owns both descriptors of a session for its
// whole life. Orders reach a loop as messages, in the order they were given.
package relay

import (
	"net/netip"
	"time"
)

// Epoch names one reign of one server: from the moment it is given sessions
// until it is fenced. Epochs are never used twice. 0 is no epoch.
type Epoch uint32

// Target is where a session goes.
type Target struct {
	Addr   netip.AddrPort
	Server int32 // the owner's number of the server; counters are kept by it
	Epoch  Epoch
}

// Place is what a client occupies with the Director, and gives back in the end.
type Place uint8

// The places.
const (
	Nowhere Place = iota // none: not yet asked, refused, or given back
	Held                 // waits until some server can take it
	Queued               // waits for a slot of a server at its maxconn
	Slotted              // has a session's slot on Ticket.Target.Server
)

// Ticket is a client's standing with the Director.
type Ticket struct {
	Place   Place
	Backend int32
	Target  Target // meaningful where Place is Slotted
}

// Request is one question to the Director.
type Request struct {
	Frontend int32
	Client   netip.AddrPort
	Waited   time.Duration // since it was accepted
	Have     Ticket        // what it occupies now
	Limit    time.Duration // the limit that came with Have
	Failed   int32         // the server whose connect just failed, or -1
	Failures int           // connects that failed since it was accepted
	WasHeld  bool          // it was Held before, or is
	Cancel   bool          // a CancelRequest: it goes where the session is that it would cancel, or nowhere
}

// Director says where clients go. Its methods are called on the threads of the
// loops, many at once: they must not block, and should not allocate.
type Director interface {
	// Route answers where the client goes now, and exchanges the place that it
	// has (Request.Have) for the one in the answer. Nowhere means refuse.
	// A client that is Held or Queued is asked about again after Engine.Wake,
	// after a while by itself, and no longer than the limit in the answer.
	Route(Request) (t Ticket, limit time.Duration)
	// Release gives back what a client occupied when it ended, and says why it did.
	Release(Ticket, Cause)
	// Excuse says, for a client of the frontend that can be told, why it gets no
	// server: "no leader for bk since 31 s; last leader postgres-1".
	Excuse(frontend int32) string
	// Observe tells what happened to a server's connection.
	Observe(Event)
	// Ended tells how a session went, for frontends with LogSessions only.
	// The record is the caller's again when Ended returns.
	Ended(*Record)
}

// EventKind is a fact about a server's side. All but the last two may mean that
// it is in trouble.
type EventKind uint8

// The kinds of event.
const (
	ConnectRefused     EventKind = iota + 1 // RST or ICMP unreachable
	ConnectTimeout                          // no answer within TimeoutConnect
	ConnectSlow                             // no answer yet after slowConnect; it goes on
	ServerClosed                            // FIN from the server before any from the client
	ServerReset                             // RST from the server, or keepalive gave up
	ServerSilent                            // the sweeper killed the session: sent data was not acknowledged
	ServerStalled                           // what was sent to it is not acknowledged after stalledAfter; the session goes on
	ServerNotAccepting                      // it took a connection, and then said 57P03 or closed before it said anything
	ServerStandby                           // a session would have begun on a server in hot standby
	ServerAccepts                           // it took a PostgreSQL session
	FirstSession                            // the first session of the epoch with this loop was established
)

// Event is one such fact.
type Event struct {
	Kind   EventKind
	Server int32
	Epoch  Epoch
}

// Cause says why a session ended; its text is the first letter of HAProxy's
// termination flags where one exists.
type Cause uint8

// The causes.
const (
	Normal        Cause = iota // both sides closed
	ClientAborted              // C: the client reset, or left while waiting
	ServerAborted              // S: the server reset, or refused
	ClientTimeout              // c: timeout_client
	ServerTimeout              // s: timeout_server, timeout_connect, timeout_queue or hold
	MarkedDown                 // D: its server was marked down, deposed or removed
	Killed                     // K: by an operator, or at the daemon's stop
	Exhausted                  // R: no descriptor, port or memory
	PeerVanished               // the sweeper found a peer that no longer acknowledges
	Denied                     // refused by the Director
	Malformed                  // P: a client whose opening is none
)

// Record is one session that ended.
type Record struct {
	Frontend  int32
	Client    netip.AddrPort
	Ticket    Ticket // as it was last; Target.Server is -1 if it never had one
	Cause     Cause
	Connected bool          // the server's side was once established
	Greeting  bool          // the client was to speak: its opening was not whole
	Waited    time.Duration // from accept to the last connect's start
	Connect   time.Duration // of the connect that worked
	Lasted    time.Duration // from accept to end
	In, Out   uint64        // bytes from the client to the server, and back
	Accepted  time.Time
	Failures  int // connects that failed
}

// FrontendOptions are the loops' part of a frontend's settings.
type FrontendOptions struct {
	MaxConn     int           // accepts stop at so many clients, waiting ones included; 0 = no limit
	Timeout     time.Duration // idle limit of the client's side; 0 = none
	TimeoutFin  time.Duration // the same once the client half-closed; 0 = Timeout
	LogSessions bool
	PostgreSQL  bool // the opening of its sessions is understood
}

// BackendOptions are the loops' part of a backend's settings.
type BackendOptions struct {
	TimeoutConnect time.Duration // 0 = as long as the kernel tries
	Timeout        time.Duration // idle limit of the server's side; 0 = none
	TimeoutFin     time.Duration // the same once the server half-closed; 0 = Timeout
	Retry          time.Duration // a waiting client is asked about again after so long; 0 = 250 ms
	Primary        bool          // its servers are to be writable: no PostgreSQL session begins on one in hot standby
}

// Counters are totals since the start; Current is now.
type Counters struct {
	Current int64                 // sessions, connects included (for a frontend: clients, waiting ones included)
	Total   uint64                // clients accepted (frontend), sessions established (server)
	In, Out uint64                // bytes from clients to servers, and back, when the other side's socket took them
	Refused uint64                // clients that Route refused (frontend), connects that failed (server)
	Ended   [Malformed + 1]uint64 // by Cause
	MaxSeen int64                 // highest Current
}
