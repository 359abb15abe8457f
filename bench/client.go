package main

import (
	"encoding/json"
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
	Rate     float64       `json:"rate"`     // requests per second, at fixed times; 0 = as fast as replies come
	Warm     time.Duration `json:"warm"`     // before Measure
	Measure  time.Duration `json:"measure"`
	Settle   time.Duration `json:"settle"`  // before memory is looked at
	Proxy    []int         `json:"proxy"`   // process ids; none = the kernel does it
	Server   int           `json:"server"`  // process id
	Patroni  string        `json:"patroni"` // where to ask for another leader
	Inspect  inspection    `json:"inspect"`
}

// sample is what one run measured.
type sample struct {
	usage
	Ops       uint64     `json:"ops"` // replies; for bulk, bytes
	P50       float64    `json:"p50_us,omitempty"`
	P99       float64    `json:"p99_us,omitempty"`
	P999      float64    `json:"p999_us,omitempty"`
	Times     *histogram `json:"latency,omitempty"`            // all of them
	Typical99 float64    `json:"typical_p99_us,omitempty"`     // the median of the p99 of each 100 ms
	Late      float64    `json:"client_late_p99_us,omitempty"` // the client's own lateness in sending at a fixed rate
	Resident  float64    `json:"resident_bytes,omitempty"`     // the whole proxy, at the end
	Idle      float64    `json:"idle_session_bytes,omitempty"` // the proxy's own memory
	Slab      float64    `json:"idle_session_slab,omitempty"`  // the kernel's, for all four sockets
	Decided   float64    `json:"decided_ms,omitempty"`         // from another leader to the first session's end
	Fenced    float64    `json:"fenced_ms,omitempty"`          // from the first session's end to the last one's

	Profile profile `json:"profile,omitzero"`
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
	if err := exactTimers(); err != nil {
		return err
	}
	c := &client{job: j, target: sockaddr(target), meter: meter{start: time.Now(), proxy: j.Proxy, server: j.Server, inspect: j.Inspect}}
	var s sample
	switch j.Kind {
	case pingPong:
		s, err = c.measured(c.pingPong)
	case connectClose:
		s, err = c.measured(c.connectClose)
	case bulk:
		s, err = c.measured(c.bulk)
	case checks:
		s, err = c.measured(c.rest)
	case idle:
		s, err = c.idle()
	case fence:
		s, err = c.fence()
	default:
		err = fmt.Errorf("no kind of work %q", j.Kind)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(s)
}

// client counts what happens between two readings of the meter.
type client struct {
	job
	target   *unix.SockaddrInet4
	meter    meter
	counting bool          // the first reading was taken
	began    time.Duration // when the work began; warming up first
	from, to reading
	times    histogram
	late     histogram
	slice    histogram // of the slice that goes on
	until    time.Duration
	typical  []float64 // p99 of each slice before, in us
	ops      uint64
}

func (c *client) now() time.Duration { return time.Since(c.meter.start) }

// tick takes the readings when their time has come; done after the second.
func (c *client) tick(now time.Duration) (done bool, err error) {
	switch {
	case !c.counting && now >= c.began+c.Warm:
		c.from, err = c.meter.begin()
		c.counting = true
	case c.counting && now >= c.from.at+c.Measure:
		c.to, err = c.meter.end()
		return true, err
	}
	return false, err
}

// sliceLength is how long latencies are gathered for a p99 of their own. A virtual
// machine stands still for some milliseconds several times a second. At a fixed
// rate each such pause delays a hundred requests, and the p99 of a second tells
// how many there were; the median of the slices' tells about the proxy.
const sliceLength = 100 * time.Millisecond

// count records one reply, if it came between the readings.
func (c *client) count(now, took time.Duration) {
	if !c.counting {
		return
	}
	c.times.add(took)
	c.ops++
	if now > c.until {
		// With fewer than 100 there is no p99.
		if c.slice.count >= 100 {
			c.typical = append(c.typical, c.slice.micros(0.99))
		}
		c.slice = histogram{}
		c.until = now + sliceLength
	}
	c.slice.add(took)
}

func (c *client) measured(work func() error) (sample, error) {
	if err := work(); err != nil {
		return sample{}, err
	}
	s := sample{usage: c.to.since(c.from), Ops: c.ops, Profile: c.meter.profile}
	if c.Inspect != "" {
		s.Profile.Ops = c.ops
	}
	if c.times.count > 0 {
		s.P50, s.P99, s.P999 = c.times.micros(0.5), c.times.micros(0.99), c.times.micros(0.999)
		s.Times = &c.times
		s.Typical99 = median(c.typical)
	}
	s.Late = c.late.micros(0.99)
	memory, err := c.meter.memory()
	s.Resident = float64(memory.resident)
	return s, err
}

// loop hands events to handle until the time is over. At a fixed rate it calls
// begin with the number of each request whose time has come.
func (c *client) loop(ep int, handle func(tag int, events uint32) error, begin func(k uint64) error, p *pacer) error {
	events := make([]unix.EpollEvent, 256)
	last := c.now()
	c.began = last
	p.start = last
	for {
		limit := 50 * time.Millisecond
		if c.Rate > 0 {
			now := c.now()
			for k, ok := p.take(now); ok; k, ok = p.take(now) {
				if err := begin(k); err != nil {
					return err
				}
			}
			limit = min(limit, p.wait(c.now()))
		}
		ready, err := wait(ep, events, limit)
		if err != nil {
			return err
		}
		for i := range ready {
			if err := handle(int(ready[i].Fd), ready[i].Events); err != nil {
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

// rest does nothing: the proxy is measured while only its checks run.
func (c *client) rest() error {
	time.Sleep(c.Warm)
	var err error
	if c.from, err = c.meter.begin(); err != nil {
		return err
	}
	time.Sleep(c.Measure)
	c.to, err = c.meter.end()
	return err
}
