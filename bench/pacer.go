package main

import "time"

// pacer is the schedule of a fixed rate: request k is due at about start +
// k/rate, whatever became of those before it. A client that waited for a slow reply
// before it planned the next request would leave out the very requests that
// suffer from it (Gil Tene's "coordinated omission").
type pacer struct {
	start time.Duration
	rate  float64 // requests per second
	group uint64  // requests that are due at once
	next  uint64  // the request that is due next
}

// A client that woke up for each request would take more of the machine than
// the proxy. Where there are many sessions, as many requests are due at once as
// come in this time, up to a quarter of the sessions.
const together = 200 * time.Microsecond

func newPacer(rate float64, sessions int) *pacer {
	group := min(uint64(rate*together.Seconds()), uint64(sessions/4))
	return &pacer{rate: rate, group: max(group, 1)}
}

// due is when request k is to be sent, and the moment that its latency counts from.
func (p *pacer) due(k uint64) time.Duration {
	return p.start + time.Duration(float64(k/p.group*p.group)*1e9/p.rate)
}

// take returns the next request if its time has come.
func (p *pacer) take(now time.Duration) (k uint64, ok bool) {
	if p.due(p.next) > now {
		return 0, false
	}
	p.next++
	return p.next - 1, true
}

// wait is the time until the next request is due.
func (p *pacer) wait(now time.Duration) time.Duration { return max(p.due(p.next)-now, 0) }
