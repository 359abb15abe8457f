package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Client says where client programs run, and what they connect to.
type Client struct {
	Place  Place
	Target netip.AddrPort // a proxy's address, or the server's own
	Meter  Meter
}

// Meter is called at the two edges of the measured part, and may read clocks
// there. It gets the process id of the client program, which lives on until End
// has returned. Either may be nil.
type Meter struct {
	Begin, End func(client int) error
}

// Script is one of those built into pgbench.
type Script string

const (
	SelectOnly Script = "select-only" // one row by its key: one round trip
	TPCB       Script = "tpcb-like"   // seven statements, four of which write
)

// Options says what pgbench shall do.
type Options struct {
	Script   Script
	Clients  int
	Connect  bool          // a new connection for each transaction
	Prepared bool          // else the simple protocol
	Warm     time.Duration // before the measured part, at least
	Measure  time.Duration
}

// threads is how many threads of pgbench serve its clients. Two are as many as
// help beside a proxy and a server. But they connect one client at a time each,
// so clients that connect anew have a thread each, or they would wait for it.
func (o Options) threads() int {
	if o.Connect {
		return o.Clients
	}
	return min(o.Clients, 2)
}

// slack is how much longer pgbench runs than it is measured: its time is in
// whole seconds, and it must not end before we have read the clocks.
const slack = 200 * time.Millisecond

func (o Options) seconds() int {
	return int(math.Ceil((o.Warm + o.Measure + slack).Seconds()))
}

func (o Options) args() []string {
	protocol := "simple"
	if o.Prepared {
		protocol = "prepared"
	}
	args := []string{
		"--builtin=" + string(o.Script), "--protocol=" + protocol, "--log",
		"--client=" + strconv.Itoa(o.Clients), "--jobs=" + strconv.Itoa(o.threads()), "--time=" + strconv.Itoa(o.seconds()),
	}
	if o.Script == SelectOnly {
		args = append(args, "--no-vacuum") // nothing to clean up
	}
	if o.Connect {
		args = append(args, "--connect")
	}
	return args
}

// Result is what the clients saw in the measured part.
type Result struct {
	Seconds   float64
	Latencies []time.Duration // of all transactions, ascending; to 1 us
}

// Rate is in transactions per second.
func (r Result) Rate() float64 { return float64(len(r.Latencies)) / r.Seconds }

// Quantile returns a latency that a share q of all does not exceed.
func (r Result) Quantile(q float64) time.Duration {
	n := len(r.Latencies)
	if n == 0 {
		return 0
	}
	return r.Latencies[min(max(int(math.Ceil(q*float64(n)))-1, 0), n-1)]
}

// Pgbench runs pgbench. The measured part begins when its clients have been at
// work for o.Warm, and is cut out of pgbench's own log of all transactions, so
// that its start and its end count for nothing. A transaction that failed, or a
// client that gave up, is an error.
//
// The latency of a transaction is pgbench's. With o.Connect, where pgbench
// leaves the connect out, it is the time between the ends of two successive
// transactions of a client: disconnect, connect and transaction.
func (s *Server) Pgbench(ctx context.Context, c Client, o Options) (Result, error) {
	var r Result
	logs, err := os.MkdirTemp(s.dir, "logs-")
	if err != nil {
		return r, fmt.Errorf("running pgbench: %w", err)
	}
	defer os.RemoveAll(logs)

	args := append(connection(c.Target), o.args()...)
	cmd := c.Place(filepath.Join(s.bin, "pgbench"), append(args, "--log-prefix="+filepath.Join(logs, "log"), "postgres")...)
	p, err := begin(cmd)
	if err != nil {
		return r, err
	}
	defer p.kill()
	if err := p.until(ctx, func() bool { return exists(logs) }); err != nil {
		return r, err
	}
	if err := p.sleep(ctx, time.Duration(o.seconds())*time.Second-o.Measure-slack); err != nil {
		return r, err
	}
	from, to, err := p.between(c.Meter, func() error { return p.sleep(ctx, o.Measure) })
	if err != nil {
		return r, err
	}
	if err := p.wait(ctx); err != nil {
		return r, err
	}
	r.Seconds = to.Sub(from).Seconds()
	r.Latencies, err = readLogs(logs, o, from, to)
	return r, err
}

// exists says whether there is a file in dir: pgbench opens its logs when its
// vacuum is done, just before the clients connect.
func exists(dir string) bool {
	files, _ := os.ReadDir(dir)
	return len(files) > 0
}

// readLogs gathers the latencies of the measured part from the logs, of which
// each of pgbench's threads writes one.
func readLogs(dir string, o Options, from, to time.Time) ([]time.Duration, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading pgbench's logs: %w", err)
	}
	g := gathering{from: from.UnixMicro(), to: to.UnixMicro(), connect: o.Connect, last: map[int]int64{}}
	for _, file := range files {
		f, err := os.Open(filepath.Join(dir, file.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading pgbench's logs: %w", err)
		}
		err = parseLog(f, g.add)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("reading pgbench's log: %w", err)
		}
	}
	if g.early != o.Clients {
		return nil, fmt.Errorf("only %d of %d clients of pgbench were at work before the measured part; it needs a longer warm-up", g.early, o.Clients)
	}
	if len(g.latencies) == 0 {
		return nil, errors.New("no transaction of pgbench came to its end")
	}
	slices.Sort(g.latencies)
	return g.latencies, nil
}

func connection(to netip.AddrPort) []string {
	return []string{"--host=" + to.Addr().String(), "--port=" + strconv.Itoa(int(to.Port())), "--username=postgres"}
}
