package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	promoteAfter = 3        // reads in a row that fill the scratch
	demoteAfter  = 3        // splices in a row that move less than spliceWorth
	spliceWorth  = 16 << 10 // below it a copy is cheaper than two splices
	spliceIdle   = time.Second
	minPipe      = 2 * spliceWorth // a container's 8 KiB pipe is worth nothing
	firstPipe    = 64 << 10        // the kernel's default
	growAfter    = 2               // splices in a row that fill the pipe
	pipeRetry    = time.Second     // after a lack of pipes, until the next is asked for
	pipeKeep     = 5 * time.Second // an unused pipe is closed after so long
	maxPipes     = 64              // per loop, and so the memory in them is bounded
)

// pipe is an open pipe. It is with a direction only while it holds bytes, or
// for the length of one turn.
type pipe struct {
	read, write int32 // -1 = this index is unused
	size        int32
	filled      int8 // times in a row that a splice filled it
	grown       bool // as far as it goes
}

// pipes are a loop's pipes by index.
type pipes struct {
	all     []pipe
	spare   []int32       // open and empty
	retryAt time.Duration // no pipe is opened before
	used    time.Duration // last time one was taken
	trimAt  time.Duration // when to look for unused ones; never = there are none
	broken  bool          // splice(2) does not work here
}

// readFull promotes a direction to splice after a streak of full reads.
func (l *loop) readFull(d *side) {
	if d.streak++; d.streak < promoteAfter {
		return
	}
	d.streak = 0
	if !l.pipes.broken && l.pipes.retryAt <= l.now {
		d.mode = bySplice
	}
}

// spliceSome moves bytes from the socket into a pipe; flush moves them on. The
// pipe is empty before, so EAGAIN can only mean that the socket is drained.
func (l *loop) spliceSome(s *session, i int) int {
	from := &s.side[i]
	if l.now-from.heard > spliceIdle {
		l.demote(from)
		return l.copySome(s, i)
	}
	if from.pipe < 0 {
		if from.pipe = l.takePipe(); from.pipe < 0 {
			l.demote(from)
			return l.copySome(s, i)
		}
	}
	p := &l.pipes.all[from.pipe]
	if p.filled >= growAfter && !p.grown {
		p.grow(l.tune.pipeSize)
	}
	n, errno := spliceFD(from.fd, p.write, int(p.size))
	if n == int(p.size) {
		p.filled = min(p.filled+1, growAfter)
	} else {
		p.filled = 0
	}
	if n == 0 {
		if errno == unix.EINVAL || errno == unix.ENOSYS || errno == unix.ENOMEM {
			l.pipes.broken = l.pipes.broken || errno != unix.ENOMEM
			l.demote(from)
			return l.copySome(s, i)
		}
		l.dry(s, i, errno)
		return 0
	}
	from.piped = int32(n)
	from.heard = l.now
	if n >= spliceWorth {
		from.streak = 0
	} else if from.streak++; from.streak >= demoteAfter {
		from.mode = byCopy // takes effect when the pipe is empty: see move
		from.streak = 0
	}
	return n
}

// demote gives an empty direction back to copying.
func (l *loop) demote(d *side) {
	d.mode, d.streak = byCopy, 0
	l.givePipe(d)
}

// flushPipe writes what the pipe holds. It reports whether it is empty.
func (l *loop) flushPipe(s *session, i int) bool {
	from, to := &s.side[i], &s.side[1-i]
	p := &l.pipes.all[from.pipe]
	for from.piped > 0 {
		n, errno := spliceFD(p.read, to.fd, int(from.piped))
		if n > 0 {
			from.piped -= int32(n)
			l.count(s, i, n)
			continue
		}
		to.clear(writable)
		if errno != unix.EAGAIN {
			l.broken(to, errno)
		}
		return false
	}
	return true
}

// takePipe returns the index of an empty pipe, or -1.
func (l *loop) takePipe() int32 {
	ps := &l.pipes
	ps.used = l.now
	if n := len(ps.spare); n > 0 {
		i := ps.spare[n-1]
		ps.spare = ps.spare[:n-1]
		return i
	}
	if l.pipesOpen >= l.tune.pipes || l.now < ps.retryAt {
		return -1
	}
	p, ok := openPipe(min(firstPipe, l.tune.pipeSize))
	if ok && max(p.read, p.write) >= l.engine.ceiling {
		p.close()
		ok = false
	}
	if !ok {
		ps.retryAt = l.now + pipeRetry
		return -1
	}
	l.pipesOpen++
	l.changed = true
	if ps.trimAt == never {
		ps.trimAt = l.now + pipeKeep
	}
	for i := range ps.all {
		if ps.all[i].read < 0 {
			ps.all[i] = p
			return int32(i)
		}
	}
	ps.all = append(ps.all, p)
	return int32(len(ps.all) - 1)
}

// openPipe makes a pipe as large as allowed, up to size. It reports false if
// none can be had, or none worth having.
func openPipe(size int) (pipe, bool) {
	var fd [2]int
	if unix.Pipe2(fd[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return pipe{}, false
	}
	p := pipe{read: int32(fd[0]), write: int32(fd[1])}
	// EPERM beyond the user's share of pipe memory; the size it has then tells.
	got, err := unix.FcntlInt(uintptr(fd[1]), unix.F_SETPIPE_SZ, size)
	if err != nil {
		got, err = unix.FcntlInt(uintptr(fd[1]), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || got < minPipe {
		p.close()
		return pipe{}, false
	}
	p.size = int32(got)
	return p, true
}

// grow makes an empty pipe four times as large, up to most. Only streams that
// fill theirs get large ones: all pipes of a user share one allowance
// (fs.pipe-user-pages-soft).
func (p *pipe) grow(most int) {
	p.filled = 0
	if int(p.size) < most {
		got, err := unix.FcntlInt(uintptr(p.write), unix.F_SETPIPE_SZ, min(4*int(p.size), most))
		if err == nil {
			p.size = int32(got)
			return
		}
	}
	p.grown = true
}

func (p pipe) close() {
	closeFD(p.read)
	closeFD(p.write)
}

// givePipe puts a direction's empty pipe back.
func (l *loop) givePipe(d *side) {
	if d.pipe >= 0 && d.piped == 0 {
		l.pipes.spare = append(l.pipes.spare, d.pipe)
		d.pipe = -1
	}
}

// dropPipe takes a direction's pipe away. One that holds bytes is closed: they
// must never come to another session.
func (l *loop) dropPipe(d *side) {
	if d.pipe >= 0 && d.piped > 0 {
		l.closePipe(d.pipe)
		d.pipe, d.piped = -1, 0
	}
	l.givePipe(d)
}

func (l *loop) closePipe(i int32) {
	l.pipes.all[i].close()
	l.pipes.all[i].read = -1
	l.pipesOpen--
	l.changed = true
}

// trim closes pooled pipes that nobody used for a while.
func (l *loop) trim() {
	ps := &l.pipes
	if idle := ps.used + pipeKeep; l.now < idle {
		ps.trimAt = idle
		return
	}
	l.closePipes()
	ps.trimAt = never
	if l.pipesOpen > 0 { // some hold bytes for a reader that has stalled
		ps.trimAt = l.now + pipeKeep
	}
}

func (l *loop) closePipes() {
	for _, i := range l.pipes.spare {
		l.closePipe(i)
	}
	l.pipes.spare = l.pipes.spare[:0]
}
