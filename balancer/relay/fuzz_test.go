package relay

import (
	"cmp"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	fuzzTime = flag.Duration("relay.fuzz", envDuration("RELAY_FUZZ", 600*time.Millisecond), "how long TestStreamFuzz runs (or RELAY_FUZZ)")
	fuzzSeed = flag.Uint64("relay.seed", 0, "seed of TestStreamFuzz; 0 = a new one")
)

// fuzzClients is how many sessions the fuzzer has at once.
func fuzzClients() int {
	if testing.Short() {
		return 8
	}
	return 24
}

func envDuration(name string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return otherwise
}

// TestStreamFuzz throws sessions at engines of every tuning, and checks each
// byte at both ends, each record, and the counters. The session that failed is
// the first one with the -relay.seed that the failure names.
func TestStreamFuzz(t *testing.T) {
	seed := *fuzzSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-relay.seed=%d", seed)
	tunings := map[string]func(*setup){
		"rule":   func(s *setup) { s.tune.scratch = 16 << 10 },
		"flip":   func(s *setup) { flipping(s, 2); s.tune.scratch = 4 << 10; s.tune.finDelay = 0 },
		"tiny":   func(s *setup) { flipping(s, 7); s.tune.sndbuf = 4 << 10; s.tune.turn = 1 }, // writes are short
		"moves":  func(s *setup) { s.Loops, s.tune.working = 3, 3 },                           // from loop to loop
		"scarce": func(s *setup) { s.tune.scratch, s.tune.pipes, s.tune.pipeSize = 1<<10, 1, minPipe },
	}
	for _, name := range slices.Sorted(maps.Keys(tunings)) {
		t.Run(name, func(t *testing.T) { fuzz(t, seed, *fuzzTime/time.Duration(len(tunings)), tunings[name]) })
	}
}

// fuzzer is an engine under fuzz, and what its sessions' ends tell each other.
type fuzzer struct {
	*rig
	addrs   []string      // of the listeners, one per family
	records inbox[Record] // by the client's address
	servers inbox[seen]   // by the session's number
	fault   chan error    // the first one
	in, out atomic.Int64  // of all records
}

func fuzz(t *testing.T, seed uint64, long time.Duration, change func(*setup)) {
	f := &fuzzer{rig: newRig(t, change), addrs: families(t), fault: make(chan error, 1)}
	var targets []netip.AddrPort
	for i, addr := range f.addrs {
		id, err := f.Listen(0, netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		f.addrs[i] = f.Engine.Addr(id).String()
		targets = append(targets, addrOf(serveOn(t, addr, f.serve)))
	}
	f.desk.take = func(r *Record) {
		f.in.Add(int64(r.In))
		f.out.Add(int64(r.Out))
		f.records.put(r.Client.String(), *r)
	}
	f.desk.setRoute(roundabout(targets, nobody(t)))
	var clients sync.WaitGroup
	var next atomic.Uint64
	next.Store(seed)
	for range fuzzClients() {
		clients.Go(func() {
			for end := time.Now().Add(long); time.Now().Before(end) && len(f.fault) == 0; {
				session := next.Add(1)
				if err := f.session(session); err != nil {
					select {
					case f.fault <- fmt.Errorf("with -relay.seed=%d: %w", session-1, err):
					default:
					}
				}
			}
		})
	}
	if f.tune.working > 1 {
		done := make(chan struct{})
		defer func() { <-done }()
		go func() {
			defer close(done)
			f.moveAbout(long)
		}()
	}
	clients.Wait()
	t.Logf("%d sessions, %d bytes in, %d out", next.Load()-seed, f.in.Load(), f.out.Load())
	select {
	case err := <-f.fault:
		t.Error(err)
	default:
		f.counted(int(next.Load() - seed))
	}
}

// session plays a session's client, and compares what the three parties saw.
func (f *fuzzer) session(number uint64) error {
	conn, err := net.Dial("tcp", f.addrs[number/2%uint64(len(f.addrs))])
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	var head [8]byte // tells the server which session this is
	binary.BigEndian.PutUint64(head[:], number)
	if _, err := c.Write(head[:]); err != nil {
		return err
	}
	mine, other := plansOf(number)
	client := play(c, mine, other, number)
	record, err := f.records.get(c.LocalAddr().String())
	if err != nil {
		return fmt.Errorf("its record: %w; the client: %w", err, client.err)
	}
	if !record.Connected && record.Cause == ClientAborted && record.In+record.Out == 0 && !mine.waits {
		return nil // its FIN came while it was held: it has given up
	}
	clean := mine.resetAt < 0 && other.resetAt < 0
	if !clean && record.In < uint64(len(head)) {
		return client.err // the server never knew which session it was
	}
	server, err := f.servers.get(fmt.Sprint(number))
	if err = cmp.Or(err, client.err, server.err); err != nil {
		return fmt.Errorf("client %v, server %v, record %+v: %w", client, server, record, err)
	}
	in, out := int64(record.In)-int64(len(head)), int64(record.Out)
	exact := in == client.sent && in == server.got && out == server.sent && out == client.got && record.Cause == Normal
	bounded := in <= client.sent && in >= server.got && out <= server.sent && out >= client.got
	if clean && !exact || !bounded {
		return fmt.Errorf("cause %d, %d bytes in, %d out; client %+v, server %+v", record.Cause, in, out, client, server)
	}
	return nil
}

// serve plays a session's server.
func (f *fuzzer) serve(c *net.TCPConn) {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return // a reset overtook it
	}
	number := binary.BigEndian.Uint64(head[:])
	other, mine := plansOf(number)
	f.servers.put(fmt.Sprint(number), play(c, mine, other, number))
}

// counted compares the counters with the sum of the records.
func (f *fuzzer) counted(sessions int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("counters of %d sessions, %d bytes in, %d out", sessions, f.in.Load(), f.out.Load()), func() bool {
		frontends, servers := f.Counters()
		c, s := frontends[0], servers[0]
		return c.Total == uint64(sessions) && c.In == uint64(f.in.Load()) && c.Out == uint64(f.out.Load()) &&
			s.In == c.In && s.Out == c.Out && c.Current == 0 && s.Current == 0
	})
}

// roundabout sends clients to each of several servers in turn, some of them by
// way of a refused connect, or of being held.
func roundabout(targets []netip.AddrPort, refused netip.AddrPort) func(Request) (Ticket, time.Duration) {
	asked := 0
	return func(q Request) (Ticket, time.Duration) {
		asked++
		switch {
		case asked%7 == 0 && q.Waited < patience:
			return Ticket{Place: Held}, time.Minute
		case asked%11 == 0 && q.Failures == 0:
			return toAddr(refused, 0, 1)(q)
		}
		return toAddr(targets[asked%len(targets)], 0, 2)(q)
	}
}

// families are the addresses to listen on, of the families that there are.
func families(t testing.TB) []string {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no IPv6 here: ", err)
		}
		return []string{"127.0.0.1:0"}
	}
	_ = l.Close()
	return []string{"127.0.0.1:0", "[::1]:0"}
}

// inbox hands values over by name, whoever comes first.
type inbox[T any] struct {
	mu    sync.Mutex
	boxes map[string]chan T
}

func (b *inbox[T]) box(name string) chan T {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.boxes == nil {
		b.boxes = map[string]chan T{}
	}
	if b.boxes[name] == nil {
		b.boxes[name] = make(chan T, 1)
	}
	return b.boxes[name]
}

func (b *inbox[T]) put(name string, v T) { b.box(name) <- v }

func (b *inbox[T]) get(name string) (v T, err error) {
	select {
	case v = <-b.box(name):
	case <-time.After(3 * patience):
		err = fmt.Errorf("nothing came for %s", name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.boxes, name)
	return v, err
}
