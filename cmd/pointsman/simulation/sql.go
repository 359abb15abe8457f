package simulation

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// serveSQL speaks the line protocol. WHO tells who answers; WRITE TEXT writes.
// An answer is one line, and begins with OK or ERROR.
func (n *Node) serveSQL(p *port, conn net.Conn) {
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		answer, mode := "", Frozen
		for mode == Frozen {
			p.awake()
			answer, mode = n.execute(strings.TrimSpace(line))
		}
		if mode == Closed {
			return
		}
		if _, err := io.WriteString(conn, answer+"\n"); err != nil {
			return
		}
	}
}

// execute runs one statement, if the port is still Open.
func (n *Node) execute(statement string) (answer string, mode Mode) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	s := n.state
	if s.SQL != Open {
		return "", s.SQL
	}
	verb, text, _ := strings.Cut(statement, " ")
	switch strings.ToUpper(verb) {
	case "WHO":
		return fmt.Sprintf("OK %s %s timeline %d", n.Name, s.Role, s.Timeline), Open
	case "WRITE":
		w := Write{Node: n.Name, Text: text, Timeline: s.Timeline, At: time.Now(), Taken: s.writable()}
		w.Kept = w.Taken && s.Lock
		n.cluster.writes = append(n.cluster.writes, w)
		if !w.Taken {
			return fmt.Sprintf("ERROR cannot execute INSERT in a read-only transaction (%s)", n.Name), Open
		}
		n.cluster.lsn += 56 // the least that a row takes in the log
		return fmt.Sprintf("OK %s timeline %d %s", n.Name, s.Timeline, text), Open
	}
	return fmt.Sprintf("ERROR syntax error at or near \"%s\"; there are WHO and WRITE TEXT", verb), Open
}
