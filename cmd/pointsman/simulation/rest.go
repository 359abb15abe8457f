package simulation

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"
)

// restBody is what Patroni tells about a node (patroni/api.py,
// get_postgresql_status and _write_status_response).
type restBody struct {
	State           string         `json:"state"`
	Role            string         `json:"role"`
	ServerVersion   int            `json:"server_version,omitempty"`
	XLog            map[string]any `json:"xlog,omitempty"`
	Timeline        uint32         `json:"timeline,omitempty"`
	ClusterUnlocked bool           `json:"cluster_unlocked,omitempty"`
	DCSLastSeen     int64          `json:"dcs_last_seen"`
	Patroni         restPatroni    `json:"patroni"`
}

type restPatroni struct {
	Version string `json:"version"`
	Scope   string `json:"scope"`
	Name    string `json:"name"`
}

// serveREST answers one request, as Python's http.server does: HTTP/1.0, no
// length, and the end of the connection is the end of the body.
func (n *Node) serveREST(p *port, conn net.Conn) {
	request := textproto.NewReader(bufio.NewReader(conn))
	line, err := request.ReadLine()
	if err != nil {
		return
	}
	if _, err := request.ReadMIMEHeader(); err != nil {
		return
	}
	p.awake()
	method, target, _ := strings.Cut(line, " ")
	path, _, _ := strings.Cut(target, " ")
	conn.Write(n.answer(method, path))
}

// answer returns the whole answer to one request.
func (n *Node) answer(method, target string) []byte {
	n.cluster.mu.Lock()
	state, body := n.state, n.restBodyLocked()
	n.cluster.mu.Unlock()
	if state.Answer != nil {
		return state.Answer
	}
	path, query, _ := strings.Cut(target, "?")
	status := "503 Service Unavailable"
	if healthy(state, path) && !(state.Lags && strings.HasPrefix(query, "lag=")) {
		status = "200 OK"
	}
	if method == "HEAD" || method == "OPTIONS" {
		return []byte("HTTP/1.0 " + status + "\r\n\r\n") // not one header, as Patroni
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return fmt.Appendf(nil, "HTTP/1.0 %s\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nDate: %s\r\nContent-Type: application/json\r\n\r\n%s",
		status, time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), text)
}

// healthy is Patroni's choice of status (patroni/api.py, do_GET): 200 if true.
func healthy(s State, path string) bool {
	replica := s.Role == "replica" && s.Postgres == "running" // also while it is being promoted
	switch path {
	case "/", "/primary", "/master", "/read-write":
		return s.Lock && s.Role != "standby_leader"
	case "/standby-leader", "/standby_leader":
		return s.Lock && s.Role == "standby_leader"
	case "/leader":
		return s.Lock
	case "/replica", "/async", "/asynchronous":
		return replica
	case "/read-only":
		return s.Lock || replica
	case "/health":
		return s.Postgres == "running"
	case "/readiness":
		return s.Lock || s.Postgres == "running"
	case "/patroni", "/liveness":
		return true
	}
	return false
}

func (n *Node) restBodyLocked() restBody {
	s := n.state
	body := restBody{
		State:           s.Postgres,
		Role:            s.Role,
		ClusterUnlocked: true,
		DCSLastSeen:     time.Now().Unix(),
		Patroni:         restPatroni{"4.1.0", "demo", n.Name},
	}
	for _, other := range n.cluster.nodes {
		if other.state.Lock {
			body.ClusterUnlocked = false
		}
	}
	if s.Postgres != "running" {
		return body // PostgreSQL could not be asked
	}
	body.ServerVersion, body.Timeline = 170006, s.Timeline
	if s.writable() {
		body.XLog = map[string]any{"location": n.cluster.lsn}
	} else {
		body.XLog = map[string]any{
			"received_location": n.cluster.lsn, "replayed_location": n.cluster.lsn,
			"replayed_timestamp": time.Now().UTC().Format("2006-01-02 15:04:05.000000+00:00"), "paused": false,
		}
	}
	return body
}
