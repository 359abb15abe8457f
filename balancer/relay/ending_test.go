package relay

import "testing"

// TestEndsInBatches ends many sessions. No round may close more of their sockets
// than its share, or those who stay would wait for all of them.
func TestEndsInBatches(t *testing.T) {
	s := newStepper(t)
	l, _ := accepted(t)
	s.desk.setRoute(to(l, 0, 1))
	const sessions = 3 * endBatch
	for n := range sessions {
		s.dial()
		s.until("a session", func() bool { return s.loop.sessions.live == n+1 && s.session(int32(n)).state == relaying })
	}
	s.Fence(1, MarkedDown)
	closed, most := 0, 0
	s.until("the end", func() bool {
		now := s.loop.parted + s.loop.buried
		most = max(most, now-closed)
		closed = now
		return s.loop.sessions.live == 0
	})
	// Each client's FIN is an event of its own in the next round.
	if most < endBatch || most > max(endBatch, sessions/2) {
		t.Errorf("a round closed %d sockets, want %d to %d", most, endBatch, max(endBatch, sessions/2))
	}
	s.desk.ended(t, sessions)
}
