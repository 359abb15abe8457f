package relay

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

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

// seen is what one end of a session knows afterwards.
type seen struct {
	sent, got int64 // bytes that its socket took, and gave
	err       error
}

// play carries out one end of a session, and checks what it sees of the other.
// A stream may end early only with a reset, and only if one was planned.
func play(c *net.TCPConn, mine, other plan, seed uint64) seen {
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
	heard := make(chan heard, 1)
	go func() { heard <- listen(c, mine, other, random) }()
	met := false
	if mine.waits {
		first := <-heard
		heard <- first
		met = first.err != nil
	}
	var sent int64
	if !met {
		var err error
		sent, err = speak(c, mine, pauses)
		met = err != nil
	}
	got := <-heard
	_ = c.Close()
	if got.err == nil && got.cut && !met {
		got.err = errors.New("a reset became a clean end")
	}
	return seen{sent, got.n, got.err}
}

// rest pauses now and then, and rarely for longer than a FIN is held back.
func (p *plan) rest(random *rand.Rand) {
	if p.pause == 0 || random.IntN(p.pause) != 0 {
		return
	}
	longest := 500 * time.Microsecond
	if random.IntN(100) == 0 {
		longest = 2 * finDelay
	}
	time.Sleep(time.Duration(random.Int64N(int64(longest))))
}

// speak sends. An error in it is a reset that the write met before the read.
func speak(c *net.TCPConn, mine plan, random *rand.Rand) (sent int64, err error) {
	out := newSource(mine.seed)
	all := mine.bytes
	if mine.resetAt >= 0 {
		all = mine.resetAt
	}
	for sent < all {
		n, err := c.Write(out.next(int(min(all-sent, int64(1+random.IntN(mine.piece))))))
		sent += int64(n)
		if err != nil {
			return sent, err
		}
		mine.rest(random)
	}
	if mine.resetAt >= 0 {
		_ = c.SetLinger(0)
		_ = c.Close()
		return sent, nil
	}
	_ = c.CloseWrite()
	return sent, nil
}

// heard is how the other's stream ended.
type heard struct {
	n   int64
	err error
	cut bool // without an error, but earlier than planned
}

func listen(c *net.TCPConn, mine, other plan, random *rand.Rand) heard {
	in := newSink(other.seed)
	b := make([]byte, mine.piece)
	for {
		n, err := c.Read(b[:1+random.IntN(len(b))])
		if _, wrong := in.Write(b[:n]); wrong != nil {
			return heard{n: in.n, err: wrong}
		}
		resets := mine.resetAt >= 0 || other.resetAt >= 0
		switch {
		case err == nil:
			mine.rest(random)
			continue
		case errors.Is(err, io.EOF) && in.n == other.bytes && other.resetAt < 0:
			return heard{n: in.n}
		case errors.Is(err, io.EOF) && resets:
			return heard{n: in.n, cut: true}
		case errors.Is(err, syscall.ECONNRESET) && resets, errors.Is(err, net.ErrClosed) && mine.resetAt >= 0:
			return heard{n: in.n}
		}
		return heard{n: in.n, err: fmt.Errorf("after %d of %d bytes (resets at %d, %d): %w", in.n, other.bytes, other.resetAt, mine.resetAt, err)}
	}
}
