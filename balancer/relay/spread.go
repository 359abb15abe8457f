package relay

import (
	"bytes"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How many loops work. One loop with much to do is better than several with
// little: events come in larger batches, and fewer threads wake each other up.
// Measured with 16 sessions on 2 cores, one loop instead of two takes 0.87 of
// the CPU, and a third of the p99. So all sessions are with the first loop,
// until it has no time left while a core of the machine idles; then the next
// loop starts to work, and gets every other busy session. With many sessions
// there is work for two even beside a small part of a core (128 on 2 cores: 1.1
// times the rate with two loops). When all loops together have little to do,
// the last one gives its sessions back.
const (
	spreadEvery = 100 * time.Millisecond
	fullShare   = 700 // thousandths of a core: a loop that has no time left
	lightShare  = 400 // all loops together; far from fullShare, or sessions would go to and fro
	idleEnough  = 500 // thousandths of a core that nobody uses
	many        = 64  // sessions of one loop
	idleForMany = 50  // thousandths, enough for a loop with many; idle time comes in steps of 100
	lightFor    = 20  // times in a row, before a loop is taken out of work
	busyWithin  = time.Second
)

// busyness is how much of a core a loop's thread used.
type busyness struct {
	share   atomic.Uint32 // thousandths, over the last window
	seen    atomic.Uint32 // its end, ms since the engine's start
	from    time.Duration // the present window's begin
	fromCPU time.Duration
	until   time.Duration
}

// lookAround ends a window. Only a loop that works gets here: an idle one is
// not woken up for it.
func (l *loop) lookAround() {
	b := &l.busy
	cpu := threadTime()
	if took := l.now - b.from; took > 0 {
		b.share.Store(uint32((cpu - b.fromCPU) * 1000 / took))
		b.seen.Store(uint32(l.now / time.Millisecond))
	}
	b.from, b.fromCPU, b.until = l.now, cpu, l.now+spreadEvery
	if b.share.Load() >= fullShare || l.engine.working.Load() > 1 {
		select {
		case l.engine.spreading <- struct{}{}:
		default:
		}
	}
}

func threadTime() time.Duration {
	var ts unix.Timespec
	syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// spreader decides how many loops work.
type spreader struct {
	engine *Engine
	idle   func() time.Duration // of all cores together, since some moment; < 0 = unknown
	before time.Duration        // idle, the last time
	at     time.Duration
	light  int // times in a row
}

// run looks whenever a loop asks for it.
func (p *spreader) run() {
	for range p.engine.spreading {
		p.look(time.Since(p.engine.started))
	}
}

func (p *spreader) look(now time.Duration) {
	took := now - p.at
	if took < spreadEvery {
		return
	}
	idle := p.idle()
	spare := time.Duration(idleEnough) // if nobody knows
	if idle >= 0 {
		spare = (idle - p.before) * 1000 / took
	}
	p.at, p.before = now, idle
	if took > 3*spreadEvery { // an average over a quiet time tells nothing
		return
	}
	loops := p.engine.loops
	working := int(p.engine.working.Load())
	busiest, idlest, sum := 0, 0, uint32(0)
	shares := make([]uint32, len(loops))
	for i, l := range loops {
		if seen := time.Duration(l.busy.seen.Load()) * time.Millisecond; now-seen <= 3*spreadEvery {
			shares[i] = l.busy.share.Load()
		}
		sum += shares[i]
		if shares[i] > shares[busiest] {
			busiest = i
		}
		if i < working && shares[i] < shares[idlest] {
			idlest = i
		}
	}
	enough := time.Duration(idleEnough)
	if loops[busiest].load.Load() >= many {
		enough = idleForMany
	}
	if sum >= lightShare || working == 1 {
		p.light = 0
	} else {
		p.light++
	}
	switch {
	case p.light >= lightFor:
		p.light = 0
		working--
		p.engine.working.Store(int32(working))
		loops[working].mail.post(order{kind: orderShare, number: 0, all: true})
	case shares[busiest] < fullShare || spare < enough:
	case shares[idlest] < shares[busiest]/2:
		loops[busiest].mail.post(order{kind: orderShare, number: int32(idlest)})
	case working < len(loops):
		p.engine.working.Store(int32(working + 1))
		loops[busiest].mail.post(order{kind: orderShare, number: int32(working)})
	}
}

// machineIdle is the time for which the cores had nothing to do, from the first
// line of /proc/stat: cpu user nice system idle iowait …, in USER_HZ (100).
func machineIdle() time.Duration {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return -1
	}
	defer f.Close()
	var text [256]byte
	n, _ := f.Read(text[:])
	line, _, _ := bytes.Cut(text[:n], []byte("\n"))
	columns := bytes.Fields(line)
	if len(columns) < 6 {
		return -1
	}
	sum := int64(0)
	for _, column := range columns[4:6] {
		n, err := strconv.ParseInt(string(column), 10, 64)
		if err != nil {
			return -1
		}
		sum += n
	}
	return time.Duration(sum) * 10 * time.Millisecond
}

// giveSessions hands busy sessions to another loop: every other one, or all.
func (l *loop) giveSessions(to *loop, all bool) {
	keep := !all
	for s := range l.each {
		if !s.movable() || l.now-s.side[clientSide].heard > busyWithin {
			continue
		}
		if keep {
			keep = false
			continue
		}
		keep = !all
		l.give(s, to)
	}
}

// movable reports whether nothing but its two sockets and its record makes up
// the session: nothing is held, and neither side has ended.
func (s *session) movable() bool {
	c, v := &s.side[clientSide], &s.side[serverSide]
	return s.state == relaying && !s.queued && !s.holdingFin && (c.flags|v.flags)&^plain == 0 &&
		!c.holds() && !v.holds() && c.pipe < 0 && v.pipe < 0
}

// give hands one session over. Its events end here; the other loop registers it
// anew, and learns in the first event what has come meanwhile.
//
// On its way it is in no slab, so an order to end sessions might miss it: this
// loop has not got the order yet, the other has obeyed it already. All loops
// get such orders in the same sequence, so it is enough to say how many of
// them the session has seen, and to make up for the rest at its arrival.
func (l *loop) give(s *session, to *loop) {
	moved := *s
	o := order{kind: orderMove, session: &moved, seen: l.ends.count}
	for i := range s.side {
		d := &s.side[i]
		syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epoll), unix.EPOLL_CTL_DEL, uintptr(d.fd), 0, 0, 0)
		l.sure(d)
		d.fd = -1
		d.generation++
	}
	l.unschedule(s)
	s.state = free // without become: the session lives on
	l.sessions.put(s)
	l.load.Add(-1)
	to.load.Add(1)
	l.changed = true
	if !to.mail.post(o) { // the engine is being closed
		to.load.Add(-1)
		l.load.Add(1)
		l.take(o)
	}
}

// take makes a session that comes from another loop one of this loop.
func (l *loop) take(o order) {
	s := l.sessions.get()
	slot, generations := s.slot, [2]uint32{s.side[0].generation, s.side[1].generation}
	*s = *o.session
	s.slot, s.timer, s.next, s.prev = slot, -1, -1, -1
	l.frontends.at(s.frontend)
	l.knowServer(s.server)
	l.changed = true
	for i := range s.side {
		d := &s.side[i]
		d.generation = generations[i]
		if d.is(unsure) {
			d.clear(unsure)
			l.doubt(d)
		}
	}
	if c, missed := l.ends.since(o.seen, s); missed {
		l.kill(s, c)
		return
	}
	for i := range s.side {
		if errno := l.register(s, i); errno != 0 {
			l.complain(errno)
			l.finish(s, Exhausted, politely, reset)
			return
		}
	}
	l.arm(s)
}

// ends are the latest orders to end sessions that a loop has obeyed.
type ends struct {
	count  uint32
	recent [16]order
}

func (e *ends) add(o order) {
	o.count = nil
	e.recent[e.count%uint32(len(e.recent))] = o
	e.count++
}

// since reports whether the session should have been ended by an order after
// the first so many, and why.
func (e *ends) since(seen uint32, s *session) (Cause, bool) {
	if e.count-seen > uint32(len(e.recent)) && int32(e.count-seen) > 0 {
		return Killed, true // unknown; never an unmanaged session
	}
	for ; int32(e.count-seen) > 0; seen++ {
		if o := &e.recent[seen%uint32(len(e.recent))]; o.ends(s) {
			return o.cause, true
		}
	}
	return 0, false
}

// ends reports whether the order ends the relaying session.
func (o *order) ends(s *session) bool {
	if o.kind == orderFence {
		return s.epoch == o.epoch
	}
	return o.frontend < 0 || s.frontend == o.frontend
}
