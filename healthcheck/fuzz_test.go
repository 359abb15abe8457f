package healthcheck

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/valyala/fasthttp"

	"pointsman/config"
)

// Whatever a REST server sends: no panic, no judgement beyond the rules, no
// text that is unfit for a log, and the same however the bytes come in pieces.
func FuzzHTTPAnswer(f *testing.F) {
	for _, text := range []string{
		patroni(200, "primary", "running", 5), patroni(503, "replica", "running", 5), patroni(200, "replica", "starting", 0),
		"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "garbage\r\n\r\n", "",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nSet-Cookie: a=b\r\nContent-Length: 99999999999999\r\n\r\n{",
	} {
		f.Add([]byte(text), false)
		f.Add([]byte(text), true)
	}
	expect := config.StatusSet{{From: 200, To: 200}}
	f.Fuzz(func(t *testing.T, text []byte, head bool) {
		h := &HTTP{head: head, expect: expect, roles: leaderRoles("/primary")}
		r, err := h.digest(text, false)
		again, errAgain := h.digest(text, true)
		if err != nil && errAgain != nil {
			r.Reason, again.Reason = "", "" // they quote what had come so far
		}
		if r != again || (err == nil) != (errAgain == nil) {
			t.Errorf("whole: %+v %v\nbyte by byte: %+v %v", r, err, again, errAgain)
		}
		if r.OK() && (r.Code != 200 || r.Role != "" && r.Role != "primary" && r.Role != "master" || r.State != "" && r.State != "running") {
			t.Errorf("passed: %+v", r)
		}
		for _, text := range []string{r.Reason, r.Role, r.State} {
			if len(text) > 300 || strings.ContainsAny(text, "\r\n\x00\x1b") {
				t.Errorf("unfit for a log: %q", text)
			}
		}
	})
}

func (h *HTTP) digest(text []byte, byByte bool) (Result, error) {
	resp := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(resp)
	resp.SkipBody = h.head
	var err error
	if byByte {
		err = read(resp, iotest.OneByteReader(bytes.NewReader(text)))
	} else {
		err = read(resp, bytes.NewReader(text))
	}
	if err != nil {
		return fault(layer7, err), err
	}
	return h.judge(resp.StatusCode(), resp.Header.StatusMessage(), resp.Body()), nil
}

func FuzzPgSQLAnswer(f *testing.F) {
	f.Add([]byte(message('R', "\x00\x00\x00\x00")))
	f.Add([]byte(refusal("57P03", "the database system is starting up")))
	f.Add([]byte("E\x00\x00\x00\x05C"))
	f.Fuzz(func(t *testing.T, text []byte) {
		kind, body, err := readMessage(bytes.NewReader(text))
		if err != nil {
			return
		}
		r, err := judgeAnswer(kind, body)
		if err == nil && (r.Class != Passed && r.Class != Status || len(r.Reason) > 300 || strings.ContainsAny(r.Reason, "\r\n\x00\x1b")) {
			t.Errorf("%+v", r)
		}
	})
}

// One probe of a server on loopback, the server's part included.
func BenchmarkProbe(b *testing.B) {
	rest := serve(b, answer(patroni(200, "primary", "running", 5)))
	sql := serve(b, answer(""))
	for name, run := range map[string]struct {
		p    Prober
		addr *peer
	}{"http": {httpProber(b), rest}, "tcp": {TCP{}, sql}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := run.p.Probe(b.Context(), run.addr.addr, time.Now().Add(5*time.Second)); !r.OK() {
					b.Fatal(r.Reason)
				}
			}
		})
	}
}

// The judgement of one answer, without any network.
func BenchmarkJudge(b *testing.B) {
	_, body, _ := strings.Cut(patroni(200, "primary", "running", 5), "\r\n\r\n")
	h := httpProber(b).(*HTTP)
	b.ReportAllocs()
	for b.Loop() {
		if r := h.judge(200, []byte("OK"), []byte(body)); !r.OK() {
			b.Fatal(r.Reason)
		}
	}
}
