package pgwire

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"testing"
)

// opening is one block of testdata/openings.txt.
type opening struct {
	name string
	said []said
}

// said is what one side said before the other spoke.
type said struct {
	client  bool
	verdict Verdict // of a server's
	bytes   []byte
}

// openings reads what real servers and clients said.
func openings(t testing.TB) []opening {
	text, err := os.ReadFile("testdata/openings.txt")
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]Verdict{}
	for v, name := range verdictNames {
		words[name] = Verdict(v)
	}
	var all []opening
	for block := range strings.SplitSeq(string(text), "\n\n") {
		if strings.HasPrefix(block, "#") {
			continue
		}
		lines := strings.Split(strings.TrimSpace(block), "\n")
		o := opening{name: lines[0]}
		for _, line := range lines[1:] {
			who, quoted, _ := strings.Cut(line, " ")
			bytes, err := strconv.Unquote(quoted)
			verdict, known := words[who]
			if err != nil || !known && who != "client" {
				t.Fatalf("%s: %.40s: %v", o.name, line, err)
			}
			o.said = append(o.said, said{who == "client", verdict, []byte(bytes)})
		}
		all = append(all, o)
	}
	if len(all) < 20 {
		t.Fatalf("only %d openings", len(all))
	}
	return all
}

// packet is an opening packet: its length, a code, and what follows.
func packet(code uint32, rest string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(HeaderSize+len(rest)))
	return append(binary.BigEndian.AppendUint32(b, code), rest...)
}

// as is a packet that says that it has another length.
func as(length uint32, b []byte) []byte {
	binary.BigEndian.PutUint32(b, length)
	return b
}

const user = "user\x00kine\x00\x00"

func TestIdentify(t *testing.T) {
	for _, test := range []struct {
		name    string
		b       []byte
		request Request
		size    int
		err     string // the whole of it
	}{
		{name: "nothing"},
		{name: "half a header", b: []byte("\x00\x00\x00\x15\x00\x03\x00")},
		{name: "a header is enough", b: as(9000, packet(3<<16, "")), request: Startup, size: 9000},
		{name: "startup", b: packet(3<<16, user), request: Startup, size: 19},
		{name: "startup, and more behind it", b: append(packet(3<<16, user), "Q..."...), request: Startup, size: 19},
		{name: "protocol 3.2", b: packet(3<<16|2, user), request: Startup, size: 19},
		{name: "the longest startup", b: as(MaxStartup, packet(3<<16, user)), request: Startup, size: MaxStartup},
		{name: "one longer", b: as(MaxStartup+1, packet(3<<16, user)), err: "StartupMessage of 10005 bytes, which has 8 to 10004"},
		{name: "shorter than its header", b: as(7, packet(3<<16, user)), err: "StartupMessage of 7 bytes, which has 8 to 10004"},
		{name: "ssl", b: packet(codeSSL, ""), request: SSL, size: 8},
		{name: "long ssl", b: packet(codeSSL, "\x00"), err: "SSLRequest of 9 bytes, which has 8 to 8"},
		{name: "gss", b: packet(codeGSS, ""), request: GSS, size: 8},
		{name: "short gss", b: as(4, packet(codeGSS, "")), err: "GSSENCRequest of 4 bytes, which has 8 to 8"},
		{name: "cancel", b: packet(codeCancel, "12345678"), request: Cancel, size: 16},
		{name: "cancel in protocol 3.2", b: as(12+256, packet(codeCancel, "12345678")), request: Cancel, size: 268},
		{name: "short cancel", b: packet(codeCancel, "1234567"), err: "CancelRequest of 15 bytes, which has 16 to 268"},
		{name: "long cancel", b: as(269, packet(codeCancel, "12345678")), err: "CancelRequest of 269 bytes, which has 16 to 268"},
		{name: "tls", b: []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), request: TLS},
		{name: "tls, one byte", b: []byte("\x16"), request: TLS},
		{name: "protocol 2.0", b: packet(2<<16, user), err: "protocol 2.0 is not spoken, only 3.x"},
		{name: "protocol 4.1", b: packet(4<<16|1, user), err: "protocol 4.1 is not spoken, only 3.x"},
		{name: "a request of the future", b: packet(1234<<16|5681, ""), err: "protocol 1234.5681 is not spoken, only 3.x"},
		{name: "http", b: []byte("GET / HTTP/1.1\r\nHost: db\r\n\r\n"), err: `not PostgreSQL's protocol: "GET / HTTP/1.1\r\nHost: db\r\n\r\n"`},
		{name: "ssh", b: []byte("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"), err: `not PostgreSQL's protocol: "SSH-2.0-OpenSSH_9.2p1 Debian-2+d" and more`},
		{name: "one letter", b: []byte("G"), err: `not PostgreSQL's protocol: "G"`},
		{name: "smb", b: []byte("\x00\x00\x00\x45\xffSMB\x72"), err: `not PostgreSQL's protocol: "\x00\x00\x00E\xffSMBr"`},
		{name: "zeros", b: make([]byte, 8), err: "protocol 0.0 is not spoken, only 3.x"},
		{name: "what a terminal would obey", b: []byte("\x1b[2J\u202e\xff"), err: `not PostgreSQL's protocol: "\x1b[2J\u202e\xff"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, size, err := Identify(test.b)
			if text(err) != test.err || r != test.request || size != test.size {
				t.Errorf("Identify = %v, %d, %v; want %v, %d, %s", r, size, err, test.request, test.size, test.err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name, rest, err string
	}{
		{"user", user, ""},
		{"two", "user\x00kine\x00database\x00app\x00\x00", ""},
		{"an empty value", "user\x00\x00\x00", ""},
		{"no parameters", "\x00", ""},
		{"nothing", "", "StartupMessage has no terminator"},
		{"no terminator", "user\x00kine\x00", "StartupMessage has no terminator"},
		{"half a name", "user\x00kine\x00da", "StartupMessage has no terminator"},
		{"half a value", "user\x00ki", `StartupMessage has no value for "user"`},
		{"no value", "user\x00", `StartupMessage has no value for "user"`},
		{"more after it", "user\x00kine\x00\x00\x00\x00", "StartupMessage goes on for 2 bytes after its terminator"},
		{"a long name", strings.Repeat("\n", 40) + "\x00x", `StartupMessage has no value for "` + strings.Repeat(`\n`, 32) + `" and more`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := Check(packet(3<<16, test.rest)); text(err) != test.err {
				t.Errorf("Check = %v, want %s", err, test.err)
			}
		})
	}
	if err := Check([]byte("\x00\x00\x00\x04")); err == nil {
		t.Error("Check finds no fault in 4 bytes")
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNames(t *testing.T) {
	if got := GSS.String() + " " + Request(9).String() + " " + Standby.String() + " " + Verdict(9).String(); got != "GSSENCRequest Request(9) standby unknown" {
		t.Error(got)
	}
}
