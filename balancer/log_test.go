package balancer

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"pointsman/config"
)

// tcplogLine is HAProxy's `option tcplog`, as its users' tools parse it.
const tcplogLine = `msg="127\.0\.0\.1:\d+ \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d\.\d{3}\] ft bk/%s \d+/%s/\d+ %s %s \d+/\d+/\d+/\d+/\d+ 0/\d+"`

func (w *world) untilSession(server, connect, bytes, flags string) {
	w.t.Helper()
	line := regexp.MustCompile(fmt.Sprintf(tcplogLine, server, connect, bytes, flags))
	w.until("a line like "+line.String(), func(*Snapshot) bool { return line.MatchString(w.log.String()) })
}

func TestSessionLines(t *testing.T) {
	w := start(t, func(c *config.Config) {
		c.Frontends[0].TCPLog = true
		c.Backends[0].Hold = 300 * time.Millisecond
	}, "a", "b")
	w.dial().line()
	w.untilSession("<NOSRV>", "-1", "0", "sQ") // held too long

	w.dial().conn.Close()
	w.untilSession("<NOSRV>", "-1", "0", "CQ") // left while it was held

	w.lead(0, 5)
	w.untilLeader("a")
	normal := w.dial()
	normal.wantNode("a")
	normal.echo("seven..")
	normal.conn.Close()
	w.untilSession("a", `\d+`, "10", "--") // "a\n" and the echo

	deposed := w.dial()
	deposed.wantNode("a")
	w.lead(1, 6)
	deposed.line()
	w.untilSession("a", `\d+`, "2", "DD")

	w.untilLeader("b")
	cut := w.dial()
	cut.wantNode("b")
	w.end()
	cut.line()
	w.stop()
	if line := regexp.MustCompile(fmt.Sprintf(tcplogLine, "b", `\d+`, "2", "KD")); !line.MatchString(w.log.String()) {
		t.Errorf("no line for the session that the stop ended")
	}
}

func TestNoSessionLinesByDefault(t *testing.T) {
	w := start(t, nil, "a")
	w.lead(0, 5)
	w.untilLeader("a")
	s := w.dial()
	s.wantNode("a")
	s.conn.Close()
	w.until("over", func(s *Snapshot) bool { return s.Backends[0].Current == 0 })
	w.stop()
	if regexp.MustCompile(` \d+/\d+/\d+ 2 `).MatchString(w.log.String()) {
		t.Error("a line per session")
	}
}
