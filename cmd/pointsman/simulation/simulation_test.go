package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pointsman/leaktest"
)

// newTestCluster returns a quick cluster; what it leaves behind fails the test.
func newTestCluster(t *testing.T) *Cluster {
	t.Helper()
	leaktest.Check(t)
	c, err := NewCluster("postgres-1", "postgres-2", "postgres-3")
	if err != nil {
		t.Fatal(err)
	}
	c.Handover, c.Promotion, c.Return = 20*time.Millisecond, 100*time.Millisecond, 20*time.Millisecond
	t.Cleanup(c.Close)
	return c
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for 3 s: %s", what)
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// rest returns the status line and the decoded body of one request.
func rest(t *testing.T, addr netip.AddrPort, method, path string) (status string, body map[string]any) {
	t.Helper()
	conn, err := net.DialTimeout("tcp4", addr.String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	io.WriteString(conn, method+" "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	head, text, _ := strings.Cut(string(answer), "\r\n\r\n")
	if text != "" {
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatalf("body %q: %v", text, err)
		}
	}
	return head, body
}

func ask(t *testing.T, n *Node, statement string) string {
	t.Helper()
	answer, err := Ask(t.Context(), n.SQLAddr.String(), statement)
	if err != nil {
		t.Fatalf("%s to %s: %v", statement, n.Name, err)
	}
	return answer
}

func TestStatusCodes(t *testing.T) {
	leader := State{Role: "primary", Postgres: "running", Lock: true}
	promoting := State{Role: "replica", Postgres: "running", Lock: true}
	replica := State{Role: "replica", Postgres: "running"}
	stopped := State{Role: "replica", Postgres: "stopped"}
	standby := State{Role: "standby_leader", Postgres: "running", Lock: true}
	for _, test := range []struct {
		path  string
		state State
		want  bool
	}{
		{"/", leader, true},
		{"/primary", leader, true},
		{"/primary", promoting, true}, // the lock is enough
		{"/primary", replica, false},
		{"/primary", stopped, false},
		{"/read-write", leader, true},
		{"/leader", leader, true},
		{"/leader", replica, false},
		{"/replica", leader, false},
		{"/replica", replica, true},
		{"/replica", stopped, false},
		{"/read-only", leader, true},
		{"/read-only", replica, true},
		{"/read-only", stopped, false},
		{"/health", replica, true},
		{"/health", stopped, false},
		{"/readiness", stopped, false},
		{"/patroni", stopped, true},
		{"/standby-leader", standby, true},
		{"/standby-leader", leader, false},
		{"/primary", standby, false},
		{"/leader", standby, true},
		{"/replica", standby, false},
		{"/nonsense", leader, false},
	} {
		if got := healthy(test.state, test.path); got != test.want {
			t.Errorf("%s of %+v: %v, want %v", test.path, test.state, got, test.want)
		}
	}
}

func TestREST(t *testing.T) {
	c := newTestCluster(t)
	n := c.Nodes()

	status, body := rest(t, n[0].RESTAddr, "GET", "/primary?x=1")
	if !strings.HasPrefix(status, "HTTP/1.0 200 OK\r\n") || strings.Contains(status, "Content-Length") {
		t.Errorf("leader: %q", status)
	}
	if body["role"] != "primary" || body["state"] != "running" || body["timeline"] != 1.0 ||
		body["xlog"].(map[string]any)["location"] == nil ||
		body["patroni"].(map[string]any)["name"] != "postgres-1" || body["cluster_unlocked"] != nil {
		t.Errorf("leader: %v", body)
	}

	status, body = rest(t, n[1].RESTAddr, "GET", "/primary")
	if !strings.HasPrefix(status, "HTTP/1.0 503 Service Unavailable\r\n") {
		t.Errorf("replica: %q", status)
	}
	if body["role"] != "replica" || body["xlog"].(map[string]any)["replayed_location"] == nil {
		t.Errorf("replica: %v", body)
	}

	if status, body = rest(t, n[0].RESTAddr, "HEAD", "/primary"); status != "HTTP/1.0 200 OK" || body != nil {
		t.Errorf("HEAD: %q %v", status, body)
	}

	n[0].Set(func(s *State) { s.Postgres, s.Lock = "stopped", false })
	if _, body = rest(t, n[0].RESTAddr, "GET", "/patroni"); body["timeline"] != nil || body["cluster_unlocked"] != true {
		t.Errorf("stopped, and nobody leads: %v", body)
	}

	n[2].Set(func(s *State) { s.Answer = []byte("no HTTP") })
	if status, _ = rest(t, n[2].RESTAddr, "GET", "/primary"); status != "no HTTP" {
		t.Errorf("answer of the test's own: %q", status)
	}
}

func TestSQL(t *testing.T) {
	c := newTestCluster(t)
	n := c.Nodes()
	for _, test := range []struct {
		node            *Node
		statement, want string
	}{
		{n[0], "WHO", "OK postgres-1 primary timeline 1"},
		{n[1], "who", "OK postgres-2 replica timeline 1"},
		{n[0], "WRITE a/1", "OK postgres-1 timeline 1 a/1"},
		{n[2], "WRITE a/2", "ERROR cannot execute INSERT in a read-only transaction (postgres-3)"},
		{n[0], "SELECT", `ERROR syntax error at or near "SELECT"; there are WHO and WRITE TEXT`},
	} {
		if got := ask(t, test.node, test.statement); got != test.want {
			t.Errorf("%s on %s: %q, want %q", test.statement, test.node.Name, got, test.want)
		}
	}
	n[1].Set(func(s *State) { s.Role = "primary" }) // believes that it leads, without the lock
	ask(t, n[1], "WRITE a/3")

	writes := c.TakeWrites()
	want := []Write{
		{Node: "postgres-1", Text: "a/1", Timeline: 1, Taken: true, Kept: true},
		{Node: "postgres-3", Text: "a/2", Timeline: 1},
		{Node: "postgres-2", Text: "a/3", Timeline: 1, Taken: true},
	}
	if len(writes) != len(want) {
		t.Fatalf("recorded %+v", writes)
	}
	for i := range want {
		if age := time.Since(writes[i].At); age < 0 || age > time.Minute {
			t.Errorf("write %d is %v old", i, age)
		}
		if writes[i].At = (time.Time{}); writes[i] != want[i] {
			t.Errorf("write %d: %+v, want %+v", i, writes[i], want[i])
		}
	}
	if again := c.TakeWrites(); len(again) != 0 {
		t.Errorf("taken twice: %+v", again)
	}
}

func TestPortModes(t *testing.T) {
	c := newTestCluster(t)
	n := c.Nodes()[0]
	s, err := open(t.Context(), n.SQLAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.ask(t.Context(), "WHO"); err != nil || s.dead() {
		t.Fatalf("an open port: %v", err)
	}

	n.Freeze()
	if conn, err := net.DialTimeout("tcp4", n.SQLAddr.String(), 100*time.Millisecond); !isTimeout(err) {
		t.Errorf("connect to a frozen port: %v, %v", conn, err)
	}
	io.WriteString(s.conn, "WRITE frozen\n")
	s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if line, err := s.lines.ReadString('\n'); !isTimeout(err) {
		t.Errorf("an answer while frozen: %q, %v", line, err)
	}
	n.Recover()
	s.conn.SetReadDeadline(time.Now().Add(time.Second))
	if line, err := s.lines.ReadString('\n'); err != nil || line != "OK postgres-1 timeline 1 frozen\n" {
		t.Errorf("the answer once it woke: %q, %v", line, err)
	}

	n.Crash()
	waitFor(t, "the session ends", s.dead)
	// A statement that was read just before finds PostgreSQL gone.
	if answer, mode := n.execute("WRITE late"); answer != "" || mode != Closed {
		t.Errorf("a late statement: %q, mode %d", answer, mode)
	}
	if _, err := Ask(t.Context(), n.SQLAddr.String(), "WHO"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("connect to a closed port: %v", err)
	}
	if ln, err := net.Listen("tcp4", n.SQLAddr.String()); err == nil {
		// Go's listeners set SO_REUSEADDR, as the node's own does.
		ln.Close()
	} else {
		t.Errorf("listening on a port that is reserved: %v", err)
	}
	n.Freeze() // straight from closed
	n.Recover()
	if got := ask(t, n, "WHO"); got != "OK postgres-1 primary timeline 1" {
		t.Errorf("back again on the same port: %q", got)
	}
}

// No client's own port may be the reserved one, else the number is gone when
// the node wants to listen again.
func TestReserve(t *testing.T) {
	addr, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(addr)}
	target, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	if conn, err := dialer.Dial("tcp4", target.Addr().String()); err == nil {
		conn.Close()
		t.Errorf("%s was given to a client", addr)
	}
	release()
	conn, err := dialer.Dial("tcp4", target.Addr().String())
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	conn.Close()
}

func TestFailover(t *testing.T) {
	c := newTestCluster(t)
	n := c.Nodes()
	idle, err := open(t.Context(), n[0].SQLAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.close()
	if _, err := idle.ask(t.Context(), "WHO"); err != nil {
		t.Fatal(err)
	}

	done := make(chan Change)
	go func() {
		change, err := c.Failover(context.Background())
		if err != nil {
			t.Error(err)
		}
		done <- change
	}()
	waitFor(t, "the old leader's session ends", idle.dead)
	waitFor(t, "somebody holds the lock", func() bool { return n[1].State().Lock })
	status, body := rest(t, n[1].RESTAddr, "GET", "/primary")
	if !strings.Contains(status, "200 OK") || body["role"] != "replica" || body["state"] != "running" {
		t.Errorf("while it is promoted: %q %v", status, body)
	}
	if got := ask(t, n[1], "WRITE early"); !strings.Contains(got, "read-only") {
		t.Errorf("a write while it is promoted: %q", got)
	}
	if status, _ = rest(t, n[0].RESTAddr, "GET", "/primary"); !strings.Contains(status, "503") {
		t.Errorf("the old leader: %q", status)
	}
	if c.Leader() != nil {
		t.Errorf("%s leads already", c.Leader().Name)
	}

	change := <-done
	if change.From != "postgres-1" || change.To != "postgres-2" || change.Timeline != 2 {
		t.Errorf("change: %+v", change)
	}
	if took := change.Writable.Sub(change.Stopped); took < c.Handover+c.Promotion {
		t.Errorf("it took %v only", took)
	}
	if got := ask(t, n[1], "WRITE late"); got != "OK postgres-2 timeline 2 late" {
		t.Errorf("a write to the new leader: %q", got)
	}
	if got := n[2].State().Timeline; got != 2 {
		t.Errorf("the third node is on timeline %d", got)
	}
	waitFor(t, "the old leader is back as a replica", func() bool {
		answer, _ := Ask(t.Context(), n[0].SQLAddr.String(), "WHO")
		return answer == "OK postgres-1 replica timeline 2"
	})
}

func TestFailoverThatCannotBe(t *testing.T) {
	c := newTestCluster(t)
	n := c.Nodes()
	n[1].Freeze()
	n[2].Crash()
	if _, err := c.Failover(t.Context()); err == nil || !strings.Contains(err.Error(), "no running replica") {
		t.Errorf("without a standby: %v", err)
	}
	n[0].Crash()
	if _, err := c.Failover(t.Context()); err == nil || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("without a leader: %v", err)
	}
}

// A leader that is cut off goes on believing, until it comes back.
func TestPromoteBesideFrozenLeader(t *testing.T) {
	c := newTestCluster(t)
	n := c.Nodes()
	n[0].Freeze()
	if err := c.Promote(t.Context(), n[2]); err != nil {
		t.Fatal(err)
	}
	if s := n[0].State(); !s.Lock || !s.writable() {
		t.Errorf("the frozen leader knows: %+v", s)
	}
	if c.Leader() != n[2] {
		t.Errorf("leader: %v", c.Leader())
	}
	n[0].Recover()
	if s := n[0].State(); s.Lock || s.Role != "replica" || s.Timeline != 2 {
		t.Errorf("back again: %+v", s)
	}
}

func TestUCI(t *testing.T) {
	c := newTestCluster(t)
	text := c.UCI("bk")
	for _, want := range []string{"config server 'postgres_2'", "option name 'postgres-2'", "option backend 'bk'", c.Nodes()[1].SQLAddr.String()} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
}
