package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// A server's host that vanishes says nothing, and its busy sessions are the
// first to know: what they send is not acknowledged. So of each server one
// write at a time is watched. If half a second later nothing of it has been
// acknowledged, nor anything else been heard in that session, the Director is
// told, and may have the server asked; the session goes on.
const (
	// stalledAfter is long where a packet and its acknowledgement take less than
	// 10 ms: Linux has sent the write again twice by then (RTO of 200 ms).
	stalledAfter = 500 * time.Millisecond
	stallLook    = stalledAfter / 5
)

// write is one write to a server; at 0 there is none.
type write struct {
	session revisit // by the generation of its server's side
	at      time.Duration
}

// writes are what is kept of a server's.
type writes struct{ last, watched write }

// noteWrite notes a write to the session's server that was just made.
func (l *loop) noteWrite(s *session) {
	l.writes[s.server].last = write{revisit{s.slot, s.side[serverSide].generation}, l.now}
	if l.stallAt == never {
		l.stallAt = l.now + stallLook
	}
}

// lookForStalls looks at the writes that are watched. Where one is answered, the
// latest of the others is watched next.
func (l *loop) lookForStalls() {
	l.stallAt = never
	for i := range l.writes {
		w := &l.writes[i]
		if w.watched.at == 0 || l.answered(w.watched) {
			w.watched, w.last.at = w.last, 0
		}
		if w.watched.at != 0 {
			l.stallAt = l.now + stallLook
		}
	}
}

// answered reports whether nothing more is to be waited for: something was heard
// in the session, it is over, or stalledAfter is.
func (l *loop) answered(w write) bool {
	s := l.sessions.at(w.session.slot)
	v := &s.side[serverSide]
	if s.state != relaying || v.generation != w.session.generation || v.heard > w.at {
		return true
	}
	if l.now-w.at < stalledAfter {
		return false
	}
	if stalled(v.fd, l.now-w.at) {
		l.observe(s, ServerStalled)
	}
	return true
}

// stalled reports whether a peer owes an acknowledgement, of which nothing was
// heard for so long. Where this machine's own link is down, nothing counts as
// sent, but the kernel tries all the same (Probes).
func stalled(fd int32, long time.Duration) bool {
	var info unix.TCPInfo
	return tcpInfo(fd, &info) && (info.Unacked > 0 || info.Probes > 0) &&
		time.Duration(info.Last_ack_recv)*time.Millisecond >= long-stallLook
}

// knowServer makes room for what is kept of a server.
func (l *loop) knowServer(id int32) {
	l.servers.at(id)
	for int(id) >= len(l.writes) {
		l.writes = append(l.writes, writes{})
	}
}
