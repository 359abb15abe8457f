package relay

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// littleMemory is where buffers are made smaller: below it are routers.
const littleMemory = 256 << 20

// tuning holds the sizes that tests change.
type tuning struct {
	scratch  int // bytes that one read may bring
	turn     int // bytes that a direction may move in one turn
	pipeSize int
	pipes    int // open at once per loop
	sndbuf   int // SO_SNDBUF of both sides; 0 = the kernel's
	flip     int // change the mode of a direction every so many operations; 0 = by the rule
	flips    *atomic.Int32

	working int // loops that get sessions; 0 = as many as there is work for

	finDelay  time.Duration // 0 = a FIN is passed on at once
	keepAfter time.Duration // a session so old gets keepalive
}

func machineTuning() *tuning {
	t := &tuning{scratch: 64 << 10, turn: turnBytes, pipeSize: 256 << 10, pipes: maxPipes, finDelay: finDelay, keepAfter: time.Second}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil && uint64(info.Totalram)*uint64(info.Unit) <= littleMemory {
		t.scratch, t.pipeSize, t.pipes = 16<<10, 64<<10, maxPipes/4
	}
	return t
}

// flipMode changes the mode of an empty direction at random moments, in tests.
func (t *tuning) flipMode(d *side) {
	if t.flip > 0 && t.flips.Add(1)%int32(t.flip) == 0 {
		d.mode = bySplice - d.mode
	}
}

func (l *loop) tuneSocket(fd int32) {
	if l.tune.sndbuf > 0 {
		setsockopt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, l.tune.sndbuf)
	}
}
