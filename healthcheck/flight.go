package healthcheck

import (
	"context"
	"time"
)

// flight is one probe under way. A hint cuts it short: what was patience with
// a server of which nothing bad was known would now keep the next answer back.
type flight struct {
	ctx    context.Context
	cancel context.CancelFunc
	cutAt  time.Time // when a hint ends it; past = at once
	timer  *time.Timer
}

// takeOff begins a flight, which must land. One that was hinted at since the
// probe became due is in a hurry from its start.
func (m *Monitor) takeOff(ctx context.Context, cutAt time.Time) *flight {
	f := &flight{cutAt: cutAt}
	f.ctx, f.cancel = context.WithCancel(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flight = f
	if m.hinted {
		f.hurry()
	}
	return f
}

// land ends the flight, and reports whether it was cut short.
func (m *Monitor) land(f *flight) (cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cut = f.ctx.Err() != nil
	if f.timer != nil {
		f.timer.Stop()
	}
	f.cancel()
	m.flight = nil
	return cut
}

// hurry makes the flight end at cutAt, if there is one. It is called with the
// monitor's mutex held.
func (f *flight) hurry() {
	if f != nil && f.timer == nil {
		f.timer = time.AfterFunc(time.Until(f.cutAt), f.cancel)
	}
}
