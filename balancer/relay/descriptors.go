package relay

import (
	"math"

	"golang.org/x/sys/unix"
)

// spareDescriptors are left to the rest of the process: with every descriptor
// in a session no check could find the next leader, and no operator could ask.
const spareDescriptors = 64

// descriptorCeiling returns the first descriptor number that the loops do not
// use. The kernel gives the lowest number that is free, so one at the ceiling
// or above means that all below are taken.
func descriptorCeiling() int32 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	n := int32(limit.Cur)
	return n - min(spareDescriptors, n/4)
}

// crowded reports whether another session could find no descriptors: each has
// two in the end. Who waits in the backlog is better off than one who was
// accepted and cannot be served.
func (e *Engine) crowded() bool {
	sessions := int32(1)
	for _, l := range e.loops {
		sessions += l.load.Load()
	}
	return sessions > e.ceiling/2
}

// below keeps a new descriptor, unless it is one of the spare ones.
func (e *Engine) below(fd int32, errno unix.Errno) (int32, unix.Errno) {
	if errno == 0 && fd >= e.ceiling {
		closeFD(fd)
		return -1, unix.EMFILE
	}
	return fd, errno
}
