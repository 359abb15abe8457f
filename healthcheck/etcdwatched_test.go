package healthcheck

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pointsman/config"
)

const testKey = "/patroni/test/leader"

// watched is a running Etcd, its hints and its log.
type watched struct {
	*Etcd
	t     testing.TB
	hints chan string
	mu    sync.Mutex
	text  bytes.Buffer
	end   func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watched) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// quickly is a pace for tests: what takes seconds, takes tens of milliseconds.
var quickly = etcdPace{question: 2 * time.Second, reread: 50 * ms, grace: 50 * ms, settle: 20 * ms, first: 10 * ms, most: 40 * ms}

func watchEtcd(t testing.TB, pace etcdPace, edit func(*config.DCS), urls ...string) *watched {
	t.Helper()
	c := config.NewDCS("etcd")
	c.Scope, c.Namespace = "test", "/patroni"
	for _, url := range urls {
		if err := config.Lookup("dcs").Key("endpoint").Set(&c, url); err != nil {
			t.Fatal(err)
		}
	}
	if edit != nil {
		edit(&c)
	}
	w := &watched{t: t, hints: make(chan string, 1000)}
	var err error
	w.Etcd, err = NewEtcd(&c, slog.New(slog.NewTextHandler(w, nil)), func(_ context.Context, what string) { w.hints <- what })
	if err != nil {
		t.Fatal(err)
	}
	w.pace = pace
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	w.end = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * time.Second):
			t.Error("the watch does not end")
		}
	})
	t.Cleanup(w.end)
	return w
}

// until waits for a state, and fails the test where that does not come.
func (w *watched) until(what string, is func(EtcdStatus) bool) EtcdStatus {
	w.t.Helper()
	for limit := time.Now().Add(5 * time.Second); ; time.Sleep(ms) {
		s := w.Status()
		if is(s) {
			return s
		}
		if time.Now().After(limit) {
			w.t.Fatalf("never %s: %+v\n%s", what, s, w.log())
		}
	}
}

func (w *watched) connected() EtcdStatus {
	w.t.Helper()
	return w.until("connected", func(s EtcdStatus) bool { return s.Endpoint != "" })
}

func (w *watched) logged(text string) {
	w.t.Helper()
	w.until("in the log: "+text, func(EtcdStatus) bool { return strings.Contains(w.log(), text) })
}

// hint waits for the next hint.
func (w *watched) hint(want string) {
	w.t.Helper()
	select {
	case got := <-w.hints:
		if got != want {
			w.t.Errorf("the hint is %q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		w.t.Fatalf("no hint, want %q: %+v\n%s", want, w.Status(), w.log())
	}
}

func (w *watched) quiet(d time.Duration) {
	w.t.Helper()
	select {
	case got := <-w.hints:
		w.t.Errorf("hint %q, want none", got)
	case <-time.After(d):
	}
}

// unconnected is an Etcd that was never run, and logs to w.
func unconnected(w *watched) *Etcd {
	return &Etcd{pace: defaultEtcdPace, log: slog.New(slog.NewTextHandler(w, nil))}
}

// question is a request as a gateway gets it.
type question struct{ path, authorization, hasLeader, body string }

// script plays a gateway: it gets each question with its number among those of its path, from 1.
type script func(c net.Conn, q question, n int)

// gatewayPeer is a member of etcd on loopback.
type gatewayPeer struct {
	url   string
	mu    sync.Mutex
	asked map[string][]question // by path
}

func playGateway(t testing.TB, play script) *gatewayPeer {
	t.Helper()
	g := &gatewayPeer{asked: map[string][]question{}}
	p := serve(t, func(c net.Conn) {
		r := textproto.NewReader(bufio.NewReader(c))
		line, err := r.ReadLine()
		header, err2 := r.ReadMIMEHeader()
		if err != nil || err2 != nil {
			return
		}
		n, _ := strconv.Atoi(header.Get("Content-Length"))
		body := make([]byte, n)
		if _, err := io.ReadFull(r.R, body); err != nil {
			return
		}
		q := question{strings.Fields(line)[1], header.Get("Authorization"), header.Get("Grpc-Metadata-Hasleader"), string(body)}
		g.mu.Lock()
		g.asked[q.path] = append(g.asked[q.path], q)
		count := len(g.asked[q.path])
		g.mu.Unlock()
		play(c, q, count)
	})
	g.url = "http://" + p.addr.String()
	return g
}

func (g *gatewayPeer) questions(path string) []question {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]question(nil), g.asked[path]...)
}

func reply(c net.Conn, code int, body string) {
	fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", code, len(body), body)
}

// kv is etcd's words for the leader's key; the values are base64 of a, b and c.
func kv(leader string, created, modified int) string {
	return fmt.Sprintf(`{"key":"L3BhdHJvbmkvdGVzdC9sZWFkZXI=","create_revision":"%d","mod_revision":"%d","version":"1","value":"%s"}`,
		created, modified, map[string]string{"a": "YQ==", "b": "Yg==", "c": "Yw=="}[leader])
}

// stored is the answer to a read.
func stored(revision int, kvs string) string {
	return fmt.Sprintf(`{"header":{"cluster_id":"1","revision":"%d","raft_term":"2"},"kvs":[%s],"count":"1"}`, revision, kvs)
}

const (
	streamHeader = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	created      = `{"result":{"header":{"revision":"5"},"created":true}}` + "\n"
)

func put(leader string, made, modified int) string {
	return `{"result":{"header":{"revision":"9"},"events":[{"kv":` + kv(leader, made, modified) + `}]}}` + "\n"
}

func deleted(modified int) string {
	return fmt.Sprintf(`{"result":{"events":[{"type":"DELETE","kv":{"key":"eA==","mod_revision":"%d"}}]}}`+"\n", modified)
}

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// steady answers reads with leader a at revision 5, and opens watches that stay silent.
func steady(c net.Conn, q question, _ int) {
	switch q.path {
	case pathRange:
		reply(c, 200, stored(5, kv("a", 2, 5)))
	case pathWatch:
		io.WriteString(c, streamHeader+chunk(created))
		stay(c)
	}
}
