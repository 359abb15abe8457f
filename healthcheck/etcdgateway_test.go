package healthcheck

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pointsman/config"
	"pointsman/leaktest"
)

// The tests wait more than they work. Together they leave nothing behind.
func TestEtcd(t *testing.T) {
	leaktest.Check(t)
	t.Run("all", func(t *testing.T) {
		t.Run("real", testRealEtcd)
		t.Run("real secured", testRealEtcdSecured)
		t.Run("Watch", testEtcdWatch)
		t.Run("BadMembers", testEtcdBadMembers)
		t.Run("SilentWatch", testEtcdSilentWatch)
		t.Run("LateWatch", testEtcdLateWatch)
		t.Run("NextMember", testEtcdNextMember)
		t.Run("KeyIsGone", testEtcdKeyIsGone)
		t.Run("Token", testEtcdToken)
		t.Run("PasswordIsNotTold", testEtcdPasswordIsNotTold)
		t.Run("Ends", testEtcdEnds)
	})
}

// What a watch tells after it was opened, and what becomes of that.
func testEtcdWatch(t *testing.T) {
	t.Parallel()
	byBytes := func(text string) (out string) {
		for i := range text {
			out += chunk(text[i : i+1])
		}
		return out
	}
	type hints = []string
	tests := []struct {
		name, stream string
		hints        hints
		err          string // that ends it; "" = it goes on
	}{
		{"another leader", chunk(put("b", 2, 6)), hints{"leader key is now b"}, ""},
		{"a message in many chunks", byBytes(put("b", 2, 6)), hints{"leader key is now b"}, ""},
		{"several messages in a chunk", chunk(deleted(6) + put("b", 7, 7)), hints{"leader key is gone, was a", "leader key is now b"}, ""},
		{"several events in a message", chunk(`{"result":{"events":[{"type":"DELETE","kv":{"mod_revision":"6"}},{"type":"PUT","kv":` + kv("c", 7, 7) + `}]}}` + "\n"),
			hints{"leader key is now c"}, ""},
		{"the same leader, anew", chunk(deleted(6)) + chunk(put("a", 7, 7)), hints{"leader key is gone, was a", "leader key is now a"}, ""},
		{"made anew in one message", chunk(`{"result":{"events":[{"kv":` + kv("a", 7, 7) + `}]}}` + "\n"), hints{"leader key was made anew by a"}, ""},
		{"put again, another lease", chunk(put("a", 2, 6)) + chunk(put("b", 2, 7)), hints{"leader key is now b"}, ""},
		{"progress, and fields to come", chunk(`{"result":{"header":{"revision":"9"},"new":[1]}}`+"\n") + chunk("\n\r\n") + chunk(put("b", 2, 6)),
			hints{"leader key is now b"}, ""},
		{"nothing that is known", chunk("{}\n") + chunk(put("b", 2, 6)), hints{"leader key is now b"}, ""},

		{"compaction", chunk(`{"result":{"header":{"raft_term":"2"},"canceled":true,"compact_revision":"4"}}` + "\n"), nil,
			"watching: etcd ended the watch: revisions before 4 were compacted"},
		{"cancelled", chunk(`{"result":{"canceled":true,"cancel_reason":"etcdserver: no leader"}}` + "\n"), nil, "watching: etcd ended the watch: etcdserver: no leader"},
		{"an error of 3.4", chunk(`{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}` + "\n"), nil, "etcd ended the watch: etcdserver: no leader"},
		{"an error without a line break", chunk(`{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}`) + "0\r\n\r\n", nil,
			"etcd ended the watch: etcdserver: no leader"},
		{"an error as text", chunk(`{"error":"transport is closing"}` + "\n"), nil, "etcd ended the watch: transport is closing"},
		{"the end", "0\r\n\r\n", nil, "watching: Layer7 invalid response: closed before the end of the answer"},
		{"cut short", "ff\r\n{", nil, "watching: Layer7 invalid response: closed before the end of the answer"},
		{"garbage for a chunk", "zz\r\n", nil, "watching: Layer7 invalid response: "},
		{"garbage for a message", chunk("hello\n"), nil, "watching: broken JSON"},
		{"a number for a value", chunk(`{"result":{"events":[{"kv":{"value":5}}]}}` + "\n"), nil, "watching: broken JSON"},
		{"an endless message", chunk(strings.Repeat("x", 1<<20)), nil, "watching: a message of more than 64 KiB"},
		{"control characters", chunk(`{"error":"a\nb\u001b[2J\""}` + "\n"), nil, "etcd ended the watch: a?b?[2J'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := playGateway(t, func(c net.Conn, q question, n int) {
				if q.path == pathWatch && n == 1 {
					io.WriteString(c, streamHeader+chunk(created)+tt.stream)
					if tt.err == "" {
						stay(c)
					}
					return
				}
				steady(c, q, n)
			})
			pace := quickly
			pace.reread = time.Hour
			w := watchEtcd(t, pace, nil, g.url)
			for _, want := range tt.hints {
				w.hint(want)
			}
			if tt.err == "" {
				if s := w.connected(); s.Error != "" || s.Changes != uint64(len(tt.hints)) {
					t.Errorf("status %+v", s)
				}
				return
			}
			s := w.until("watched again", func(s EtcdStatus) bool { return s.Endpoint != "" && len(g.questions(pathWatch)) == 2 })
			if !strings.HasPrefix(s.Error, g.url+": ") || !strings.Contains(s.Error, tt.err) {
				t.Errorf("the error is %q, want %q", s.Error, tt.err)
			}
			w.end()
			if log := w.log(); strings.Contains(log, "WARN") {
				t.Errorf("what the next try mends is told as trouble:\n%s", log)
			}
			if q := g.questions(pathWatch); len(q) != 2 || q[1].body != `{"create_request":{"key":"L3BhdHJvbmkvdGVzdC9sZWFkZXI=","start_revision":"6"}}` || q[1].hasLeader != "true" {
				t.Errorf("watches were asked for with %+v", q)
			}
		})
	}
}

// Members that are of no use: one line in the log, however often they are tried.
func testEtcdBadMembers(t *testing.T) {
	t.Parallel()
	// What is not read waits in the sockets' buffers, a few MB.
	drown := func(c net.Conn) {
		block := []byte(strings.Repeat("x", 32<<10))
		for n := 0; n < 16<<20; {
			more, err := c.Write(block)
			if n += more; err != nil {
				return
			}
		}
		t.Error("16 MB were taken")
	}
	onWatch := func(play func(net.Conn)) script {
		return func(c net.Conn, q question, n int) {
			if q.path == pathWatch {
				play(c)
				return
			}
			steady(c, q, n)
		}
	}
	always := func(play func(net.Conn)) script { return func(c net.Conn, _ question, _ int) { play(c) } }
	say := func(text string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, text) } }
	const reading = "reading /patroni/test/leader: "
	const opening = "opening a watch on /patroni/test/leader: "
	tests := []struct {
		name string
		play script
		want string
	}{
		{"says nothing", always(stay), reading + "Layer7 timeout"},
		{"closes", always(func(net.Conn) {}), reading + "Layer7 invalid response: closed before the end of the answer"},
		{"garbage", always(say("\x00\x01\r\n\r\n")), reading + "Layer7 invalid response: "},
		{"no gateway", always(say("HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n")), reading + "404 page not found, status 404"},
		{"no words", always(say("HTTP/1.1 501 X\r\nContent-Length: 0\r\n\r\n")), reading + "status 501"},
		{"no body", always(say("HTTP/1.1 204 X\r\n\r\n")), reading + "status 204"},
		{"not JSON", always(say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")), reading + "broken JSON"},
		{"not etcd", always(say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")), reading + "the answer is not etcd's"},
		{"its own words", always(func(c net.Conn) {
			reply(c, 503, `{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}`)
		}), reading + "etcdserver: no leader, status 503"},
		{"endless", always(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); drown(c) }), reading + "Layer7 invalid response: an answer of more than 64 KiB"},
		{"an endless header", always(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); drown(c) }), reading + "Layer7 invalid response: a header of more than 8 KiB"},
		{"no watch", onWatch(func(c net.Conn) { reply(c, 403, `{"error":"no"}`) }), opening + "no, status 403"},
		{"a watch without a body", onWatch(say("HTTP/1.1 204 X\r\n\r\n")), opening + "status 204"},
		{"a watch that is not opened", onWatch(func(c net.Conn) { io.WriteString(c, streamHeader); stay(c) }), opening + "Layer7 timeout"},
		{"a watch of another kind", onWatch(func(c net.Conn) { io.WriteString(c, streamHeader+chunk("{}\n")); stay(c) }), opening + "the answer is not etcd's"},
		{"a watch that is refused", onWatch(func(c net.Conn) {
			io.WriteString(c, streamHeader+chunk(`{"result":{"watch_id":"-1","created":true,"canceled":true,"cancel_reason":"rpc error: code = PermissionDenied"}}`+"\n"))
		}), opening + "etcd ended the watch: rpc error: code = PermissionDenied"},
		{"an endless refusal of a watch", onWatch(func(c net.Conn) { io.WriteString(c, "HTTP/1.1 500 X\r\n\r\n"); drown(c) }), opening + "x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pace := quickly
			if strings.HasSuffix(tt.want, "timeout") {
				pace.question = 300 * ms
			}
			g := playGateway(t, tt.play)
			w := watchEtcd(t, pace, nil, g.url)
			w.logged("no hints from etcd: " + g.url + ": " + tt.want)
			w.until("tried again", func(EtcdStatus) bool { return len(g.questions(pathRange)) >= 3 })
			if s := w.Status(); s.Endpoint != "" || !strings.HasPrefix(s.Error, g.url+": "+tt.want) {
				t.Errorf("status %+v", s)
			}
			w.end()
			if log := w.log(); strings.Count(log, "\n") != 1 {
				t.Errorf("log\n%s", log)
			}
		})
	}
}

// A watch that died in silence: a read finds the change, and the watch is opened anew.
func testEtcdSilentWatch(t *testing.T) {
	t.Parallel()
	var changed atomic.Bool
	g := playGateway(t, func(c net.Conn, q question, n int) {
		if q.path == pathRange && changed.Load() {
			reply(c, 200, stored(8, kv("b", 7, 7)))
			return
		}
		steady(c, q, n)
	})
	w := watchEtcd(t, quickly, nil, g.url)
	w.logged("is watched at")
	changed.Store(true)
	w.hint("leader key is now b")
	w.until("watched anew", func(s EtcdStatus) bool { return s.Endpoint != "" && s.Error == g.url+": "+errMissed.Error() })
	if q := g.questions(pathWatch); len(q) != 2 || !strings.Contains(q[1].body, `"start_revision":"9"`) {
		t.Errorf("watches were asked for with %+v", q)
	}
	w.quiet(50 * ms)
}

// A watch that is only a little later than a read goes on.
func testEtcdLateWatch(t *testing.T) {
	t.Parallel()
	read := make(chan bool)
	g := playGateway(t, func(c net.Conn, q question, n int) {
		switch {
		case q.path == pathRange && n == 2:
			reply(c, 200, stored(8, kv("b", 7, 7)))
			close(read)
		case q.path == pathRange && n > 2:
			reply(c, 200, stored(8, kv("b", 7, 7)))
		case q.path == pathWatch && n == 1:
			io.WriteString(c, streamHeader+chunk(created))
			<-read
			time.Sleep(20 * ms) // most likely later than the read, and well within the grace
			io.WriteString(c, chunk(put("b", 7, 7)))
			stay(c)
		default:
			steady(c, q, n)
		}
	})
	pace := quickly
	pace.grace, pace.question, pace.reread = 600*ms, 500*ms, 20*ms
	w := watchEtcd(t, pace, nil, g.url)
	w.hint("leader key is now b")
	// It outlives the limit of its opening, too.
	w.until("read often", func(EtcdStatus) bool { return len(g.questions(pathRange)) > 14 })
	w.quiet(0)
	if s := w.Status(); s.Error != "" || len(g.questions(pathWatch)) != 1 {
		t.Errorf("status %+v, %d watches", s, len(g.questions(pathWatch)))
	}
}

// The next member is taken where one fails, and nothing is said of trouble.
func testEtcdNextMember(t *testing.T) {
	t.Parallel()
	dead := "http://" + freePort(t) // refuses
	cut := make(chan bool)
	mortal := func(c net.Conn, q question, n int) {
		if q.path == pathWatch {
			io.WriteString(c, streamHeader+chunk(created))
			<-cut
			return
		}
		steady(c, q, n)
	}
	first, second := playGateway(t, mortal), playGateway(t, mortal)
	w := watchEtcd(t, quickly, nil, dead, first.url, second.url)
	t.Cleanup(func() { close(cut) })
	w.logged("is watched at " + first.url)
	const cause = ": watching: Layer7 invalid response: closed before the end of the answer"
	for i, next := range []struct{ was, now string }{{first.url, second.url}, {second.url, first.url}, {first.url, second.url}} {
		cut <- true
		w.until("at the next one", func(s EtcdStatus) bool { return s.Endpoint == next.now && strings.Count(w.log(), "\n") == i+2 })
		if log := w.log(); !strings.Contains(log, "is watched at "+next.now+" now; "+next.was+cause) || strings.Contains(log, "WARN") {
			t.Errorf("log\n%s", log)
		}
	}
	if s := w.Status(); s.Leader != "a" || s.Changes != 0 {
		t.Errorf("status %+v", s)
	}
}

// A key that was there and is gone is no wrong setting: a leader has died.
func testEtcdKeyIsGone(t *testing.T) {
	t.Parallel()
	g := playGateway(t, func(c net.Conn, q question, n int) {
		switch {
		case q.path == pathRange && n > 1:
			reply(c, 200, stored(6, ""))
		case q.path == pathWatch && n == 1:
			io.WriteString(c, streamHeader+chunk(created)+chunk(deleted(6)))
		default:
			steady(c, q, n)
		}
	})
	w := watchEtcd(t, quickly, nil, g.url)
	w.hint("leader key is gone, was a")
	w.logged(testKey + " is watched at " + g.url + ", no such key")
	if s := w.Status(); s.There || !s.Known || strings.Contains(w.log(), "etcd has no key") {
		t.Errorf("status %+v, log\n%s", s, w.log())
	}
}

// A token that is refused is renewed, and the watch stays.
func testEtcdToken(t *testing.T) {
	t.Parallel()
	var valid atomic.Int32
	g := playGateway(t, func(c net.Conn, q question, n int) {
		switch {
		case q.path == pathAuthenticate:
			valid.Store(int32(n))
			reply(c, 200, fmt.Sprintf(`{"header":{},"token":"t.%d"}`, n))
		case q.authorization != fmt.Sprintf("t.%d", valid.Load()):
			reply(c, 401, `{"error":"etcdserver: invalid auth token","code":16}`)
		case q.path == pathRange && n == 3:
			valid.Store(-1) // this token is the last that was good
			reply(c, 400, `{"error":"etcdserver: revision of auth store is old","code":3}`)
		default:
			steady(c, q, n)
		}
	})
	w := watchEtcd(t, quickly, password(t, "s3cret\"pass"), g.url)
	w.until("renewed", func(EtcdStatus) bool {
		return len(g.questions(pathAuthenticate)) == 2 && len(g.questions(pathRange)) > 4
	})
	if s := w.Status(); s.Error != "" || len(g.questions(pathWatch)) != 1 {
		t.Errorf("status %+v, %d watches", s, len(g.questions(pathWatch)))
	}
	if q := g.questions(pathAuthenticate); q[0].body != `{"name":"u","password":"s3cret\"pass"}` || q[0].authorization != "" {
		t.Errorf("authenticated with %+v", q[0])
	}
}

// password makes settings with a user.
func password(t testing.TB, text string) func(*config.DCS) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(text+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *config.DCS) { c.User, c.PasswordFile = "u", file }
}

// Whoever stands between may send back what it got; the log does not have it.
func testEtcdPasswordIsNotTold(t *testing.T) {
	t.Parallel()
	for _, answer := range []func(c net.Conn, q question){
		func(c net.Conn, q question) {
			reply(c, 400, `{"error":"invalid: `+strings.ReplaceAll(q.body, `"`, `'`)+`"}`)
		},
		func(c net.Conn, q question) { reply(c, 502, "cannot forward "+q.body) },
		func(c net.Conn, q question) { reply(c, 200, q.body) },
		func(c net.Conn, q question) { io.WriteString(c, "HTTP/1.1 "+q.body+"\r\n\r\n") },
	} {
		g := playGateway(t, func(c net.Conn, q question, _ int) { answer(c, q) })
		w := watchEtcd(t, quickly, password(t, "s3cret"), g.url)
		w.logged("no hints from etcd: " + g.url + ": authenticating as u: ")
		if text := w.log() + w.Status().Error; strings.Contains(text, "s3cret") {
			t.Errorf("the password is told: %s", text)
		}
		w.end()
	}
}

// However far it is, it ends at once and leaves nothing behind.
func testEtcdEnds(t *testing.T) {
	t.Parallel()
	reached := make(chan bool, 10)
	wait := func(c net.Conn) { reached <- true; stay(c) }
	tests := []struct {
		name string
		play script
	}{
		{"reading", func(c net.Conn, _ question, _ int) { wait(c) }},
		{"opening a watch", func(c net.Conn, q question, n int) {
			if q.path == pathWatch {
				wait(c)
			}
			steady(c, q, n)
		}},
		{"watching", func(c net.Conn, q question, n int) {
			if q.path == pathWatch {
				io.WriteString(c, streamHeader+chunk(created))
				wait(c)
			}
			steady(c, q, n)
		}},
		{"reading again", func(c net.Conn, q question, n int) {
			if q.path == pathRange && n == 2 {
				wait(c)
			}
			steady(c, q, n)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pace := quickly
			pace.question = time.Minute
			w := watchEtcd(t, pace, nil, playGateway(t, tt.play).url)
			<-reached
			start := time.Now()
			w.end()
			if took := time.Since(start); took > time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	t.Run("handshake", func(t *testing.T) {
		p := serve(t, wait)
		w := watchEtcd(t, quickly, func(c *config.DCS) { c.Insecure = true }, "https://"+p.addr.String())
		<-reached
		w.end()
	})
	t.Run("connect", func(t *testing.T) {
		w := watchEtcd(t, quickly, nil, "http://"+silent(t).String())
		w.end()
	})
}

// The kernel finds a host that vanished behind a silent watch.
func TestEtcdWatchIsKeptAlive(t *testing.T) {
	leaktest.Check(t)
	p := playGateway(t, steady)
	g := &gateway{member: &etcdMember{addr: strings.TrimPrefix(p.url, "http://"), host: "etcd"}, key: []byte(testKey), limit: 5 * time.Second}
	w, err := g.watch(t.Context(), 6)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	raw, err := w.tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, o := range []struct{ level, option, want int }{
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 10},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 2}, {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
		} {
			if got, err := syscall.GetsockoptInt(int(fd), o.level, o.option); err != nil || got != o.want {
				t.Errorf("socket option %d is %d, %v; want %d", o.option, got, err, o.want)
			}
		}
	})
}
