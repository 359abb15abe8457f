package healthcheck

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"pointsman/leaktest"
)

// message builds one message of protocol 3.
func message(kind byte, body string) string {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return string(head) + body
}

// refusal builds an ErrorResponse.
func refusal(code, text string) string {
	return message('E', "SFATAL\x00VFATAL\x00C"+code+"\x00M"+text+"\x00Fpostmaster.c\x00L2400\x00\x00")
}

func TestPgSQL(t *testing.T) {
	leaktest.Check(t)
	const scram = "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"
	tests := []struct {
		name   string
		answer string
		class  Class
		reason string
	}{
		{"asks for a password", message('R', scram), Passed, "Layer7 check passed"},
		{"lets anyone in", message('R', "\x00\x00\x00\x00") + message('S', "server_version\x0017.2\x00") + message('Z', "I"), Passed, "Layer7 check passed"},
		{"a notice", message('N', "SNOTICE\x00C00000\x00Mhello\x00\x00"), Passed, "Layer7 check passed"},
		{"speaks an older minor version", message('v', "\x00\x03\x00\x00\x00\x00\x00\x00"), Passed, "Layer7 check passed"},
		{"no such user", refusal("28000", `role "x" does not exist`), Passed,
			`Layer7 check passed, code: 28000, info: "role 'x' does not exist"`},
		{"starting up", refusal("57P03", "the database system is starting up"), Status,
			`Layer7 wrong status, code: 57P03, info: "the database system is starting up"`},
		{"shutting down", refusal("57P01", "terminating connection due to administrator command"), Status,
			`Layer7 wrong status, code: 57P01, info: "terminating connection due to administrator command"`},
		{"an error without a code", message('E', "SFATAL\x00\x00"), Protocol, "Layer7 invalid response: an error without a code"},
		{"an error cut in a field", message('E', "C57P0"), Protocol, "Layer7 invalid response: an error without a code"},
		{"cannot fork (protocol 2)", "Ecould not fork new process for connection: Out of memory\n\x00", Protocol, "Layer7 invalid response: not PostgreSQL: "},
		{"another message", message('Z', "I"), Protocol, "Layer7 invalid response: unexpected message 'Z'"},
		{"a short authentication", message('R', "\x00"), Protocol, "Layer7 invalid response: unexpected message 'R'"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", Protocol, "Layer7 invalid response: not PostgreSQL: "},
		{"a length below its own", "R\x00\x00\x00\x03", Protocol, "Layer7 invalid response: not PostgreSQL: "},
		{"half an answer", message('R', scram)[:9], Protocol, "Layer7 invalid response: closed before the end of the answer"},
		{"nothing", "", Protocol, "Layer7 invalid response: closed before the end of the answer"},
		{"a text that would spoil a log", refusal("57P03", "\x1b[2J"+strings.Repeat("x", 500)), Status,
			`Layer7 wrong status, code: 57P03, info: "?[2J` + strings.Repeat("x", 73) + `..."`},
	}
	p := NewPgSQL("pointsman")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			peer := serve(t, func(c net.Conn) {
				opening := make([]byte, len(p.opening))
				io.ReadFull(c, opening)
				if string(opening) != string(p.opening) {
					t.Errorf("opening %q", opening)
				}
				io.WriteString(c, tt.answer)
			})
			r := probe(t, p, peer.addr, 5*time.Second)
			if r.Class != tt.class || !strings.HasPrefix(r.Reason, tt.reason) {
				t.Errorf("class %d, %s\nwant  %d, %s", r.Class, r.Reason, tt.class, tt.reason)
			}
		})
	}
}

// PostgreSQL logs a reset but not a FIN, so a probe leaves with a FIN, and
// takes what is still on its way.
func TestPgSQLLeavesWithFIN(t *testing.T) {
	leaktest.Check(t)
	p := NewPgSQL("pointsman")
	left := make(chan error, 1)
	peer := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, len(p.opening)))
		for _, m := range []string{message('R', "\x00\x00\x00\x00"), message('S', strings.Repeat("x", 4000)), message('Z', "I")} {
			if _, err := io.WriteString(c, m); err != nil {
				left <- err
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		_, err := c.Read(make([]byte, 1))
		left <- err
	})
	if r := probe(t, p, peer.addr, 5*time.Second); r.Class != Passed {
		t.Errorf("%s", r.Reason)
	}
	if err := <-left; err != io.EOF {
		t.Errorf("the server saw %v", err)
	}
}

// A server that keeps the connection is not waited for.
func TestPgSQLServerThatStays(t *testing.T) {
	leaktest.Check(t)
	p := NewPgSQL("pointsman")
	over := make(chan bool)
	peer := serve(t, func(c net.Conn) { io.WriteString(c, message('R', "\x00\x00\x00\x00")); <-over })
	for _, limit := range []time.Duration{30 * time.Second, 30 * time.Millisecond} {
		start := time.Now()
		if r := probe(t, p, peer.addr, limit); r.Class != Passed {
			t.Errorf("%s", r.Reason)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("left after %v", took)
		}
	}
	close(over)
}

func TestPgSQLBadPeers(t *testing.T) {
	leaktest.Check(t)
	t.Run("all", testPgSQLBadPeers)
}

func testPgSQLBadPeers(t *testing.T) {
	p := NewPgSQL("pointsman")
	for name, handle := range map[string]func(net.Conn){
		"silent":        stay,
		"half, silent":  func(c net.Conn) { io.WriteString(c, "R\x00\x00"); stay(c) },
		"byte by byte":  func(c net.Conn) { trickle(c, message('R', strings.Repeat("\x00", 200))) },
		"asks for 8 KB": func(c net.Conn) { io.WriteString(c, "R\x00\x00\x20\x00"); stay(c) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := serve(t, handle)
			if r := probe(t, p, peer.addr, 250*time.Millisecond); r.Class != Timeout || r.Reason != "Layer7 timeout" {
				t.Errorf("class %d, %s", r.Class, r.Reason)
			}
		})
	}
	t.Run("endless after the answer", func(t *testing.T) {
		peer := serve(t, func(c net.Conn) { io.WriteString(c, message('R', "\x00\x00\x00\x00")); flood(c, "x", -1) })
		if r := probe(t, p, peer.addr, 2*time.Second); r.Class != Passed {
			t.Errorf("class %d, %s", r.Class, r.Reason)
		}
	})
}

func TestTCP(t *testing.T) {
	leaktest.Check(t)
	left := make(chan error, 1)
	peer := serve(t, func(c net.Conn) { _, err := c.Read(make([]byte, 1)); left <- err })
	if r := probe(t, TCP{}, peer.addr, time.Second); r.Class != Passed || r.Reason != "Layer4 check passed" {
		t.Errorf("class %d, %s", r.Class, r.Reason)
	}
	if err := <-left; err != io.EOF {
		t.Errorf("the server saw %v", err)
	}
}

// With no descriptor left the server is not to blame, and the class says so.
func TestNoDescriptorLeft(t *testing.T) {
	peer := serve(t, stay)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	r := TCP{}.Probe(t.Context(), peer.addr, time.Now().Add(time.Second))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if r.Class != SocketError || r.Reason != "Socket error, too many open files" {
		t.Errorf("class %d, %s", r.Class, r.Reason)
	}
}
