package relay

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mode is who owns a direction. It changes only while the direction holds no
// bytes, so that none can be lost or overtaken in the change.
type mode uint8

const (
	byCopy   mode = iota // read and write through the loop's scratch
	bySplice             // through a pooled pipe
)

const (
	// turnBytes is how much one direction may move before others have their
	// turn. A read counts for at least readCost, so small ones are bounded too.
	turnBytes = 64 << 10
	readCost  = turnBytes / 4
	// finDelay is how long a client's FIN right behind its last bytes is held
	// back. A server that ends by itself when it has read them, as PostgreSQL
	// does at Terminate, then closes first and keeps the TIME_WAIT; else it
	// would be ours, with a local port each: 28,000 of them in 60 s is all.
	finDelay = 20 * time.Millisecond
)

// plain are the flags of a side of which nothing special is known.
const plain = readable | writable | unsure | kept | watched

// forward is the short way of a message, where nothing is special: side i has
// become readable, and the other side takes all that is read at once. It
// reports false where there is more to do.
//
// It makes its system calls itself. After each of them the processor guesses
// every return to a caller wrong (the kernel has used up its memory of them),
// so each function in between costs more than all that it does.
func (l *loop) forward(s *session, i int, events uint32) bool {
	from, to := &s.side[i], &s.side[1-i]
	if from.flags&^plain != 0 || to.flags&(readable|writable|^plain) != writable ||
		from.mode != byCopy || from.holds() || to.holds() || l.tune.flip > 0 {
		return false
	}
	from.set(readable)
	if events&unix.EPOLLOUT != 0 {
		from.set(writable)
	}
	r, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(from.fd), uintptr(unsafe.Pointer(&l.scratch[0])), uintptr(len(l.scratch)), 0, 0, 0)
	if n := int(r); errno != 0 || n == 0 || n == len(l.scratch) {
		l.received(s, i, n, errno)
		return false
	}
	from.heard = l.now
	from.streak = 0
	from.clear(readable) // a short read means drained
	w, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(to.fd), uintptr(unsafe.Pointer(&l.scratch[0])), r, unix.MSG_NOSIGNAL, 0, 0)
	if w != r {
		if errno != 0 {
			w = 0
		}
		l.written(s, i, int(w), int(r), errno)
		l.keepRest(s, i, l.scratch[w:r])
		return false
	}
	l.count(s, i, int(r))
	return true
}

// pump moves what can be moved, both ways, and then settles what that means for
// the session.
func (l *loop) pump(s *session) {
	c, v := &s.side[clientSide], &s.side[serverSide]
	more := l.move(s, clientSide)
	if l.move(s, serverSide) {
		more = true
	}
	if c.is(dead) && l.move(s, clientSide) { // a write to it may just have told so
		more = true
	}
	l.givePipe(c)
	l.givePipe(v)
	switch {
	case v.is(dead) && l.isOver(v, more):
		l.abort(s, serverSide)
	case c.is(dead) && l.isOver(c, more):
		l.abort(s, clientSide)
	case c.is(passedOn) && v.is(passedOn):
		l.finish(s, Normal, politely, politely)
	case more:
		l.queue(s)
	}
}

// isOver reports whether nothing more of a dead side's stream can be saved. What
// it sent before a reset is still passed on, as far as the other side takes it
// at once; what it sent before a FIN, in full.
func (l *loop) isOver(d *side, more bool) bool {
	if d.is(ended) {
		return d.is(passedOn)
	}
	return !more
}

// abort ends a session one of whose sides is dead. The other side gets an RST
// too, because a FIN would make a stream that was cut short look whole.
func (l *loop) abort(s *session, i int) {
	if i == clientSide {
		l.finish(s, ClientAborted, politely, reset)
		return
	}
	if !s.told {
		s.told = true
		l.observe(s, ServerReset)
	}
	toClient := reset
	if s.side[serverSide].is(passedOn) {
		toClient = politely
	}
	l.finish(s, ServerAborted, toClient, politely)
}

// move moves the stream that comes from side i. It reports whether it left off
// although more could be moved.
func (l *loop) move(s *session, i int) (more bool) {
	from, to := &s.side[i], &s.side[1-i]
	for budget := l.tune.turn; ; {
		if from.holds() {
			if to.is(dead) {
				l.drop(from) // nobody is left to take it
				return false
			}
			if !to.is(writable) || !l.flush(s, i) {
				return false
			}
		}
		if from.is(ended) {
			l.passEnd(s, i)
			return false
		}
		if to.is(dead) || !from.is(readable) {
			return false
		}
		if budget <= 0 {
			return true
		}
		l.tune.flipMode(from)
		n := 0
		if from.is(gated) {
			n = l.admitSome(s)
		} else if from.mode == bySplice {
			n = l.spliceSome(s, i)
		} else {
			n = l.copySome(s, i)
		}
		budget -= max(n, readCost)
	}
}

// copySome does one read, and writes what it brought.
func (l *loop) copySome(s *session, i int) int {
	n, errno := recv(s.side[i].fd, l.scratch)
	return l.received(s, i, n, errno)
}

// received takes what a read brought on.
func (l *loop) received(s *session, i int, n int, errno syscall.Errno) int {
	from := &s.side[i]
	if errno != 0 || n == 0 {
		l.dry(s, i, errno)
		return 0
	}
	from.heard = l.now
	if n == len(l.scratch) {
		l.readFull(from)
	} else {
		from.streak = 0
		// A short read means drained, unless a FIN or an urgent mark cut it.
		if !from.is(finSeen | urgent) {
			from.clear(readable)
		}
	}
	l.keepRest(s, i, l.scratch[l.write(s, i, l.scratch[:n]):n])
	return n
}

// keepRest keeps what the other side did not take yet.
func (l *loop) keepRest(s *session, i int, rest []byte) {
	if from := &s.side[i]; len(rest) > 0 && !s.side[1-i].is(dead) {
		from.chunk = l.chunks.put(rest)
		from.at, from.end = 0, int32(len(rest))
		l.chunksUsed++
	}
}

// dry notes why a read brought nothing.
func (l *loop) dry(s *session, i int, errno unix.Errno) {
	d := &s.side[i]
	switch {
	case errno == unix.EINTR: // no word of the socket
	case errno == unix.EAGAIN:
		d.clear(readable | urgent)
	case errno != 0:
		d.clear(readable)
		d.set(dead)
	case d.is(dead) && !d.is(finSeen):
		// A write has met the RST and consumed the error; the 0 is no FIN.
		d.clear(readable)
	default:
		d.clear(readable)
		d.set(ended | finSeen)
		if i == serverSide && !s.side[clientSide].is(ended) && !s.told {
			s.told = true
			l.observe(s, ServerClosed)
		}
		l.arm(s) // the limit of a half-closed side may be shorter
	}
}

// write writes bytes of side i to the other side, and returns how many it took.
func (l *loop) write(s *session, i int, b []byte) int {
	n, errno := send(s.side[1-i].fd, b)
	l.written(s, i, n, len(b), errno)
	return n
}

// written notes that the other side took n of size bytes.
func (l *loop) written(s *session, i int, n, size int, errno syscall.Errno) {
	to := &s.side[1-i]
	if n < size && errno != unix.EINTR {
		to.clear(writable)
		if errno != 0 && errno != unix.EAGAIN {
			l.broken(to, errno)
		}
	}
	if n > 0 {
		l.count(s, i, n)
	}
}

// broken notes that a write met a dead connection. What the peer sent before
// may still be read. The write has used up the error, and what shows from now on
// looks like a FIN in any case; whether there was one, the error has told: EPIPE
// is that of a reset behind the FIN (tcp_reset in net/ipv4/tcp_input.c).
func (l *loop) broken(d *side, errno syscall.Errno) {
	if errno == unix.EPIPE && !d.is(dead) {
		d.set(finSeen)
	}
	d.set(dead | readable)
}

// count counts bytes of side i that the other side's socket took.
func (l *loop) count(s *session, i int, n int) {
	s.side[i].passed += uint64(n)
	s.side[1-i].wrote = l.now
	l.doubt(&s.side[1-i])
	f, v := &l.frontends[s.frontend], &l.servers[s.server]
	if i == clientSide {
		f.In += uint64(n)
		v.In += uint64(n)
		l.noteWrite(s)
	} else {
		f.Out += uint64(n)
		v.Out += uint64(n)
	}
	s.clientLast = i == clientSide
	if !l.changed {
		l.changed = true
	}
}

// flush writes what side i's direction holds. It reports whether all of it is
// gone.
func (l *loop) flush(s *session, i int) bool {
	from := &s.side[i]
	if from.piped > 0 {
		return l.flushPipe(s, i)
	}
	from.at += int32(l.write(s, i, l.chunks.bytes(from.chunk)[from.at:from.end]))
	if from.at < from.end {
		return false
	}
	l.dropChunk(from)
	return true
}

// drop forgets what a direction holds.
func (l *loop) drop(d *side) {
	l.dropChunk(d)
	l.dropPipe(d)
}

func (l *loop) dropChunk(d *side) {
	if d.chunk >= 0 {
		l.chunks.free(d.chunk)
		l.chunksUsed--
		d.chunk, d.at, d.end = -1, 0, 0
	}
}

// passEnd passes the end of side i's stream on, when nothing of the stream is
// left here. If the other stream is through as well there is nothing to say:
// both sockets are about to be closed.
func (l *loop) passEnd(s *session, i int) {
	from, to := &s.side[i], &s.side[1-i]
	switch {
	case from.is(passedOn):
	case to.is(ended) && !to.holds():
		from.set(passedOn)
		to.set(passedOn)
	case to.is(dead):
		from.set(passedOn)
	case i == clientSide && s.clientLast && l.tune.finDelay > 0:
		if !s.holdingFin {
			s.holdingFin = true
			s.finAt = l.now + l.tune.finDelay
			l.arm(s)
		}
	default:
		from.set(passedOn)
		shutdownWrite(to.fd)
		l.doubt(to)
	}
}

// releaseFin passes the FIN on that was held back for long enough.
func (l *loop) releaseFin(s *session) {
	s.holdingFin, s.clientLast = false, false
	l.arm(s)
	l.pump(s)
}
