// Package healthcheck finds out how servers are: probes (http, tcp, pgsql),
// the rise/fall counter, and one Monitor per server that probes it at the
// right pace and reports. It decides nothing: who leads, and who gets
// sessions, is the balancer's.
package healthcheck

import (
	"context"
	"net/netip"
	"time"
)

// Class is what became of one probe.
type Class uint8

// The classes. Refusals and silence differ: the first is an answer.
const (
	Passed      Class = iota + 1 // the server answered, and as expected
	Refused                      // the connect was refused (RST)
	Timeout                      // no answer, or not a whole one, before the deadline
	Unreachable                  // no route, no such host, network down
	Status                       // a well-formed answer that says no (wrong code, role, state or body)
	Protocol                     // garbage, too long, cut short, or a TLS failure
	Unresolved                   // the server's name has no address
	Silent                       // the monitor itself did not report in time
	SocketError                  // this machine had no descriptor, port or memory to ask with: no news of the server
)

// Result is the outcome of one probe.
type Result struct {
	Class    Class
	Code     int           // HTTP status; 0 = none
	Role     string        // Patroni's role; "" = not told
	State    string        // Patroni's state; "" = not told
	Timeline uint32        // PostgreSQL's timeline; 0 = not told
	Reason   string        // for people: "Layer7 wrong status, code: 503, role: replica"
	Took     time.Duration // from the start of the connect
	// Promoting: it holds Patroni's lock, and its role or state are not yet a
	// leader's. It may be one at any moment.
	Promoting bool
}

// OK reports whether the probe passed. For a check of Patroni's leader (see
// HTTP) that is a claim to lead.
func (r Result) OK() bool { return r.Class == Passed }

// Prober asks one server once. Probe returns by the deadline, whatever the
// server does; when ctx is cancelled it returns at once, as if the deadline had
// passed.
type Prober interface {
	Probe(ctx context.Context, addr netip.AddrPort, deadline time.Time) Result
}

// Report is what a Monitor tells after each probe.
type Report struct {
	Result
	Server   int32     // the number that the owner gave the server
	At       time.Time // when the probe ended
	Up       bool      // by the counter, after this probe
	Changed  bool      // Up differs from what it was before
	Streak   int       // probes in a row that count towards the next change, this one included
	Needed   int       // how many of those the change takes: rise or fall
	Health   int       // HAProxy's integer, 0 to rise+fall-1
	SQLAlive bool      // the second witness: the server's SQL port accepted a connect
	Dead     bool      // fall probes in a row found no sign of life, nor did their witnesses
}
