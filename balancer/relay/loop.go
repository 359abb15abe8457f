package relay

import (
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	eventBatch = 256
	// quickAfter is how soon events must follow each other for a raw wait. It is
	// half of what Go's scheduler lets pass before it looks for who blocks it:
	// else each wait would wake its watching thread, which at some hundred
	// sessions a second took more CPU than the sessions.
	quickAfter = 5 * time.Millisecond
	quickWait  = 10 // ms; a raw wait is no longer, should the signals be switched off
	// Both sides of a session are registered once, for everything, and never
	// changed: with edge-triggered events an EPOLL_CTL_MOD is not needed.
	interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

	// Keys of events that are not a session's: slot<<1|side is never negative.
	mailKey          = -1
	firstListenerKey = -2
)

func listenerKey(index int32) int32 { return firstListenerKey - index }

// loop is one event loop. Everything in it belongs to its thread, but what is
// atomic, the mailbox, and published.
type loop struct {
	engine   *Engine
	director Director
	log      *slog.Logger
	number   int
	tune     tuning

	mail      mailbox
	load      atomic.Int32 // sessions given to this loop; the accepting loops choose by it
	wakeable  atomic.Int32 // clients whom a Wake may concern
	published published

	epoll     int32
	events    []unix.EpollEvent
	now       time.Duration // since the engine's start; read once per round
	sessions  slab
	timers    heap
	waiters   list
	again     []revisit // sessions that had to leave off in the middle
	revisits  []revisit
	listeners []*listener
	handovers [][]order // by loop: clients that were accepted for it
	waking    waking
	record    Record

	dying          []revisit // doomed sessions, by their server's side
	parted, buried int       // so many of them have their client's side closed, and the server's

	scratch    []byte
	chunks     chunks
	chunksUsed int
	pipes      pipes
	pipesOpen  int
	writes     []writes      // by server
	stallAt    time.Duration // when to look at them; never = none is watched
	newest     Epoch         // of which FirstSession was told

	frontends, servers tally
	changed            bool // since the counters were published
	acceptMore         bool // a listener stopped at the end of its batch
	quick              bool // the last events came soon after those before
	publishAt          time.Duration
	acceptAt           time.Duration // when a listener has rested; never = none rests
	complainAt         time.Duration
	rude               int // malformed openings, until
	rudeUntil          time.Duration
	sweep              sweep
	busy               busyness
	ends               ends
}

// revisit names a session to look at again, if it is still the same.
type revisit struct {
	slot       int32
	generation uint32 // of its client's side
}

func newLoop(e *Engine, number int) (*loop, error) {
	l := &loop{
		engine: e, director: e.director, log: e.log, number: number, tune: e.tune,
		epoll: -1, events: make([]unix.EpollEvent, eventBatch),
		sessions: newSlab(), waiters: list{-1, -1},
		handovers: make([][]order, e.loopCount), acceptAt: never, stallAt: never,
	}
	l.sweep.limit, l.sweep.next, l.pipes.trimAt = e.silence, never, never
	if err := l.mail.open(); err != nil {
		return nil, fmt.Errorf("opening an eventfd: %w", err)
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		closeFD(l.mail.wake)
		return nil, fmt.Errorf("opening an epoll descriptor: %w", err)
	}
	l.epoll = int32(fd)
	if errno := l.epollAdd(l.mail.wake, unix.EPOLLIN|unix.EPOLLET, mailKey, 0); errno != 0 {
		err = errno
	} else {
		l.scratch, err = unix.Mmap(-1, 0, l.tune.scratch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	}
	if err != nil {
		closeFD(l.mail.wake)
		closeFD(l.epoll)
		return nil, fmt.Errorf("setting up an event loop: %w", err)
	}
	return l, nil
}

// run is the loop. A panic in it ends the process, as it should: sessions
// without their loop would hang for ever.
func (l *loop) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the loop
	for !l.round() {
	}
	l.close()
}

// round does what has come up. An order is obeyed before the next event.
func (l *loop) round() (stop bool) {
	n := l.poll()
	before := l.now
	l.now = l.clock()
	l.quick = n > 0 && l.now-before < quickAfter
	for i := range n {
		if l.mail.filled.Load() && l.obey() {
			stop = true
		}
		l.dispatch(&l.events[i])
	}
	if l.mail.filled.Load() && l.obey() {
		stop = true
	}
	l.revisit()
	l.expire()
	if len(l.dying) > 0 {
		l.endSome(n)
	}
	if len(l.waking.backends) > 0 {
		l.wakeSome()
	}
	l.housekeep()
	return stop
}

func (l *loop) clock() time.Duration { return time.Since(l.engine.started) }

// poll waits for events until something is due.
//
// A wait is an ordinary system call, in which Go's scheduler may give this
// thread's processor away. But where events come one soon after the other, that
// and taking it back would cost more than all else here, so then it is a raw
// one. The collector need not wait for that: it interrupts with a signal
// whoever does not stop by himself, and a wait in epoll always ends by that.
func (l *loop) poll() int {
	events, size := uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events))
	timeout := l.timeout()
	var n uintptr
	var errno syscall.Errno
	// epoll_pwait, because arm64 has no epoll_wait.
	if l.quick || timeout == 0 {
		if timeout < 0 || timeout > quickWait {
			timeout = quickWait
		}
		n, _, errno = syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), events, size, uintptr(timeout), 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), events, size, uintptr(timeout), 0, 0)
	}
	switch errno {
	case 0:
		return int(n)
	case unix.EINTR:
		return 0
	}
	panic("epoll_pwait: " + errno.Error())
}

// timeout is how long the loop may sleep: milliseconds, -1 = for ever.
func (l *loop) timeout() int {
	if len(l.again) > 0 || l.acceptMore || len(l.dying) > 0 || len(l.waking.backends) > 0 || l.mail.filled.Load() {
		return 0
	}
	due := min(l.acceptAt, l.sweep.next, l.pipes.trimAt, l.stallAt)
	if len(l.timers) > 0 {
		due = min(due, l.sessions.at(l.timers[0]).due)
	}
	if l.changed {
		due = min(due, l.publishAt)
	}
	if due == never {
		return -1
	}
	// Rounded up, or the loop would spin through the last millisecond.
	wait := (due - l.now + time.Millisecond - 1) / time.Millisecond
	return int(max(0, min(wait, math.MaxInt32)))
}

// housekeep does what is due and no session's.
func (l *loop) housekeep() {
	if l.acceptMore || l.acceptAt <= l.now {
		l.resumeListeners()
	}
	if l.sweep.next <= l.now {
		l.sweepSome()
	}
	if l.stallAt <= l.now {
		l.lookForStalls()
	}
	if l.pipes.trimAt <= l.now {
		l.trim()
	}
	if l.busy.until <= l.now {
		l.lookAround()
	}
	if l.changed && l.publishAt <= l.now && l.publish() {
		l.changed = false
		l.publishAt = l.now + publishEvery
	}
}

func (l *loop) epollAdd(fd int32, events uint32, key int32, generation uint32) unix.Errno {
	ev := unix.EpollEvent{Events: events, Fd: key, Pad: int32(generation)}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epoll), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	return errno
}

// register asks for the events of one side. They carry the side's generation,
// which changes when its descriptor is closed.
func (l *loop) register(s *session, i int) unix.Errno {
	return l.epollAdd(s.side[i].fd, interest, s.slot<<1|int32(i), s.side[i].generation)
}

func (l *loop) dispatch(ev *unix.EpollEvent) {
	switch {
	case ev.Fd >= 0:
		s := l.sessions.at(ev.Fd >> 1)
		i := int(ev.Fd & 1)
		// A stale event: its descriptor was closed earlier in this batch.
		if s.side[i].generation != uint32(ev.Pad) || s.side[i].fd < 0 {
			return
		}
		if s.state != relaying || ev.Events&^unix.EPOLLOUT != unix.EPOLLIN || !l.forward(s, i, ev.Events) {
			l.onEvent(s, i, ev.Events)
		}
	case ev.Fd <= firstListenerKey:
		ln := l.listeners[firstListenerKey-ev.Fd]
		if ln != nil && uint32(ln.id) == uint32(ev.Pad) {
			ln.ready = true
			if ln.resume <= l.now {
				l.acceptFrom(ln)
			}
		}
	}
}

// onEvent notes what an event tells of a side, and acts by the state.
func (l *loop) onEvent(s *session, i int, events uint32) {
	if i == serverSide && s.state == connecting {
		l.onConnecting(s, events)
		if s.state != relaying && s.state != opening {
			return
		}
	}
	d := &s.side[i]
	if events&unix.EPOLLOUT != 0 {
		d.set(writable)
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		d.set(readable)
	}
	if events&unix.EPOLLPRI != 0 {
		d.set(urgent)
	}
	if events&unix.EPOLLERR != 0 {
		d.set(dead)
	} else if events&unix.EPOLLRDHUP != 0 && !d.is(dead) {
		d.set(finSeen) // an RST shows as RDHUP too, but with ERR, unless a write has used that up
	}
	switch s.state {
	case waiting:
		if d.is(finSeen | dead) {
			l.gaveUp(s)
		}
	case connecting:
		if d.is(dead) {
			l.gaveUp(s)
		}
	case relaying:
		l.pump(s)
	case greeting:
		l.onGreeting(s)
	case opening:
		l.onOpening(s)
	}
}

// queue has the session looked at again in the next round.
func (l *loop) queue(s *session) {
	if !s.queued {
		s.queued = true
		l.again = append(l.again, revisit{s.slot, s.side[clientSide].generation})
	}
}

// revisit goes on with the sessions that left off.
func (l *loop) revisit() {
	l.again, l.revisits = l.revisits[:0], l.again
	for _, r := range l.revisits {
		s := l.sessions.at(r.slot)
		if s.side[clientSide].generation == r.generation && s.state == relaying {
			s.queued = false
			l.pump(s)
		}
	}
}

// complain logs a lack of something local, once in a while.
func (l *loop) complain(errno unix.Errno) {
	if l.now < l.complainAt {
		return
	}
	l.complainAt = l.now + complainEvery
	hint := "raise the limit of open files (ulimit -n, procd: limits nofile), or lower maxconn"
	switch errno {
	case unix.EADDRNOTAVAIL, unix.EAGAIN:
		hint = "no local port is free (net.ipv4.ip_local_port_range)"
	case unix.ENOMEM, unix.ENOBUFS:
		hint = "no memory for another socket"
	case unix.ENOSPC:
		hint = "too many event registrations (fs.epoll.max_user_watches)"
	}
	l.log.Warn("new sessions must wait: "+errno.Error(), "sessions", l.sessions.live, "hint", hint)
}

// close ends all that the loop has.
func (l *loop) close() {
	for _, o := range l.mail.close() {
		switch {
		case o.kind == orderAdopt:
			l.load.Add(-1)
			l.discard(o)
		case o.kind == orderMove:
			l.take(o)
		case o.kind == orderListen:
			closeFD(o.listener.fd)
		case o.count != nil:
			o.count.add(0)
		}
	}
	l.killAll(Killed)
	for _, ln := range l.listeners {
		if ln != nil {
			closeFD(ln.fd)
		}
	}
	l.closePipes()
	closeFD(l.epoll)
	_ = unix.Munmap(l.scratch)
	for !l.publish() {
		runtime.Gosched()
	}
}
