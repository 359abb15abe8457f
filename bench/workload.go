package main

import (
	"fmt"

	"pointsman/bench/postgres"
)

// kind is a way to use a proxy; it decides what is measured.
type kind string

const (
	pingPong     kind = "ping-pong"
	connectClose kind = "connect"
	bulk         kind = "bulk"
	idle         kind = "idle"
	fence        kind = "fence"
	checks       kind = "checks"
	transactions kind = "transactions" // pgbench
	copying      kind = "copy"         // COPY
)

// workload is one group of rows of the table, or one point of a curve.
type workload struct {
	name     string // in the command line and the JSON file
	title    string
	kind     kind
	sessions int
	size     int // of a message, bytes
	servers  int // in the backend, checked; 0 = one, not checked
	inter    string
	rounds   int     // at most; 0 = as many as asked for
	quick    bool    // also in a short run
	calls    bool    // its system calls are counted too
	rate     float64 // requests per second at fixed times; 0 = as fast as replies come
	curve    string  // that it is a point of
	x        float64 // there
	sql      *sqlWork
}

// sqlWork is what pgbench or psql do with a real PostgreSQL.
type sqlWork struct {
	script  postgres.Script // of pgbench; "" = COPY
	connect bool            // a new connection for each transaction
	in      bool            // COPY to the server, else from it
}

func (w workload) id() string { return w.name }

const fixedSuffix = "-fixed"

// rated reports whether latency is measured at a fixed rate too.
func (w workload) rated() bool {
	return w.curve == "" && w.rate == 0 && (w.kind == pingPong || w.kind == connectClose)
}

// fixed is the same workload at a fixed rate.
func (w workload) fixed(rate float64) workload {
	w.name += fixedSuffix
	w.title += fmt.Sprintf(", at %.3g k/s", rate/1e3)
	w.rate = rate
	w.calls = false
	return w
}

// checked reports whether the proxy follows a leader, by its servers' REST API.
func (w workload) checked() bool { return w.servers > 0 }

// server names the server that the workload needs.
func (w workload) server() string {
	if w.kind == bulk {
		return "source"
	}
	return "echo"
}

// greeting is what the server answers.
func (w workload) greeting() []byte {
	if w.sql != nil {
		return []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f} // SSLRequest: PostgreSQL's manual, Message Formats
	}
	return []byte{1} // comes back
}

// can reports whether a proxy is able to do it.
func (w workload) can(p proxy) bool {
	follows := p.name != "nginx" && p.name != "copy" && !p.kernel
	switch {
	case w.checked() && !follows:
		return false
	case w.kind == idle && p.kernel:
		return false // it has no memory of its own to look at
	case p.name == "haproxy-splice" && w.sessions >= spliceSessions:
		return false
	}
	return true
}

const idleSessions = 9000

var allWorkloads = append([]workload{
	talks(1, 100, true), talks(16, 100, true), talks(128, 100, true), talks(1024, 100, false),
	talks(1, 8192, false), talks(16, 8192, true), talks(128, 8192, false), talks(1024, 8192, false),
	{name: "connect", title: "connect, 1 byte, close; 16 at a time", kind: connectClose, sessions: 16, size: 1, quick: true},
	{name: "bulk-1", title: "bulk, one stream", kind: bulk, sessions: 1, quick: true},
	{name: "bulk-8", title: "bulk, 8 streams", kind: bulk, sessions: 8},
	{name: "idle", title: "9,000 idle sessions", kind: idle, sessions: idleSessions, size: 100, rounds: 3, quick: true},
	{name: "fence", title: "9,000 sessions fenced", kind: fence, sessions: idleSessions, size: 100, servers: 2, inter: "200ms", rounds: 3, quick: true},
	selects(1, true), selects(8, true), selects(64, false),
	tpcb(1), tpcb(8), tpcb(64),
	{name: "pgbench-connect-8", title: "pgbench -S -C, 8 clients", kind: transactions, sessions: 8, rounds: 3, sql: &sqlWork{script: postgres.SelectOnly, connect: true}},
	{name: "copy-out", title: "COPY out, 1 GB", kind: copying, sessions: 1, rounds: 3, sql: &sqlWork{}},
	{name: "copy-in", title: "COPY in, 1 GB", kind: copying, sessions: 1, rounds: 3, sql: &sqlWork{in: true}},
}, curveWorkloads()...)

func selects(clients int, quick bool) workload {
	return workload{
		name: fmt.Sprintf("pgbench-select-%d", clients), title: fmt.Sprintf("pgbench -S -M prepared, %d clients", clients),
		kind: transactions, sessions: clients, quick: quick, sql: &sqlWork{script: postgres.SelectOnly},
	}
}

func tpcb(clients int) workload {
	return workload{
		name: fmt.Sprintf("pgbench-tpcb-%d", clients), title: fmt.Sprintf("pgbench TPC-B -M prepared, %d clients", clients),
		kind: transactions, sessions: clients, rounds: 3, sql: &sqlWork{script: postgres.TPCB},
	}
}

// talks is a ping-pong workload.
func talks(sessions, size int, quick bool) workload {
	w := workload{name: fmt.Sprintf("ping-pong-%d", sessions), kind: pingPong, sessions: sessions, size: size, quick: quick}
	what := fmt.Sprintf("%d B", size)
	if size == 8192 {
		w.name, what = fmt.Sprintf("ping-pong-8k-%d", sessions), "8 KiB"
	}
	w.title = fmt.Sprintf("%s ping-pong, %d sessions", what, sessions)
	if sessions == 1 {
		w.title = what + " ping-pong, 1 session"
	}
	w.calls = size == 100 && sessions <= 128
	return w
}

// The curves, and what each point has of them.
const (
	bySessions = "sessions"
	byServers  = "servers"
	bySize     = "sizes"
)

func curveWorkloads() []workload {
	var out []workload
	for _, n := range []int{10, 100, 1000, idleSessions} {
		out = append(out, workload{
			name: fmt.Sprintf("sessions-%d", n), title: fmt.Sprintf("100 B ping-pong, %d sessions", n),
			kind: pingPong, sessions: n, size: 100, rounds: 3, curve: bySessions, x: float64(n),
		})
	}
	for _, n := range []int{3, 10, 30, maxServers} {
		w := workload{
			name: fmt.Sprintf("servers-%d", n), title: fmt.Sprintf("100 B ping-pong, 16 sessions, %d servers checked every second", n),
			kind: pingPong, sessions: 16, size: 100, servers: n, inter: "1s", rounds: 3, curve: byServers, x: float64(n),
		}
		out = append(out, w)
		w.name, w.title, w.kind = fmt.Sprintf("checks-%d", n), fmt.Sprintf("no sessions, %d servers checked every second", n), checks
		out = append(out, w)
	}
	for _, size := range []int{1, 8, 64, 512, 4 << 10, 32 << 10, 256 << 10, 1 << 20} {
		out = append(out, workload{
			name: fmt.Sprintf("size-%d", size), title: fmt.Sprintf("%d B ping-pong, 16 sessions", size),
			kind: pingPong, sessions: 16, size: size, rounds: 3, curve: bySize, x: float64(size),
		})
	}
	return out
}
