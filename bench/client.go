package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// stalled is how long a reply may take before the run counts as failed.
const stalled = 3 * time.Second

// job is what the client is asked to do.
type job struct {
	Kind     kind          `json:"kind"`
	Target   string        `json:"target"`
	Size     int           `json:"size"`     // of a message, bytes
	Sessions int           `json:"sessions"` // at once
	Warm     time.Duration `json:"warm"`     // before Measure
	Measure  time.Duration `json:"measure"`
	Settle   time.Duration `json:"settle"` // before memory is looked at
	Proxy    []int         `json:"proxy"`  // process ids
	Server   int           `json:"server"`
}

// sample is what one run measured.
type sample struct {
	usage
	Ops   uint64  `json:"ops"` // replies; for bulk, bytes
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p999_us"`
	Idle  float64 `json:"idle_session_bytes"`  // the proxy's own memory
	Slab  float64 `json:"idle_session_slab"`   // the kernel's, for all four sockets
	Total float64 `json:"idle_resident_bytes"` // the whole proxy, with all sessions open
}

// load is the client: it does one job, and writes a sample to out.
func load(text string, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return fmt.Errorf("reading the job: %w", err)
	}
	target, err := netip.ParseAddrPort(j.Target)
	if err != nil {
		return err
	}
	c := &client{job: j, target: sockaddr(target), meter: meter{start: time.Now(), proxy: j.Proxy, server: j.Server}}
	var s sample
	switch j.Kind {
	case pingPong:
		err = c.pingPong()
	case connectClose:
		err = c.connectClose()
	case bulk:
		err = c.bulk()
	case idle:
		s, err = c.idle()
	default:
		err = fmt.Errorf("no kind of work %q", j.Kind)
	}
	if err != nil {
		return err
	}
	if j.Kind != idle {
		s = c.sample()
	}
	return json.NewEncoder(out).Encode(s)
}

// client counts what happens between two readings of the meter.
type client struct {
	job
	target   *unix.SockaddrInet4
	meter    meter
	measured bool // the first reading was taken
	from, to reading
	times    histogram
	ops      uint64
}

func (c *client) now() time.Duration { return time.Since(c.meter.start) }

// tick takes the readings when their time has come; done after the second.
func (c *client) tick(now time.Duration) (done bool, err error) {
	switch {
	case !c.measured && now >= c.Warm:
		c.from, err = c.meter.read()
		c.measured = true
	case c.measured && now >= c.from.at+c.Measure:
		c.to, err = c.meter.read()
		return true, err
	}
	return false, err
}

// count records one reply, if it came between the readings.
func (c *client) count(took time.Duration) {
	if c.measured {
		c.times.add(took)
		c.ops++
	}
}

func (c *client) sample() sample {
	us := func(q float64) float64 { return float64(c.times.quantile(q)) / 1e3 }
	return sample{usage: c.to.since(c.from), Ops: c.ops, P50: us(0.5), P99: us(0.99), P999: us(0.999)}
}

// loop hands events to handle until the time is over.
func (c *client) loop(ep int, handle func(tag int) error) error {
	events := make([]unix.EpollEvent, 256)
	last := c.now()
	for {
		ready, err := wait(ep, events, 50)
		if err != nil {
			return err
		}
		for i := range ready {
			if err := handle(int(ready[i].Fd)); err != nil {
				return err
			}
		}
		now := c.now()
		if len(ready) > 0 {
			last = now
		} else if now-last > stalled {
			return fmt.Errorf("no reply for %s", stalled)
		}
		if done, err := c.tick(now); done || err != nil {
			return err
		}
	}
}

// talk is one session that sends a message whenever the last one came back.
type talk struct {
	fd        int
	seq       uint64
	sent      time.Duration
	got       int
	msg, back []byte
}

// say sends the next message, which no other session and no other turn has.
func (t *talk) say(now time.Duration) error {
	t.seq++
	binary.LittleEndian.PutUint64(t.msg[4:], t.seq)
	t.sent, t.got = now, 0
	if n, errno := write(t.fd, t.msg); errno != 0 || n != len(t.msg) {
		return fmt.Errorf("sending %d bytes: %d sent, %v", len(t.msg), n, errno)
	}
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
	if !bytes.Equal(t.msg, t.back) {
		return false, errors.New("a reply differs from what was sent")
	}
	return true, nil
}

// newTalk opens session id. A message holds the session's and the turn's
// number, so size is at least 12.
func newTalk(addr *unix.SockaddrInet4, id, size int) (*talk, error) {
	fd, err := dial(addr)
	if err != nil {
		return nil, fmt.Errorf("session %d: %w", id, err)
	}
	t := &talk{fd: fd, msg: pattern(size), back: make([]byte, size)}
	binary.LittleEndian.PutUint32(t.msg, uint32(id))
	return t, nil
}

func (c *client) pingPong() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening epoll: %w", err)
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
	for _, t := range talks {
		if err := t.say(c.now()); err != nil {
			return err
		}
	}
	return c.loop(ep, func(tag int) error {
		t := talks[tag]
		whole, err := t.hear()
		if !whole || err != nil {
			return err
		}
		now := c.now()
		c.count(now - t.sent)
		return t.say(now)
	})
}

// connectClose opens a session, sends one byte, waits for it, closes, and so
// on, with job.Sessions of them at a time. A reply's time includes the connect.
func (c *client) connectClose() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening epoll: %w", err)
	}
	type call struct {
		fd      int
		started time.Duration
		msg     [1]byte
	}
	calls := make([]call, c.Sessions)
	begin := func(i int) error {
		call := &calls[i]
		call.started = c.now()
		call.msg[0]++
		if call.fd, err = dial(c.target); err != nil {
			return err
		}
		if n, errno := write(call.fd, call.msg[:]); n != 1 {
			return fmt.Errorf("sending a byte: %w", errno)
		}
		return watch(ep, call.fd, unix.EPOLLIN, i)
	}
	for i := range calls {
		if err := begin(i); err != nil {
			return err
		}
	}
	var back [2]byte
	return c.loop(ep, func(i int) error {
		if n, errno := read(calls[i].fd, back[:]); n != 1 || back[0] != calls[i].msg[0] {
			return fmt.Errorf("sent one byte, got %d back (%v)", n, errno)
		}
		if err := unix.Close(calls[i].fd); err != nil {
			return fmt.Errorf("closing: %w", err)
		}
		c.count(c.now() - calls[i].started)
		return begin(i)
	})
}

// bulk reads as much as comes, and looks at three bytes of every piece.
func (c *client) bulk() error {
	fd, err := dial(c.target)
	if err != nil {
		return err
	}
	tv := unix.NsecToTimeval(int64(stalled))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return fmt.Errorf("limiting the wait: %w", err)
	}
	buf := make([]byte, bulkChunk)
	at := uint64(0)
	for {
		n, errno := read(fd, buf)
		if errno != 0 || n == 0 {
			return fmt.Errorf("reading the stream: %d bytes, %v", n, errno)
		}
		for _, i := range [3]int{0, n / 2, n - 1} {
			if want := byte((at + uint64(i)) % patternLength); buf[i] != want {
				return fmt.Errorf("byte %d of the stream is %d, not %d", at+uint64(i), buf[i], want)
			}
		}
		at += uint64(n)
		if c.measured {
			c.ops += uint64(n)
		}
		if done, err := c.tick(c.now()); done || err != nil {
			return err
		}
	}
}

// The memory of a session is that of all but the first ones, which pay for
// what is allocated once.
const firstIdle = 100

// idle opens sessions that talk once and then are silent.
func (c *client) idle() (sample, error) {
	for i := range firstIdle {
		if err := c.talkOnce(i); err != nil {
			return sample{}, err
		}
	}
	time.Sleep(c.Settle)
	from, err := c.meter.memory()
	if err != nil {
		return sample{}, err
	}
	for i := range c.Sessions {
		if err := c.talkOnce(firstIdle + i); err != nil {
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
		Idle:  each(from.private, to.private),
		Slab:  each(from.slab, to.slab),
		Total: float64(to.resident),
		Ops:   uint64(firstIdle + c.Sessions),
	}, nil
}

// talkOnce leaves its session open until the process ends.
func (c *client) talkOnce(id int) error {
	t, err := newTalk(c.target, id, c.Size)
	if err != nil {
		return err
	}
	if err := t.say(0); err != nil {
		return err
	}
	for {
		if whole, err := t.hear(); whole || err != nil {
			return err
		}
	}
}
