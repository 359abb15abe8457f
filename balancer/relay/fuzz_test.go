package relay

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	fuzzTime = flag.Duration("relay.fuzz", envDuration("RELAY_FUZZ", 600*time.Millisecond), "how long TestStreamFuzz runs (or RELAY_FUZZ)")
	fuzzSeed = flag.Uint64("relay.seed", 0, "seed of TestStreamFuzz; 0 = a new one")
)

func envDuration(name string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return otherwise
}

// plan is what one end of a session does. Both plans of a session come from its
// seed alone, so each end knows what it must see.
type plan struct {
	seed    uint64
	bytes   int64 // to send, then FIN
	resetAt int64 // send so many instead, then RST; -1 = never
	pause   int   // one in so many operations is followed by a pause; 0 = none
	piece   int   // largest single write or read
	waits   bool  // sends only when the other's stream has ended
}

func newPlan(random *rand.Rand) plan {
	p := plan{seed: random.Uint64(), resetAt: -1, piece: 1 << random.IntN(18)}
	p.bytes = random.Int64N(1 << random.IntN(21))
	if random.IntN(3) == 0 {
		p.pause = 1 + random.IntN(30)
	}
	return p
}

// plansOf returns the plans of a session's client and server.
func plansOf(seed uint64) (client, server plan) {
	random := rand.New(rand.NewPCG(seed, 1))
	client, server = newPlan(random), newPlan(random)
	for _, p := range []*plan{&client, &server} {
		// Tiny writes and reads of much take long.
		p.bytes = min(p.bytes, 400*int64(min(client.piece, server.piece)))
		if random.IntN(12) == 0 {
			p.resetAt = random.Int64N(p.bytes + 1)
		}
	}
	switch random.IntN(6) {
	case 0:
		client.waits = true
	case 1:
		server.waits = true
	}
	return client, server
}

// play carries out one end of a session, and checks what it sees of the other.
// A stream may end early only with a reset, and only if one was planned.
func play(c *net.TCPConn, mine, other plan, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, mine.seed))
	if random.IntN(4) == 0 {
		// Smaller than a loopback segment, it takes Linux 25 s per MB.
		small := 32 << 10
		if other.bytes < 16<<10 {
			small = 4 << 10
		}
		_ = c.SetReadBuffer(small << random.IntN(3))
	}
	if random.IntN(4) == 0 {
		_ = c.SetWriteBuffer(4 << 10 << random.IntN(6))
	}
	pauses := rand.New(rand.NewPCG(seed, mine.seed+1))
	rest := func(r *rand.Rand) {
		if mine.pause > 0 && r.IntN(mine.pause) == 0 {
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
		}
	}
	heard := make(chan heard, 1)
	go func() { heard <- listen(c, mine, other, random, rest) }()
	met := false
	if mine.waits {
		first := <-heard
		heard <- first
		met = first.err != nil
	}
	if !met {
		met = speak(c, mine, pauses, rest) != nil
	}
	got := <-heard
	_ = c.Close()
	if got.err == nil && got.cut && !met {
		return errors.New("a reset became a clean end")
	}
	return got.err
}

// speak sends. An error in it is a reset that the write met before the read.
func speak(c *net.TCPConn, mine plan, random *rand.Rand, rest func(*rand.Rand)) error {
	out := newSource(mine.seed)
	n := mine.bytes
	if mine.resetAt >= 0 {
		n = mine.resetAt
	}
	for n > 0 {
		b := out.next(int(min(n, int64(1+random.IntN(mine.piece)))))
		if _, err := c.Write(b); err != nil {
			return err
		}
		n -= int64(len(b))
		rest(random)
	}
	if mine.resetAt >= 0 {
		_ = c.SetLinger(0)
		_ = c.Close()
		return nil
	}
	_ = c.CloseWrite()
	return nil
}

// heard is how the other's stream ended.
type heard struct {
	err error
	cut bool // without an error, but earlier than planned
}

func listen(c *net.TCPConn, mine, other plan, random *rand.Rand, rest func(*rand.Rand)) heard {
	in := newSink(other.seed)
	b := make([]byte, mine.piece)
	for {
		n, err := c.Read(b[:1+random.IntN(len(b))])
		if _, wrong := in.Write(b[:n]); wrong != nil {
			return heard{err: wrong}
		}
		resets := mine.resetAt >= 0 || other.resetAt >= 0
		switch {
		case err == nil:
			rest(random)
			continue
		case errors.Is(err, io.EOF) && in.n == other.bytes && other.resetAt < 0:
			return heard{}
		case errors.Is(err, io.EOF) && resets:
			return heard{cut: true}
		case errors.Is(err, syscall.ECONNRESET) && resets, errors.Is(err, net.ErrClosed) && mine.resetAt >= 0:
			return heard{}
		}
		return heard{err: fmt.Errorf("after %d of %d bytes (resets at %d, %d): %w", in.n, other.bytes, other.resetAt, mine.resetAt, err)}
	}
}

// TestStreamFuzz throws sessions at engines of every tuning, and checks each
// byte at both ends.
func TestStreamFuzz(t *testing.T) {
	seed := *fuzzSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-relay.seed=%d", seed)
	tunings := map[string]func(*setup){
		"rule":   func(s *setup) { s.tune.scratch = 16 << 10 },
		"flip":   func(s *setup) { flipping(s, 2); s.tune.scratch = 4 << 10 },
		"tiny":   func(s *setup) { flipping(s, 7); s.tune.sndbuf = 4 << 10; s.tune.turn = 1 },
		"scarce": func(s *setup) { s.tune.scratch, s.tune.pipes, s.tune.pipeSize = 1<<10, 1, minPipe },
	}
	for name, change := range tunings {
		t.Run(name, func(t *testing.T) { fuzz(t, seed, *fuzzTime/time.Duration(len(tunings)), change) })
	}
}

func fuzz(t *testing.T, seed uint64, long time.Duration, change func(*setup)) {
	listen := [2]string{"127.0.0.1:0", "[::1]:0"}
	if l, err := net.Listen("tcp", listen[1]); err != nil {
		listen[1] = listen[0] // no IPv6 here
	} else {
		_ = l.Close()
	}
	r := newRig(t, change, func(s *setup) {
		s.frontend.LogSessions = false
		s.listen = listen[seed%2]
		if seed%3 == 0 {
			s.tune.finDelay = 0
		}
	})
	errs := make(chan error, 1)
	fail := func(session uint64, side string, err error) {
		if err != nil {
			select {
			case errs <- fmt.Errorf("session %d, %s: %w", session, side, err):
			default:
			}
		}
	}
	server := serveOn(t, listen[seed/2%2], func(c *net.TCPConn) {
		// The client's stream begins with the session's number.
		var b [8]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return // a reset overtook it
		}
		session := uint64(0)
		for _, x := range b {
			session = session<<8 | uint64(x)
		}
		other, mine := plansOf(session)
		fail(session, "server", play(c, mine, other, session))
	})
	r.desk.setRoute(to(server, 0, 1))
	var wg sync.WaitGroup
	var next, sessions atomic.Uint64
	next.Store(seed)
	for range 8 {
		wg.Go(func() {
			for end := time.Now().Add(long); time.Now().Before(end) && len(errs) == 0; sessions.Add(1) {
				session := next.Add(1)
				c, err := net.Dial("tcp", r.addr)
				if err != nil {
					fail(session, "client", err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(3 * patience))
				var b [8]byte
				for i := range b {
					b[i] = byte(session >> (56 - 8*i))
				}
				if _, err := c.Write(b[:]); err != nil {
					fail(session, "client", err)
				}
				mine, other := plansOf(session)
				fail(session, "client", play(c.(*net.TCPConn), mine, other, session))
			}
		})
	}
	wg.Wait()
	t.Logf("%d sessions", sessions.Load())
	select {
	case err := <-errs:
		t.Errorf("%v\nwith -relay.seed=%d", err, seed)
	default:
	}
}
