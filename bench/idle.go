package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The memory of a session is that of all but the first ones, which pay for
// what is allocated once.
const firstIdle = 100

// idle opens sessions that talk once and then are silent.
func (c *client) idle() (sample, error) {
	for i := range firstIdle {
		if _, err := c.talkOnce(i); err != nil {
			return sample{}, err
		}
	}
	time.Sleep(c.Settle)
	from, err := c.meter.memory()
	if err != nil {
		return sample{}, err
	}
	for i := range c.Sessions {
		if _, err := c.talkOnce(firstIdle + i); err != nil {
			return sample{}, err
		}
	}
	time.Sleep(c.Settle)
	to, err := c.meter.memory()
	if err != nil {
		return sample{}, err
	}
	each := func(from, to uint64) float64 { return (float64(to) - float64(from)) / float64(c.Sessions) }
	return sample{
		Idle:     each(from.private, to.private),
		Slab:     each(from.slab, to.slab),
		Resident: float64(to.resident),
		Ops:      uint64(firstIdle + c.Sessions),
	}, nil
}

// fence opens sessions, lets another node become the leader, and waits until
// every session has ended. When the proxy decides is its own affair, and set
// by its checks; what is measured is how long the decision takes to reach all.
func (c *client) fence() (sample, error) {
	ep, err := newEpoll()
	if err != nil {
		return sample{}, err
	}
	for i := range c.Sessions {
		fd, err := c.talkOnce(i)
		if err != nil {
			return sample{}, err
		}
		// Once each: what counts is the first sign of the end.
		if err := watch(ep, fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLONESHOT, i); err != nil {
			return sample{}, err
		}
	}
	time.Sleep(c.Settle)
	from, err := c.meter.read()
	if err != nil {
		return sample{}, err
	}
	if err := switchLeader(c.Patroni); err != nil {
		return sample{}, err
	}
	asked := c.now()
	events := make([]unix.EpollEvent, 1024)
	var first, last time.Duration
	for ended := 0; ended < c.Sessions; {
		ready, err := wait(ep, events, 20*time.Second)
		if err != nil {
			return sample{}, err
		}
		if len(ready) == 0 {
			return sample{}, fmt.Errorf("%d of %d sessions live on", c.Sessions-ended, c.Sessions)
		}
		last = c.now()
		if ended == 0 {
			first = last
		}
		ended += len(ready)
	}
	to, err := c.meter.read()
	if err != nil {
		return sample{}, err
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	return sample{usage: to.since(from), Ops: uint64(c.Sessions), Decided: ms(first - asked), Fenced: ms(last - first)}, nil
}
