package pgwire

import (
	"testing"
)

// FuzzIdentify: no panic, a bounded size, a bounded and printable error, and one
// answer for all beginnings once there is one.
func FuzzIdentify(f *testing.F) {
	for _, o := range openings(f) {
		for _, s := range o.said {
			if s.client {
				f.Add(s.bytes)
			}
		}
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc"))
	f.Add(packet(codeCancel, "12345678"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, size, err := Identify(b)
		if size < 0 || size > MaxStartup || (size > 0) != (r != None && r != TLS) || err != nil && r != None {
			t.Fatalf("%v of %d bytes, %v", r, size, err)
		}
		if err != nil {
			tame(t, err)
		}
		for end := range min(len(b), 2*HeaderSize) {
			early, length, fault := Identify(b[:end])
			if early != None && (early != r || length != size) || fault != nil && err == nil {
				t.Fatalf("%d bytes: %v of %d, %v; all: %v of %d, %v", end, early, length, fault, r, size, err)
			}
		}
		if err := Check(b); err != nil {
			tame(t, err)
		}
	})
}

// tame checks that a stranger's bytes cannot harm the log.
func tame(t *testing.T, err error) {
	t.Helper()
	text := err.Error()
	if len(text) > 80+4*maxQuote {
		t.Fatalf("an error of %d bytes", len(text))
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			t.Fatalf("%q is not printable", text)
		}
	}
}

// FuzzReply: no panic, no more bytes passed than there are, of one mind, and
// without memory of its own.
func FuzzReply(f *testing.F) {
	for _, o := range openings(f) {
		for _, s := range o.said {
			if !s.client {
				f.Add(byte(Startup), s.bytes)
				f.Add(byte(SSL), s.bytes)
			}
		}
	}
	f.Add(byte(GSS), []byte("N"))
	f.Add(byte(Startup), []byte(auth(8, "token")+ok+ready))
	f.Fuzz(func(t *testing.T, request byte, b []byte) {
		r := Request(request)
		monotone(t, r, b)
		// What follows passed bytes is judged as if they had never been.
		for rest := b; ; {
			v, n := Reply(r, rest)
			if v != Asks {
				break
			}
			rest = rest[n:]
		}
	})
}

// TestAllocations: the usual way costs no memory.
func TestAllocations(t *testing.T) {
	all := openings(t)
	allocations := testing.AllocsPerRun(100, func() {
		for _, o := range all {
			request := None
			for _, s := range o.said {
				switch {
				case !s.client:
					Reply(request, s.bytes)
				case o.name != "protocol 2.0" && o.name != "protocol 1234.5681" && request != Startup:
					request, _, _ = Identify(s.bytes)
					if request == Startup && o.name != "no terminator" {
						Check(s.bytes)
					}
				}
			}
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func BenchmarkIdentify(b *testing.B) {
	startup := packet(3<<16, "user\x00kine\x00database\x00kine\x00application_name\x00kine\x00\x00")
	b.ReportAllocs()
	for b.Loop() {
		if r, _, _ := Identify(startup); r != Startup || Check(startup) != nil {
			b.Fatal(r)
		}
	}
}

func BenchmarkReply(b *testing.B) {
	login := []byte(final + ok + off + key + ready)
	for _, o := range openings(b) {
		if o.name == "scram-sha-256" {
			login = o.said[len(o.said)-1].bytes // some 450 bytes
		}
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(login)))
	for b.Loop() {
		if v, _ := Reply(Startup, login); v != Open {
			b.Fatal(v)
		}
	}
}
