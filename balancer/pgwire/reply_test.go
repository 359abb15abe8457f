package pgwire

import (
	"encoding/binary"
	"strings"
	"testing"
)

// message is a server's message.
func message(kind byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))) + body
}

// auth is an Authentication message.
func auth(code uint32, rest string) string {
	return message('R', string(binary.BigEndian.AppendUint32(nil, code))+rest)
}

// fatal is an error as servers say it.
func fatal(code string) string {
	return message('E', "SFATAL\x00VFATAL\x00C"+code+"\x00Mno\x00\x00")
}

var (
	ok    = auth(authOK, "")
	sasl  = auth(10, "SCRAM-SHA-256\x00\x00")
	final = auth(authSASLFinal, "v=nknB4WdvayUywqDhPAUd15rPyDRiFCPPS8sbq9Lyuf0=")
	other = message('v', "\x00\x03\x00\x00\x00\x00\x00\x00")
	on    = message('S', "in_hot_standby\x00on\x00")
	off   = message('S', "in_hot_standby\x00off\x00")
	key   = message('K', "\x00\x00\x26\x3b\xcb\x37\xae\xc3")
	ready = message('Z', "I")
)

func TestReply(t *testing.T) {
	for _, test := range []struct {
		name    string
		request Request
		b       string
		verdict Verdict
		n       int
	}{
		{"ssl, nothing yet", SSL, "", Undecided, 0},
		{"ssl accepted", SSL, "S", Open, 0},
		{"ssl declined", SSL, "N", Declined, 1},
		{"ssl declined, and more", SSL, "N" + ok, Declined, 1},
		{"ssl, another answer", SSL, "?", Open, 0},
		{"ssl, error", SSL, fatal("0A000"), Open, 0},
		{"ssl, a letter of an error", SSL, "E", Undecided, 0},
		{"ssl, shutting down", SSL, fatal("57P03"), Unavailable, 0},
		{"ssl, no process to be had", SSL, "Ecould not fork new process for connection: Cannot allocate memory\n\x00", Open, 0},
		{"gss accepted", GSS, "G", Open, 0},
		{"gss declined", GSS, "N", Declined, 1},
		{"gss, a server before 12", GSS, "EFATAL:  unsupported frontend protocol 1234.5680: server supports 2.0 to 3.0\n\x00", Open, 0},

		{"cancel", Cancel, "", Open, 0},
		{"tls", TLS, "\x16", Open, 0},
		{"none", None, fatal("57P03"), Open, 0},

		{"startup, nothing yet", Startup, "", Undecided, 0},
		{"startup, half a header", Startup, "R\x00\x00\x00", Undecided, 0},
		{"startup, a header", Startup, "R\x00\x00\x00\x08", Undecided, 0},
		{"startup, password", Startup, auth(3, ""), Asks, 9},
		{"startup, md5, most of it", Startup, auth(5, "salt")[:12], Undecided, 0},
		{"startup, md5", Startup, auth(5, "salt"), Asks, 13},
		{"startup, sasl", Startup, sasl, Asks, len(sasl)},
		{"startup, older server, sasl", Startup, other + sasl, Asks, len(other + sasl)},
		{"startup, older server", Startup, other, Undecided, 0},
		{"startup, notice, sasl", Startup, message('N', "SWARNING\x00C57P03\x00\x00") + sasl, Asks, 22 + len(sasl)},
		{"gssapi that goes on by itself", Startup, auth(8, "token") + ok + ready, Asks, 14},
		{"sasl's end", Startup, final, Undecided, 0},
		{"sasl's end, ok", Startup, final + ok, Undecided, 0},
		{"sasl's end, ready", Startup, final + ok + off + key + ready, Open, 0},
		{"sasl's end, standby", Startup, final + ok + on + key + ready, Standby, 0},
		{"sasl's end, shutting down", Startup, final + ok + fatal("57P03"), Unavailable, 0},

		{"ok", Startup, ok, Undecided, 0},
		{"ok, status", Startup, ok + off + key, Undecided, 0},
		{"ready", Startup, ok + off + key + ready, Open, 0},
		{"not quite ready", Startup, (ok + off + key + ready)[:len(ok+off+key+ready)-1], Undecided, 0},
		{"ready, of an old server", Startup, ok + key + ready, Open, 0},
		{"ready, and notices", Startup, ok + message('N', "SNOTICE\x00\x00") + key + ready, Open, 0},
		{"standby", Startup, ok + on + key + ready, Standby, 0},
		{"standby, not ready", Startup, ok + on + key, Undecided, 0},
		{"standby no more", Startup, ok + on + off + key + ready, Open, 0},
		{"standby from now on", Startup, ok + off + on + key + ready, Standby, 0},
		{"other settings are on", Startup, ok + message('S', "in_hot_standby_\x00on\x00") + message('S', "x\x00in_hot_standby\x00on\x00") + ready, Open, 0},
		{"a value that is not on", Startup, ok + message('S', "in_hot_standby\x00only\x00") + ready, Open, 0},

		{"starting up", Startup, fatal("57P03"), Unavailable, 0},
		{"operator", Startup, fatal("57P01"), Unavailable, 0},
		{"crash", Startup, fatal("57P02"), Unavailable, 0},
		{"database dropped", Startup, fatal("57P04"), Open, 0},
		{"longer than a code", Startup, fatal("57P03x"), Open, 0},
		{"wrong password", Startup, fatal("28P01"), Open, 0},
		{"too many clients", Startup, fatal("53300"), Open, 0},
		{"older server, starting up", Startup, other + fatal("57P03"), Unavailable, 0},
		{"shut down while it opens", Startup, ok + off + fatal("57P01"), Unavailable, 0},
		{"no such database", Startup, ok + fatal("3D000"), Open, 0},
		{"the code is enough", Startup, fatal("57P03")[:5+len("SFATAL.VFATAL.C57P03.")], Unavailable, 0},
		{"most of a code", Startup, fatal("57P03")[:5+len("SFATAL.VFATAL.C57P03")], Undecided, 0},
		{"an error without a code", Startup, message('E', "SFATAL\x00\x00"), Open, 0},
		{"an error without an end", Startup, message('E', "SFATAL\x00MC57P03\x00"), Open, 0},
		{"an error that ends in its code", Startup, message('E', "SFATAL\x00C57P03"), Unavailable, 0},
		{"no code, more to come", Startup, message('E', "SFATAL\x00MC57P03\x00\x00")[:13], Undecided, 0},
		{"an empty error", Startup, message('E', ""), Open, 0},
		{"an error of protocol 2", Startup, "EFATAL:  the database system is starting up\n\x00", Open, 0},

		{"a length below 4", Startup, "R\x00\x00\x00\x03", Open, 0},
		{"a length of 4", Startup, "N\x00\x00\x00\x04", Undecided, 0},
		{"authentication without a code", Startup, "R\x00\x00\x00\x07", Open, 0},
		{"an unknown type", Startup, "T\x00\x00\x00\x04", Open, 0},
		{"an unknown type behind ok", Startup, ok + "\x00\x00\x00\x00\x04", Open, 0},
		{"a long message", Startup, "N\x00\x00\x7f\xff", Undecided, 0},
		{"too long a message", Startup, "N\x00\x00\x80\x00", Open, 0},
		{"too long a message of bytes", Startup, "R\xff\xff\xff\xff", Open, 0},
		{"too many messages", Startup, strings.Repeat(other, MaxUndecided/len(other)), Undecided, 0},
		{"one too many", Startup, strings.Repeat(other, MaxUndecided/len(other)+1), Open, 0},
		{"http", Startup, "HTTP/1.0 400 Bad Request\r\n\r\n", Open, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if v, n := Reply(test.request, []byte(test.b)); v != test.verdict || n != test.n {
				t.Errorf("Reply = %v, %d, want %v, %d", v, n, test.verdict, test.n)
			}
			monotone(t, test.request, []byte(test.b))
		})
	}
}

// monotone shows Reply every beginning of b: undecided until it is decided, and
// then of one mind.
func monotone(t *testing.T, r Request, b []byte) {
	t.Helper()
	first, passed := Undecided, 0
	step := max(1, len(b)/2000) // not all of the longest
	for end := 0; end <= len(b); end = next(end, step, len(b)) {
		v, n := Reply(r, b[:end:end])
		switch {
		case n < 0 || n > end:
			t.Fatalf("%d bytes of %d may pass", n, end)
		case (n > 0) != (v == Declined || v == Asks):
			t.Fatalf("%v with %d bytes", v, n)
		case v == Undecided && end > MaxUndecided:
			t.Fatalf("undecided after %d bytes", end)
		case first != Undecided && (v != first || n != passed):
			t.Fatalf("%v, %d after %d bytes, %v, %d before", v, n, end, first, passed)
		}
		first, passed = v, n
	}
}

// next is the next end to look at; the whole is always among them.
func next(end, step, whole int) int {
	if end < whole && end+step > whole {
		return whole
	}
	return end + step
}

// TestOpenings follows real openings, in the pieces in which they may arrive.
func TestOpenings(t *testing.T) {
	seen := map[Verdict]int{}
	for _, o := range openings(t) {
		t.Run(o.name, func(t *testing.T) {
			request := None
			for _, s := range o.said {
				if s.client {
					if request != Startup { // else it answers a question
						request = asked(t, s.bytes)
					}
					continue
				}
				seen[s.verdict]++
				monotone(t, request, s.bytes)
				v, n := Reply(request, s.bytes)
				if v != s.verdict {
					t.Fatalf("%v means %v, want %v", request, v, s.verdict)
				}
				if v == Asks && n != len(s.bytes) {
					t.Fatalf("%d of %d bytes ask", n, len(s.bytes))
				}
			}
		})
	}
	for v, name := range verdictNames {
		if v != int(Undecided) && seen[Verdict(v)] == 0 {
			t.Errorf("no server said %s", name)
		}
	}
}

// asked is what a real client's packet asks for. Each beginning of it must tell
// the same, or nothing yet. What PostgreSQL did not take is a Startup too.
func asked(t *testing.T, b []byte) Request {
	t.Helper()
	r, size, err := Identify(b)
	for end := range b {
		early, length, fault := Identify(b[:end])
		if early != None && (early != r || length != size) || fault != nil && err == nil || early == None && length != 0 {
			t.Fatalf("%d bytes are %v of %d, %v; all are %v of %d", end, early, length, fault, r, size)
		}
	}
	if err == nil && size != len(b) {
		t.Fatalf("%v of %d bytes, want %d", r, size, len(b))
	}
	if r == Startup {
		err = Check(b)
	}
	foreign := map[string]bool{"protocol 2.0": true, "protocol 1234.5681": true, "no terminator": true}
	name := t.Name()[strings.IndexByte(t.Name(), '/')+1:]
	if refused := foreign[strings.ReplaceAll(name, "_", " ")]; refused != (err != nil) {
		t.Fatalf("error %v", err)
	}
	if err != nil {
		return Startup
	}
	return r
}
