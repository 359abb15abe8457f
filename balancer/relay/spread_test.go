package relay

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// moveAbout has the loops hand busy sessions to each other all the time.
func (r *rig) moveAbout(long time.Duration) {
	n := len(r.loops)
	for i, end := 0, time.Now().Add(long); time.Now().Before(end); i++ {
		r.loops[i%n].mail.post(order{kind: orderShare, number: int32((i + 1) % n), all: i%3 == 0})
		time.Sleep(100 * time.Microsecond)
	}
}

// Sessions change their loop while they talk both ways.
func TestMoveKeepsEveryByte(t *testing.T) {
	const sessions, size = 8, 2 << 20
	r := newRig(t, func(s *setup) { s.Loops, s.tune.working = 3, 3 })
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.moveAbout(2 * time.Second)
	}()
	errs := make(chan error, 4*sessions)
	for i := range uint64(sessions) {
		client, server := r.dial(), await(t, "a server's side", conns)
		for _, c := range []*net.TCPConn{client, server} {
			go func() { errs <- sendInPieces(c, i, size) }()
			go func() { errs <- wantStream(c, i, size) }()
		}
	}
	for range 4 * sessions {
		if err := await(t, "a stream's end", errs); err != nil {
			t.Error(err)
		}
	}
	<-done
	r.desk.ended(t, sessions)
	for i, load := range r.Loads() {
		if got := r.loops[i].load.Load(); got != 0 {
			t.Errorf("loop %d thinks that it has %d sessions (%+v)", i, got, load)
		}
	}
}

// sendInPieces sends with pauses, so that a session is often at rest, and can be
// moved.
func sendInPieces(c *net.TCPConn, seed uint64, size int64) error {
	source := newSource(seed)
	for sent := int64(0); sent < size; sent += 4 << 10 {
		if _, err := io.CopyN(struct{ io.Writer }{c}, source, 4<<10); err != nil {
			return err
		}
		time.Sleep(50 * time.Microsecond)
	}
	return c.CloseWrite()
}

// A fence finds every session of its epoch, while sessions change their loop.
func TestFenceFindsMovingSessions(t *testing.T) {
	const sessions = 60
	r := newRig(t, func(s *setup) { s.Loops, s.tune.working = 3, 3 })
	l := serve(t, echo)
	for round := range Epoch(10) {
		r.desk.setRoute(to(l, 0, round+1))
		var clients []*net.TCPConn
		for range sessions {
			c := r.dial()
			ping(t, c, "hello")
			clients = append(clients, c)
		}
		before := loads(r.loops)
		stop := make(chan struct{})
		var movers sync.WaitGroup
		movers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					r.loops[i%3].mail.post(order{kind: orderShare, number: int32((i + 1) % 3), all: true})
				}
			}
		})
		eventually(t, "a session on its way", func() bool { return !slices.Equal(loads(r.loops), before) })
		r.Fence(round+1, MarkedDown)()
		close(stop)
		movers.Wait()
		for _, c := range clients {
			wantEnd(t, c, false)
		}
		r.desk.ended(t, sessions*int(round+1))
	}
}

// loads are how many sessions each loop has, or is about to have.
func loads(loops []*loop) (each []int32) {
	for _, l := range loops {
		each = append(each, l.load.Load())
	}
	return each
}

// twoLoops are an engine's loops that run only when a test says so, with a
// session on the first one.
func twoLoops(t *testing.T) (s *stepper, other *loop, client *net.TCPConn) {
	s = newStepperOf(t, 2)
	s.desk.setRoute(to(serve(t, echo), 0, 7))
	client = s.dial()
	s.until("a session", func() bool { return s.loop.sessions.live == 1 && s.session(0).state == relaying })
	return s, s.loops[1], client
}

// The fence has reached the other loop already, but not yet the one that the
// session comes from.
func TestFenceOvertakenByAMove(t *testing.T) {
	for _, c := range []struct {
		name  string
		epoch Epoch
		ended bool
	}{
		{"its epoch", 7, true},
		{"another's", 8, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, other, client := twoLoops(t)
			s.Fence(c.epoch, MarkedDown)
			other.obey()
			s.loop.give(s.session(0), other)
			other.obey()
			if other.sessions.live == 0 != c.ended {
				t.Fatalf("%d sessions on the other loop", other.sessions.live)
			}
			if c.ended {
				wantEnd(t, client, false)
				return
			}
			s.loop.obey() // and the fence finds nothing there
			if _, err := io.WriteString(client, "x"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "an echo", func() bool {
				other.mail.post(order{kind: orderRecall}) // a round that does not sleep
				other.round()
				return other.servers[0].Out == 1
			})
		})
	}
}

// So many orders have come in between that nobody knows whether one was meant
// for the session.
func TestMoveThatMissedTooMuch(t *testing.T) {
	s, other, client := twoLoops(t)
	for i := range len(other.ends.recent) + 1 {
		s.Fence(Epoch(100+i), MarkedDown)
		other.obey()
	}
	s.loop.give(s.session(0), other)
	other.obey()
	wantEnd(t, client, false)
	if other.sessions.live != 0 {
		t.Error("it lives on")
	}
}

// What a loop gave away is told to it no more.
func TestEventAfterMove(t *testing.T) {
	s, other, client := twoLoops(t)
	if _, err := io.WriteString(client, "x"); err != nil {
		t.Fatal(err)
	}
	old := *s.session(0)
	s.loop.give(s.session(0), other)
	ev := s.loop.events[:1]
	ev[0].Fd, ev[0].Pad, ev[0].Events = 0, int32(old.side[clientSide].generation), interest
	s.loop.dispatch(&ev[0])
	if got := s.session(0); got.state != free || s.loop.sessions.live != 0 || s.loop.load.Load() != 0 {
		t.Errorf("the loop still has it: %+v", got)
	}
	other.obey()
	if other.sessions.live != 1 || other.load.Load() != 1 {
		t.Error("the other has it not")
	}
	// Nor is it told to the slot's next session.
	hole, _ := blackHole(t)
	s.desk.setRoute(toAddr(hole, 0, 8))
	s.dial()
	s.until("a connect", func() bool { return s.session(0).state == connecting })
	ev = s.loop.events[:1]
	ev[0].Fd, ev[0].Pad, ev[0].Events = serverSide, int32(old.side[serverSide].generation), unix.EPOLLOUT
	s.loop.dispatch(&ev[0])
	if got := s.session(0).state; got != connecting {
		t.Errorf("the slot's next session is in state %d, want %d", got, connecting)
	}
}

func TestSpread(t *testing.T) {
	type look struct {
		shares []uint32 // of the loops, thousandths
		idle   int      // of all cores, thousandths of one
		want   string   // working loops, and orders: from>to
		load   int32    // sessions of each loop
	}
	busy := func(idle int, want string, shares ...uint32) look { return look{shares, idle, want, 4} }
	for name, looks := range map[string][]look{
		"little to do":                 {busy(2900, "1", 100, 0, 0), busy(2900, "1", 600, 0, 0)},
		"a full loop and an idle core": {busy(2000, "1", 100, 0, 0), busy(2000, "2 0>1", 900, 0, 0)},
		"no core is idle":              {busy(0, "1", 900, 0, 0), busy(100, "1", 990, 0, 0)},
		"a part of a core is idle":     {busy(300, "1", 900, 0, 0)},
		"and there are many":           {{[]uint32{900, 0, 0}, 300, "2 0>1", many}},
		"many, but no core idle":       {{[]uint32{900, 0, 0}, 40, "1", many}},
		"one after the other": {
			busy(2000, "2 0>1", 900, 0, 0), busy(1200, "3 1>2", 800, 850, 0),
			busy(700, "3", 800, 850, 700), busy(700, "3 0>1", 800, 300, 700),
		},
		"a lopsided load":      {busy(2000, "2 0>1", 900, 0, 0), busy(2000, "2 0>1", 900, 200, 0)},
		"a single hot session": {busy(2000, "2 0>1", 900, 0, 0), busy(2000, "2 0>1", 900, 0, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := prepare(Options{Loops: 3})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				for _, l := range e.loops {
					l.close()
				}
			}()
			idle := time.Duration(0)
			p := &spreader{engine: e, idle: func() time.Duration { return idle }}
			now := 10 * time.Second
			p.look(now)
			for i, look := range looks {
				now += spreadEvery
				idle += time.Duration(look.idle) * spreadEvery / 1000
				for n, share := range look.shares {
					e.loops[n].busy.share.Store(share)
					e.loops[n].load.Store(look.load)
					e.loops[n].busy.seen.Store(uint32(now / time.Millisecond))
				}
				p.look(now)
				if got := decision(e); got != look.want {
					t.Errorf("look %d: %q, want %q", i, got, look.want)
				}
			}
		})
	}
}

// decision says how many loops work, and takes the orders out of the mail.
func decision(e *Engine) string {
	text := fmt.Sprint(e.working.Load())
	for i, l := range e.loops {
		for _, o := range slices.Clone(l.mail.take()) {
			if o.kind == orderShare {
				text += fmt.Sprintf(" %d>%d", i, o.number)
				if o.all {
					text += " all"
				}
			}
		}
	}
	return text
}

// When the work has become little, one loop after the other rests again.
func TestSpreadEnds(t *testing.T) {
	e, err := prepare(Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, l := range e.loops {
			l.close()
		}
	}()
	e.working.Store(2)
	p := &spreader{engine: e, idle: func() time.Duration { return -1 }}
	now := time.Minute
	for i := range lightFor + 1 {
		if got := decision(e); got != "2" {
			t.Fatalf("look %d: %q", i, got)
		}
		now += spreadEvery
		for _, l := range e.loops {
			l.busy.share.Store(lightShare/2 - 1)
			l.busy.seen.Store(uint32(now / time.Millisecond))
		}
		p.look(now)
	}
	if got := decision(e); got != "1 1>0 all" {
		t.Errorf("in the end: %q", got)
	}
}

// A loop without time, beside idle cores, gets help from the real measures.
func TestSpreadUnderLoad(t *testing.T) {
	if machineIdle() < 0 {
		t.Fatal("/proc/stat does not tell how idle the machine is")
	}
	l := &loop{engine: &Engine{spreading: make(chan struct{}, 1)}}
	l.lookAround()
	l.now, l.busy.fromCPU = spreadEvery, threadTime()-spreadEvery // as if it had worked all the time
	l.lookAround()
	if got := l.busy.share.Load(); got < fullShare {
		t.Errorf("share %d", got)
	}
	select {
	case <-l.engine.spreading:
	default:
		t.Error("nobody was asked")
	}
}
