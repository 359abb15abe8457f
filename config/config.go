// Package config is what a user can say: the typed, defaulted and validated
// settings of the daemon. It knows no file format: a reader (openwrt/uci) looks
// each option up in the Reference, sets it with Key.Set, and asks Check for
// what no single option can know. A Config is a value; nothing changes it once
// it was checked.
package config

import (
	"net/netip"
	"strconv"
	"time"
)

// Config is one whole configuration. The slices keep the file's order.
type Config struct {
	Global    Global
	Frontends []Frontend
	Backends  []Backend
	DCS       []DCS
}

// Global holds what belongs to the process and to no single service.
type Global struct {
	Enabled   bool          // false: the init script does not start the daemon
	LogLevel  LogLevel      // what is written to the log
	Control   string        // path of the control socket; "" = none
	Loops     int           // event loops, 0 to 4; 0 = one per core, at most 4
	StopGrace time.Duration // how long SIGTERM lets sessions end by themselves
}

// Frontend is a set of listening addresses that feed one backend.
type Frontend struct {
	Name             string
	Binds            []netip.AddrPort
	DefaultBackend   string        // name of a Backend
	Protocol         Protocol      // what is understood of a session
	MaxConn          int           // sessions at once; beyond it the kernel's backlog waits
	TimeoutClient    time.Duration // idle limit of the client's side; 0 = none
	TimeoutClientFin time.Duration // the same, once the client half-closed; 0 = TimeoutClient
	TCPLog           bool          // one line per session, in HAProxy's tcplog form
}

// Backend is a group of servers, how they are checked, and how one is chosen.
type Backend struct {
	Name   string
	Policy Policy

	Check         CheckKind
	CheckMethod   string
	CheckURI      string
	CheckHeaders  []Header
	CheckExpect   StatusSet
	CheckBody     string // a substring that the answer's body must hold; "" = none
	CheckUser     string // user name that the pgsql probe announces
	CheckTLS      bool
	CheckCA       string // PEM file; "" = the system's roots
	CheckCert     string // PEM file of the client certificate; "" = none
	CheckKey      string // PEM file of its key
	CheckSNI      string // name to send and to verify; "" = the server's host
	CheckInsecure bool   // accept any certificate

	Inter        time.Duration // from the end of one check to the start of the next
	FastInter    time.Duration // the same while the backend is in transition
	DownInter    time.Duration // the same for a server that is DOWN; 0 = Inter
	Fall         int           // failures in a row that mark an UP server DOWN
	Rise         int           // successes in a row that mark a DOWN server UP
	TimeoutCheck time.Duration // hard limit of one check: connect, write and read

	OnMarkedDown MarkedDown    // what happens to the sessions of a server marked DOWN
	OnRemoved    Removed       // what happens to the sessions of a server that a reload removes
	Hold         time.Duration // how long a client waits for a server; 0 = refused at once
	HoldMax      int           // clients that may wait at once

	TimeoutConnect   time.Duration // one connect to a server
	TimeoutQueue     time.Duration // wait for a free slot of a server's maxconn; 0 = TimeoutConnect
	TimeoutServer    time.Duration // idle limit of the server's side; 0 = none
	TimeoutServerFin time.Duration // the same, once the server half-closed; 0 = TimeoutServer
	Resolve          time.Duration // how often server names are looked up again

	Servers []Server
}

// Server is one PostgreSQL node.
type Server struct {
	Name      string // as users know it
	Backend   string // name of its Backend
	Address   HostPort
	CheckPort uint16 // where checks go; 0 = the port of Address
	CheckURI  string // what they ask for; "" = the backend's
	MaxConn   int    // sessions at once; 0 = no limit
	Weight    int    // share among its backend's servers, 0 to 256; 0 = no new sessions
	Backup    bool   // serves only while every other server is down
}

// HostPort is a server's address as given: a literal IP address or a name.
type HostPort struct {
	Host string
	Port uint16
}

// Literal returns the address if Host is a literal IP address.
func (h HostPort) Literal() (netip.AddrPort, bool) {
	ip, err := netip.ParseAddr(h.Host)
	return netip.AddrPortFrom(ip, h.Port), err == nil
}

func (h HostPort) String() string {
	if ip, err := netip.ParseAddr(h.Host); err == nil {
		return netip.AddrPortFrom(ip, h.Port).String()
	}
	return h.Host + ":" + strconv.Itoa(int(h.Port))
}

// Header is one extra header of an HTTP check.
type Header struct{ Name, Value string }

// StatusRange is an inclusive range of HTTP status codes.
type StatusRange struct{ From, To int }

// StatusSet is the set of HTTP status codes that count as success.
type StatusSet []StatusRange

// Contains reports whether code is in the set.
func (s StatusSet) Contains(code int) bool {
	for _, r := range s {
		if r.From <= code && code <= r.To {
			return true
		}
	}
	return false
}

func (s StatusSet) String() string {
	text := ""
	for i, r := range s {
		if i > 0 {
			text += ","
		}
		text += strconv.Itoa(r.From)
		if r.To != r.From {
			text += "-" + strconv.Itoa(r.To)
		}
	}
	return text
}

// Protocol says what is understood of a frontend's sessions.
type Protocol string

// The protocols.
const (
	TCP        Protocol = "tcp"
	PostgreSQL Protocol = "postgresql"
)

// Policy says how a backend chooses the server of a new session.
type Policy string

// The policies. Leader sends everything to the one confirmed leader; the
// others spread over all servers that are UP, as in HAProxy.
const (
	Leader     Policy = "leader"
	RoundRobin Policy = "roundrobin"
	LeastConn  Policy = "leastconn"
	First      Policy = "first"
	Source     Policy = "source"
)

// CheckKind says how a server is probed.
type CheckKind string

// The kinds of check. With CheckNone a server is always UP.
const (
	CheckHTTP  CheckKind = "http"
	CheckTCP   CheckKind = "tcp"
	CheckPgSQL CheckKind = "pgsql"
	CheckNone  CheckKind = "none"
)

// MarkedDown says what happens to a server's sessions when it is marked DOWN.
type MarkedDown string

// The choices of on_marked_down.
const (
	ShutdownSessions MarkedDown = "shutdown-sessions"
	KeepSessions     MarkedDown = "none"
	DrainSessions    MarkedDown = "drain" // they end with the server, or by themselves
)

// Removed says what happens to the sessions of a server that a reload removes.
type Removed string

// The choices of on_removed.
const (
	RemovedShutdown Removed = "shutdown-sessions"
	RemovedDrain    Removed = "drain"
)

// LogLevel is the least severity that is written to the log.
type LogLevel string

// The log levels, as in syslog.
const (
	LogError   LogLevel = "error"
	LogWarning LogLevel = "warning"
	LogInfo    LogLevel = "info"
	LogDebug   LogLevel = "debug"
)

// BackendNamed returns the backend of that name, or nil.
func (c *Config) BackendNamed(name string) *Backend {
	for i := range c.Backends {
		if c.Backends[i].Name == name {
			return &c.Backends[i]
		}
	}
	return nil
}
