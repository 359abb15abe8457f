package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// talk is one session that sends a message and waits for it to come back.
type talk struct {
	fd        int
	seq       uint64
	from      time.Duration // what the latency of this turn counts from
	said, got int           // bytes of this turn
	msg, back []byte
	busy      bool // a turn is under way

	// At a fixed rate:
	next    uint64 // the number of the request that it sends next
	waiting int    // requests that are due
}

// newTalk opens session id. A message holds the session's and the turn's
// number, or as much of them as fits.
func newTalk(addr *unix.SockaddrInet4, id, size int) (*talk, error) {
	fd, err := dial(addr)
	if err != nil {
		return nil, fmt.Errorf("session %d: %w", id, err)
	}
	t := &talk{fd: fd, msg: pattern(size), back: make([]byte, size), next: uint64(id)}
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], uint32(id))
	copy(t.msg, number[:])
	return t, nil
}

// say begins the next turn with a message that no other session and no other
// turn has.
func (t *talk) say(from time.Duration) error {
	t.seq++
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], t.seq)
	if len(t.msg) > 4 {
		copy(t.msg[4:], number[:])
	} else {
		copy(t.msg, number[:])
	}
	t.from, t.said, t.got, t.busy = from, 0, 0, true
	return t.sayOn()
}

// sayOn sends what is left of the message, as far as the socket takes it.
func (t *talk) sayOn() error {
	n, errno := write(t.fd, t.msg[t.said:])
	if errno == unix.EAGAIN {
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("sending %d bytes: %w", len(t.msg)-t.said, errno)
	}
	t.said += n
	return nil
}

// hear reads what is there, and reports whether the reply is whole.
func (t *talk) hear() (bool, error) {
	n, errno := read(t.fd, t.back[t.got:])
	switch {
	case errno == unix.EAGAIN:
		return false, nil
	case errno != 0:
		return false, fmt.Errorf("reading a reply: %w", errno)
	case n == 0:
		return false, errors.New("the session was closed")
	}
	if t.got += n; t.got < len(t.msg) {
		return false, nil
	}
	t.busy = false
	if !bytes.Equal(t.msg, t.back) {
		return false, errors.New("a reply differs from what was sent")
	}
	return true, nil
}

// pingPong talks in all sessions at once: as fast as replies come, or at fixed
// times, where request k belongs to session k mod job.Sessions and waits there
// for those before it, as a user's would.
func (c *client) pingPong() error {
	ep, err := newEpoll()
	if err != nil {
		return err
	}
	talks := make([]*talk, c.Sessions)
	for i := range talks {
		if talks[i], err = newTalk(c.target, i, c.Size); err != nil {
			return err
		}
		if err = unix.SetNonblock(talks[i].fd, true); err != nil {
			return err
		}
		if err = watch(ep, talks[i].fd, unix.EPOLLIN, i); err != nil {
			return err
		}
	}
	p := newPacer(c.Rate, c.Sessions)
	say := func(tag int, from time.Duration) error {
		t := talks[tag]
		if err := t.say(from); err != nil || t.said == len(t.msg) {
			return err
		}
		return rewatch(ep, t.fd, unix.EPOLLIN|unix.EPOLLOUT, tag)
	}
	sayDue := func(tag int) error {
		t := talks[tag]
		from := p.due(t.next)
		t.waiting--
		t.next += uint64(c.Sessions)
		return say(tag, from)
	}
	begin := func(k uint64) error {
		tag := int(k % uint64(c.Sessions))
		talks[tag].waiting++
		if talks[tag].busy {
			return nil
		}
		if c.counting {
			c.late.add(c.now() - p.due(k))
		}
		return sayDue(tag)
	}
	handle := func(tag int, events uint32) error {
		t := talks[tag]
		if events&unix.EPOLLOUT != 0 && t.said < len(t.msg) {
			if err := t.sayOn(); err != nil {
				return err
			}
			if t.said == len(t.msg) {
				if err := rewatch(ep, t.fd, unix.EPOLLIN, tag); err != nil {
					return err
				}
			}
			if events == unix.EPOLLOUT {
				return nil
			}
		}
		whole, err := t.hear()
		if !whole || err != nil {
			return err
		}
		now := c.now()
		c.count(now, now-t.from)
		switch {
		case c.Rate == 0:
			return say(tag, now)
		case t.waiting > 0:
			return sayDue(tag)
		}
		return nil
	}
	if c.Rate == 0 {
		for i := range talks {
			if err := say(i, c.now()); err != nil {
				return err
			}
		}
	}
	return c.loop(ep, handle, begin, p)
}

// talkOnce leaves its session open.
func (c *client) talkOnce(id int) (fd int, err error) {
	t, err := newTalk(c.target, id, c.Size)
	if err != nil {
		return -1, err
	}
	if err := t.say(0); err != nil {
		return -1, err
	}
	for {
		if whole, err := t.hear(); whole || err != nil {
			return t.fd, err
		}
	}
}
