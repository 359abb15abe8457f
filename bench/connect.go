package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// maxCalls is how many sessions are open at once at a fixed rate; those that
// are due beyond it wait, and their waiting counts.
const maxCalls = 512

// call is one short session.
type call struct {
	fd   int
	from time.Duration // what its latency counts from
	msg  [1]byte
	said bool
}

// calls opens sessions that send one byte, wait for it, and close. A reply's
// time includes the connect.
type calls struct {
	c       *client
	ep      int
	all     []call
	free    []int           // indexes into all
	overdue []time.Duration // requests without a place in all
}

// connectClose opens job.Sessions sessions at a time, or at a fixed rate as
// many as are due.
func (c *client) connectClose() error {
	ep, err := newEpoll()
	if err != nil {
		return err
	}
	p := newPacer(c.Rate, c.Sessions)
	s := &calls{c: c, ep: ep, all: make([]call, maxCalls)}
	if c.Rate == 0 {
		s.all = s.all[:c.Sessions]
		for i := range s.all {
			if err := s.begin(i, c.now()); err != nil {
				return err
			}
		}
	} else {
		for i := range s.all {
			s.free = append(s.free, i)
		}
	}
	return c.loop(ep, s.handle, func(k uint64) error {
		due := p.due(k)
		if len(s.free) == 0 {
			s.overdue = append(s.overdue, due)
			return nil
		}
		if c.counting {
			c.late.add(c.now() - due)
		}
		i := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		return s.begin(i, due)
	}, p)
}

func (s *calls) begin(i int, from time.Duration) error {
	call := &s.all[i]
	call.from, call.said = from, false
	call.msg[0]++
	var err error
	if call.fd, err = dialWithoutWaiting(s.c.target); err != nil {
		return err
	}
	// On one machine the handshake is often over already.
	said, err := call.say()
	if err != nil {
		return err
	}
	interest := uint32(unix.EPOLLIN)
	if !said {
		interest = unix.EPOLLOUT
	}
	return watch(s.ep, call.fd, interest, i)
}

// say sends the byte, unless the connect is still under way.
func (call *call) say() (bool, error) {
	n, errno := write(call.fd, call.msg[:])
	switch {
	case errno == unix.EAGAIN:
		return false, nil
	case n != 1:
		return false, fmt.Errorf("connecting and sending a byte: %w", errno)
	}
	call.said = true
	return true, nil
}

func (s *calls) handle(i int, _ uint32) error {
	call := &s.all[i]
	if !call.said {
		said, err := call.say()
		if err != nil || !said {
			return err
		}
		return rewatch(s.ep, call.fd, unix.EPOLLIN, i)
	}
	var back [2]byte
	if n, errno := read(call.fd, back[:]); n != 1 || back[0] != call.msg[0] {
		return fmt.Errorf("sent one byte, got %d back (%v)", n, errno)
	}
	if err := unix.Close(call.fd); err != nil {
		return fmt.Errorf("closing: %w", err)
	}
	now := s.c.now()
	s.c.count(now, now-call.from)
	switch {
	case s.c.Rate == 0:
		return s.begin(i, now)
	case len(s.overdue) > 0:
		due := s.overdue[0]
		s.overdue = s.overdue[1:]
		return s.begin(i, due)
	}
	s.free = append(s.free, i)
	return nil
}
