package relay

import (
	"io"
	"net"
	"testing"
	"time"
)

// A live peer that has stopped reading is no silent peer, however long it
// lasts, and its stream stays whole.
func TestClosedWindowSurvives(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a second; not with -short")
	}
	const silence = 100 * time.Millisecond
	r := newRig(t, func(s *setup) { s.Silence = silence })
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	const size = 16 << 20
	errs := make(chan error, 4)
	var readers []*net.TCPConn
	for range 2 {
		c := r.dial()
		s := await(t, "the server's side", conns)
		from, to := c, s
		if len(readers) == 1 {
			from, to = s, c
		}
		readers = append(readers, to)
		go func() { errs <- sendStream(from, 4, size) }()
	}
	eventually(t, "stalled sessions", func() bool {
		n := 0
		for _, load := range r.Loads() {
			n += load.Chunks + load.Pipes
		}
		return n >= 2
	})
	// Long enough for probes to be further apart than the limit: the kernel
	// doubles their distance, from 200 ms on.
	time.Sleep(10 * silence)
	r.desk.ended(t, 0)
	for _, c := range readers {
		if err := wantStream(io.LimitReader(c, size), 4, size); err != nil {
			t.Error(err)
		}
	}
	for range readers {
		if err := await(t, "all sent", errs); err != nil {
			t.Error(err)
		}
	}
}

// An idle loop sleeps: when all is acknowledged the sweeper has nothing to do.
func TestSweeperRests(t *testing.T) {
	r := newRig(t, func(s *setup) { s.Silence = 20 * time.Millisecond; s.Loops = 1 })
	r.desk.setRoute(to(serve(t, echo), 0, 1))
	for range 10 {
		ping(t, r.dial(), "hello")
	}
	unsureSides := func() int { return r.Loads()[0].Unsure }
	eventually(t, "all sure", func() bool { return unsureSides() == 0 })
	c := r.dial()
	eventually(t, "doubt about what was just written", func() bool {
		ping(t, c, "again")
		return unsureSides() > 0
	})
	eventually(t, "all sure again", func() bool { return unsureSides() == 0 })
}
