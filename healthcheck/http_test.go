package healthcheck

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pointsman/config"
	"pointsman/leaktest"
)

// backend returns a backend with the defaults, changed by "option value" lines
// as a user would write them.
func backend(t testing.TB, options ...string) *config.Backend {
	t.Helper()
	b := config.NewBackend("bk")
	for _, line := range options {
		name, value, _ := strings.Cut(line, " ")
		key := config.Lookup("backend").Key(name)
		if key == nil {
			t.Fatalf("no option %s", name)
		}
		if err := key.Set(&b, value); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return &b
}

func httpProber(t testing.TB, options ...string) Prober {
	t.Helper()
	s := config.NewServer("s1")
	s.Address = config.HostPort{Host: "127.0.0.1", Port: 5432}
	s.CheckPort = 8008
	p, err := NewProber(backend(t, options...), &s, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What a whole answer means. Sent as it stands, then closed.
func TestHTTPAnswers(t *testing.T) {
	leaktest.Check(t)
	tests := []struct {
		name    string
		options []string
		answer  string
		want    Result
	}{
		{"Patroni's primary", nil, patroni(200, "primary", "running", 5),
			Result{Class: Passed, Code: 200, Role: "primary", State: "running", Timeline: 5,
				Reason: `Layer7 check passed, code: 200, info: "OK", role: primary, timeline: 5`}},
		{"the same before Patroni 4", nil, patroni(200, "master", "running", 5),
			Result{Class: Passed, Code: 200, Role: "master", State: "running", Timeline: 5,
				Reason: `Layer7 check passed, code: 200, info: "OK", role: master, timeline: 5`}},
		{"Patroni's replica", nil, patroni(503, "replica", "running", 5),
			Result{Class: Status, Code: 503, Role: "replica", State: "running", Timeline: 5,
				Reason: `Layer7 wrong status, code: 503, info: "Service Unavailable", role: replica, timeline: 5`}},
		{"holds the lock, not yet promoted", nil, patroni(200, "replica", "running", 5),
			Result{Class: Status, Code: 200, Role: "replica", State: "running", Timeline: 5,
				Promoting: true, Reason: "Layer7 wrong role: replica, state: running, code: 200, timeline: 5"}},
		{"holds the lock, cannot start", nil, patroni(200, "replica", "starting", 0),
			Result{Class: Status, Code: 200, Role: "replica", State: "starting",
				Promoting: true, Reason: "Layer7 wrong role: replica, state: starting, code: 200"}},
		{"restarts", nil, patroni(200, "master", "restarting", 5),
			Result{Class: Status, Code: 200, Role: "master", State: "restarting", Timeline: 5,
				Promoting: true, Reason: "Layer7 wrong state: restarting, role: master, code: 200, timeline: 5"}},
		{"holds the lock, stops", nil, patroni(200, "primary", "stopping", 5),
			Result{Class: Status, Code: 200, Role: "primary", State: "stopping", Timeline: 5,
				Reason: "Layer7 wrong state: stopping, role: primary, code: 200, timeline: 5"}},
		{"a replica asked whether it is one", []string{"check_uri /replica?lag=16MB"}, patroni(200, "replica", "starting", 5),
			Result{Class: Passed, Code: 200, Role: "replica", State: "starting", Timeline: 5,
				Reason: `Layer7 check passed, code: 200, info: "OK", role: replica, state: starting, timeline: 5`}},
		{"a standby leader is not the primary", nil, patroni(200, "standby_leader", "running", 5),
			Result{Class: Status, Code: 200, Role: "standby_leader", State: "running", Timeline: 5,
				Reason: "Layer7 wrong role: standby_leader, state: running, code: 200, timeline: 5"}},
		{"a standby leader", []string{"check_uri /standby-leader"}, patroni(200, "standby_leader", "running", 5),
			Result{Class: Passed, Code: 200, Role: "standby_leader", State: "running", Timeline: 5,
				Reason: `Layer7 check passed, code: 200, info: "OK", role: standby_leader, timeline: 5`}},
		{"HEAD: bare status", []string{"check_method HEAD"}, "HTTP/1.0 200 OK\r\n\r\n",
			Result{Class: Passed, Code: 200, Reason: `Layer7 check passed, code: 200, info: "OK"`}},
		{"HEAD: a length without a body", []string{"check_method HEAD"}, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
			Result{Class: Passed, Code: 200, Reason: `Layer7 check passed, code: 200, info: "OK"`}},
		{"OPTIONS: bare status", []string{"check_method OPTIONS"}, "HTTP/1.0 503 Service Unavailable\r\n\r\n",
			Result{Class: Status, Code: 503, Reason: `Layer7 wrong status, code: 503, info: "Service Unavailable"`}},
		{"GET: bare status", nil, "HTTP/1.0 200 OK\r\n\r\n",
			Result{Class: Passed, Code: 200, Reason: `Layer7 check passed, code: 200, info: "OK"`}},
		{"no reason phrase", nil, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
			Result{Class: Passed, Code: 200, Reason: "Layer7 check passed, code: 200"}},
		{"a status of the set", []string{"check_expect 200-299,404"}, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
			Result{Class: Passed, Code: 404, Reason: `Layer7 check passed, code: 404, info: "Not Found"`}},
		{"a redirect is not followed", nil, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
			Result{Class: Status, Code: 302, Reason: `Layer7 wrong status, code: 302, info: "Found"`}},
		{"the wanted text", []string{"check_body nocodb-cluster"}, patroni(200, "primary", "running", 5),
			Result{Class: Passed, Code: 200, Role: "primary", State: "running", Timeline: 5,
				Reason: `Layer7 check passed, code: 200, info: "OK", role: primary, timeline: 5`}},
		{"not the wanted text", []string{"check_body other-cluster"}, patroni(200, "primary", "running", 5),
			Result{Class: Status, Code: 200, Role: "primary", State: "running", Timeline: 5,
				Reason: `Layer7 wrong body, code: 200, info: "OK", role: primary, timeline: 5`}},
		{"no JSON", nil, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			Result{Class: Passed, Code: 200, Reason: `Layer7 check passed, code: 200, info: "OK"`}},
		{"chunked", nil, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"role\":\"\r\nA\r\nreplica\" }\r\n0\r\n\r\n",
			Result{Class: Status, Code: 200, Role: "replica", Promoting: true, Reason: "Layer7 wrong role: replica, code: 200"}},
		{"fields of other types", nil, "HTTP/1.1 200 OK\r\n\r\n" + `{"role": 7, "state": null, "timeline": "x", "xlog": []}`,
			Result{Class: Passed, Code: 200, Reason: `Layer7 check passed, code: 200, info: "OK"`}},
		{"a timeline that is none", nil, "HTTP/1.1 200 OK\r\n\r\n" + `{"role": "primary", "state": "running", "timeline": -3}`,
			Result{Class: Passed, Code: 200, Role: "primary", State: "running",
				Reason: `Layer7 check passed, code: 200, info: "OK", role: primary`}},
		{"interim answers first", nil, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			Result{Class: Passed, Code: 200, Reason: `Layer7 check passed, code: 200, info: "OK"`}},
		{"texts that would spoil a log", nil, "HTTP/1.1 503 a\"b\x01\x1b[2J" + strings.Repeat("é", 100) + "\r\nContent-Length: 0\r\n\r\n",
			Result{Class: Status, Code: 503,
				Reason: `Layer7 wrong status, code: 503, info: "a'b??[2J` + strings.Repeat("é", 34) + `..."`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, answer(tt.answer))
			got := probe(t, httpProber(t, tt.options...), p.addr, 5*time.Second)
			got.Took = 0
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if n := p.seen.Load(); n != 1 {
				t.Errorf("%d connections for one probe", n)
			}
		})
	}
}

// A server that misbehaves fails its check by the deadline, in a known class,
// and with a reason that names what it did.
func TestHTTPBadPeers(t *testing.T) {
	leaktest.Check(t)
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := []struct {
		name    string
		options []string
		handle  func(net.Conn)
		class   Class
		reason  string // its beginning
	}{
		{"accepts and says nothing", nil, stay, Timeout, "Layer7 timeout"},
		{"closes at once", nil, func(c net.Conn) { readRequest(c) }, Protocol,
			"Layer7 invalid response: closed before the end of the answer"},
		{"resets", nil, func(c net.Conn) { readRequest(c); c.(*net.TCPConn).SetLinger(0) }, Protocol,
			"Layer7 invalid response: connection reset by peer"},
		{"garbage", nil, answer("\x00\x01\x02 garbage \xff\xfe\r\n\r\n"), Protocol,
			"Layer7 invalid response: "},
		{"another protocol", nil, answer("SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), Protocol,
			"Layer7 invalid response: "},
		{"half a status line", nil, answer("HTTP/1.0 20"), Protocol,
			"Layer7 invalid response: closed before the end of the answer"},
		{"half a header", nil, answer(ok + "Content-Le"), Protocol,
			"Layer7 invalid response: closed before the end of the answer"},
		{"half a body, by its length", nil, answer(ok + "Content-Length: 50\r\n\r\n{\"role\""), Protocol,
			"Layer7 invalid response: closed before the end of the answer"},
		{"half a body, by its JSON", nil, answer(patroni(200, "primary", "running", 5)[:300]), Protocol,
			"Layer7 invalid response: broken JSON, code: 200"},
		{"half a chunk", nil, answer(ok + "Transfer-Encoding: chunked\r\n\r\n50\r\n{\"role\""), Protocol,
			"Layer7 invalid response: closed before the end of the answer"},
		{"half an answer, then silence", nil, func(c net.Conn) { readRequest(c); io.WriteString(c, ok); stay(c) }, Timeout,
			"Layer7 timeout"},
		{"a body without an end", nil, func(c net.Conn) { readRequest(c); io.WriteString(c, ok+"\r\nok"); stay(c) }, Timeout,
			"Layer7 timeout"},
		{"a byte per 100 ms", nil, func(c net.Conn) { readRequest(c); trickle(c, patroni(200, "primary", "running", 5)) }, Timeout,
			"Layer7 timeout"},
		{"10 MB by length", nil, func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, ok+"Content-Length: 10000000\r\n\r\n")
			flood(c, "x", 10_000_000)
		}, Protocol, "Layer7 invalid response: an answer of more than 64 KiB"},
		{"10 MB until it closes", nil, func(c net.Conn) { readRequest(c); io.WriteString(c, ok+"\r\n"); flood(c, "x", 10_000_000) },
			Protocol, "Layer7 invalid response: an answer of more than 64 KiB"},
		{"a body without end", nil, func(c net.Conn) { readRequest(c); io.WriteString(c, ok+"\r\n"); flood(c, "x", -1) },
			Protocol, "Layer7 invalid response: an answer of more than 64 KiB"},
		{"chunks without end", nil, func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n")
			flood(c, "1\r\nx\r\n", -1)
		}, Protocol, "Layer7 invalid response: an answer of more than 64 KiB"},
		{"a chunk of all sizes", nil, answer(ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"), Protocol,
			"Layer7 invalid response: "},
		{"a length beyond all bounds", nil, answer(ok + "Content-Length: 99999999999999999999999\r\n\r\n"), Protocol,
			"Layer7 invalid response: "},
		{"two lengths", nil, answer(ok + "Content-Length: 2\r\nContent-Length: 4\r\n\r\nokok"), Protocol,
			"Layer7 invalid response: "},
		{"headers without end", nil, func(c net.Conn) { readRequest(c); io.WriteString(c, ok); flood(c, "X-More: yes\r\n", -1) },
			Protocol, "Layer7 invalid response: a header of more than 8 KiB"},
		{"one header without end", nil, func(c net.Conn) { readRequest(c); io.WriteString(c, ok+"X: "); flood(c, "x", -1) },
			Protocol, "Layer7 invalid response: a header of more than 8 KiB"},
		{"interim answers without end", nil, func(c net.Conn) { readRequest(c); flood(c, "HTTP/1.1 100 Continue\r\n\r\n", -1) },
			Protocol, "Layer7 invalid response: "},
		{"trailers without end", nil, func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n")
			flood(c, "X-More: yes\r\n", -1)
		}, Protocol, "Layer7 invalid response: "},
		{"a compressed body is not unpacked", []string{"check_body xxxx", "check_uri /health"}, func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, ok+"Content-Encoding: gzip\r\n\r\n"+bomb())
		}, Status, "Layer7 wrong body, code: 200"},
	}
	t.Run("all", func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				p := serve(t, tt.handle)
				limit := 5 * time.Second
				if tt.class == Timeout {
					limit = 300 * time.Millisecond
				}
				r := probe(t, httpProber(t, tt.options...), p.addr, limit)
				if r.Class != tt.class || !strings.HasPrefix(r.Reason, tt.reason) {
					t.Errorf("class %d, %s\nwant  %d, %s", r.Class, r.Reason, tt.class, tt.reason)
				}
				if len(r.Reason) > 150 || r.Reason != printable(r.Reason, 150) && !strings.Contains(r.Reason, `"`) {
					t.Errorf("reason is not fit for a log: %q", r.Reason)
				}
				if n := p.seen.Load(); n != 1 {
					t.Errorf("%d connections for one probe", n)
				}
			})
		}
	})
}

func trickle(w io.Writer, text string) {
	for i := range len(text) {
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// flood writes so many bytes, or until the other side goes away if it is -1.
func flood(w io.Writer, text string, total int) {
	block := strings.Repeat(text, 1+8192/len(text))
	for total < 0 || total > 0 {
		if total >= 0 {
			block = block[:min(len(block), total)]
			total -= len(block)
		}
		if _, err := io.WriteString(w, block); err != nil {
			return
		}
	}
}

// bomb is 10 MB of x in 10 KB of gzip.
func bomb() string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	flood(w, "x", 10_000_000)
	w.Close()
	return b.String()
}

func TestHTTPConnectFails(t *testing.T) {
	leaktest.Check(t)
	tests := []struct {
		name   string
		addr   netip.AddrPort
		class  Class
		reason string
	}{
		{"nobody listens", closed(t), Refused, "Layer4 connection problem, connection refused"},
		{"packets are dropped", silent(t), Timeout, "Layer4 timeout"},
		// TCP to the broadcast address has no route by definition (tcp_v4_connect).
		{"no route", netip.MustParseAddrPort("255.255.255.255:1"), Unreachable, "Layer4 connection problem, network is unreachable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, p := range []Prober{httpProber(t), TCP{}, NewPgSQL("x")} {
				if r := probe(t, p, tt.addr, 120*time.Millisecond); r.Class != tt.class || r.Reason != tt.reason {
					t.Errorf("%T: class %d, %s; want %d, %s", p, r.Class, r.Reason, tt.class, tt.reason)
				}
			}
		})
	}
}

// The request as a server sees it.
func TestHTTPRequest(t *testing.T) {
	tests := []struct {
		name    string
		options []string
		want    string
	}{
		{"default", nil, "GET /primary HTTP/1.1\r\nUser-Agent: pointsman\r\nHost: db1.lan:8008\r\nConnection: close\r\n\r\n"},
		{"the URI as it was written", []string{"check_uri /replica/../a//b?lag=16MB&x=%20y"},
			"GET /replica/../a//b?lag=16MB&x=%20y HTTP/1.1\r\nUser-Agent: pointsman\r\nHost: db1.lan:8008\r\nConnection: close\r\n\r\n"},
		{"method and headers", []string{"check_method OPTIONS", "check_header Host: patroni", "check_header X-Key: a: b"},
			"OPTIONS /primary HTTP/1.1\r\nUser-Agent: pointsman\r\nHost: patroni\r\nX-Key: a: b\r\nConnection: close\r\n\r\n"},
		{"every header may be replaced", []string{"check_header user-agent: me", "check_header Authorization: Basic eDp5"},
			"GET /primary HTTP/1.1\r\nUser-Agent: me\r\nHost: db1.lan:8008\r\nAuthorization: Basic eDp5\r\nConnection: close\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := config.Server{Address: config.HostPort{Host: "db1.lan", Port: 5432}, CheckPort: 8008}
			p, err := NewProber(backend(t, tt.options...), &s, "db1.lan")
			if err != nil {
				t.Fatal(err)
			}
			if got := string(p.(*HTTP).request); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// A cancelled probe ends at once, wherever it is.
func TestProbeIsCancelled(t *testing.T) {
	leaktest.Check(t)
	accepted := make(chan bool, 3)
	hang := serve(t, func(c net.Conn) { accepted <- true; stay(c) })
	dropped := silent(t)
	for _, p := range []Prober{httpProber(t), httpProber(t, "check_tls 1"), NewPgSQL("x"), TCP{}} {
		t.Run(fmt.Sprintf("%T", p), func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			addr := hang.addr
			if p == (TCP{}) {
				addr = dropped
				time.AfterFunc(20*time.Millisecond, cancel)
			} else {
				go func() { <-accepted; cancel() }()
			}
			start := time.Now()
			p.Probe(ctx, addr, start.Add(30*time.Second))
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// Hundreds of probes against every kind of end leave nothing behind.
func TestProbesLeaveNothingBehind(t *testing.T) {
	leaktest.Check(t)
	good := serve(t, answer(patroni(200, "primary", "running", 5)))
	mute := serve(t, stay)
	endless := serve(t, func(c net.Conn) { readRequest(c); io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); flood(c, "x", -1) })
	refusing := closed(t)
	p := httpProber(t)
	for range 150 {
		if r := probe(t, p, good.addr, 5*time.Second); r.Class != Passed {
			t.Fatalf("good peer: %s", r.Reason)
		}
		probe(t, p, mute.addr, time.Millisecond)
		probe(t, p, endless.addr, 5*time.Second)
		probe(t, p, refusing, 5*time.Second)
	}
}
