package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// bulk reads as much as comes in job.Sessions streams, and looks at three
// bytes of every piece.
func (c *client) bulk() error {
	ep, err := newEpoll()
	if err != nil {
		return err
	}
	type stream struct {
		fd int
		at uint64
	}
	streams := make([]stream, c.Sessions)
	for i := range streams {
		fd, err := dial(c.target)
		if err != nil {
			return err
		}
		streams[i].fd = fd
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		if err := watch(ep, fd, unix.EPOLLIN, i); err != nil {
			return err
		}
	}
	buf := make([]byte, bulkChunk)
	return c.loop(ep, func(i int, _ uint32) error {
		s := &streams[i]
		n, errno := read(s.fd, buf)
		if errno == unix.EAGAIN {
			return nil
		}
		if errno != 0 || n == 0 {
			return fmt.Errorf("reading the stream: %d bytes, %v", n, errno)
		}
		for _, i := range [3]int{0, n / 2, n - 1} {
			if want := byte((s.at + uint64(i)) % patternLength); buf[i] != want {
				return fmt.Errorf("byte %d of the stream is %d, not %d", s.at+uint64(i), buf[i], want)
			}
		}
		s.at += uint64(n)
		if c.counting {
			c.ops += uint64(n)
		}
		return nil
	}, nil, &pacer{})
}
