package relay

import (
	"io"
	"testing"
)

// A bulk stream gets a larger pipe, up to the limit; nothing of it is lost.
func TestPipeGrows(t *testing.T) {
	s := newStepper(t, func(tune *tuning) { tune.scratch = 4 << 10 })
	l, conns := accepted(t)
	s.desk.setRoute(to(l, 0, 1))
	client := s.dial()
	s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
	server := await(t, "the server's side", conns)
	const size = 32 << 20
	errs := make(chan error, 2)
	go func() {
		err := sendStream(client, 1, size)
		_ = client.CloseWrite()
		errs <- err
	}()
	go func() { errs <- wantStream(io.Reader(server), 1, size) }()
	most := int32(0)
	s.until("all of the stream", func() bool {
		for _, p := range s.loop.pipes.all {
			most = max(most, p.size)
		}
		return len(errs) == 2
	})
	for range 2 {
		if err := await(t, "a stream's end", errs); err != nil {
			t.Error(err)
		}
	}
	if most != int32(s.tune.pipeSize) {
		t.Errorf("the largest pipe had %d bytes, want %d", most, s.tune.pipeSize)
	}
}

func TestPipeGrowth(t *testing.T) {
	p, ok := openPipe(firstPipe)
	if !ok {
		t.Fatal("no pipe")
	}
	defer p.close()
	for _, want := range []struct {
		size  int32
		grown bool
	}{{256 << 10, false}, {300 << 10, false}, {0, true}} {
		before := p.size
		p.grow(300 << 10)
		// The kernel rounds up to a power of two.
		if p.grown != want.grown || p.size < want.size || (want.grown && p.size != before) {
			t.Errorf("%d bytes after %d, grown %v; want %d, %v", p.size, before, p.grown, want.size, want.grown)
		}
	}
}
