package healthcheck

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"pointsman/config"
)

// HTTP asks a REST API, usually Patroni's. It passes when the status is among
// the expected, the body holds the wanted text, and, for a URI that tells who
// leads, the role and state in Patroni's JSON agree: then it is a claim to lead.
//
// Each probe is one request on a connection of its own, without retries,
// redirects or decompression. Only fasthttp's messages are used, not its
// client: that one retries and keeps connections, and one of it would be
// needed for each address that a server has had.
type HTTP struct {
	request []byte // as it goes over the wire
	head    bool   // the answer has no body, whatever its header says
	expect  config.StatusSet
	body    []byte      // must be in the answer's body
	roles   []string    // of a leader, where the URI asks for one; nil = not judged
	tls     *tls.Config // nil = plain
}

const (
	maxAnswer = 64 << 10 // bytes of one answer, header and body
	maxHeader = 8 << 10  // of its header; Patroni's has 150
)

var errTooLong = errors.New("an answer of more than 64 KiB")

// Probe implements Prober.
func (h *HTTP) Probe(ctx context.Context, addr netip.AddrPort, deadline time.Time) Result {
	start := time.Now()
	r := h.ask(ctx, addr, deadline)
	r.Took = time.Since(start)
	return r
}

func (h *HTTP) ask(ctx context.Context, addr netip.AddrPort, deadline time.Time) Result {
	tcp, r := connect(ctx, addr, deadline)
	if tcp == nil {
		return r
	}
	defer tcp.Close() // of TLS too: its own Close may wait 5 s to say goodbye
	defer abortWith(ctx, tcp)()

	var conn net.Conn = tcp
	if h.tls != nil {
		secured := tls.Client(tcp, h.tls)
		if err := secured.Handshake(); err != nil {
			return fault(layer6, err)
		}
		conn = secured
	}
	if _, err := conn.Write(h.request); err != nil {
		return fault(layerOf(err), err)
	}

	resp := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(resp)
	resp.SkipBody = h.head
	if err := read(resp, conn); err != nil {
		return fault(layerOf(err), err)
	}
	return h.judge(resp.StatusCode(), resp.Header.StatusMessage(), resp.Body())
}

// layerOf tells a TLS alert from other errors: with TLS 1.3 a server refuses a
// client's certificate only after the handshake.
func layerOf(err error) layer {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return layer6
	}
	return layer7
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, maxHeader) }}

// read fills resp from conn, and returns what stopped it.
func read(resp *fasthttp.Response, conn io.Reader) error {
	meter := &meter{r: conn, left: maxAnswer}
	br := readers.Get().(*bufio.Reader)
	br.Reset(meter)
	err := resp.ReadLimitBody(br, maxAnswer)
	br.Reset(nil)
	readers.Put(br)
	return meter.explain(err)
}

// explain returns what stopped fasthttp: what the connection said, where it
// said something.
func (m *meter) explain(err error) error {
	var tooSmall *fasthttp.ErrSmallBuffer
	switch {
	case err == nil:
		return nil
	case m.err != nil:
		return m.err
	case errors.As(err, &tooSmall):
		return errors.New("a header of more than 8 KiB")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return errTooLong
	}
	// fasthttp says what it was reading, then what is wrong, then the bytes.
	if inner := errors.Unwrap(err); inner != nil {
		err = inner
	}
	return err
}

// meter bounds how much is read, and keeps the first error: fasthttp reports
// some of them as others.
type meter struct {
	r    io.Reader
	left int // negative = without bound
	err  error
}

func (m *meter) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if m.left == 0 {
		m.err = errTooLong
		return 0, m.err
	}
	if m.left > 0 {
		p = p[:min(len(p), m.left)]
	}
	n, err := m.r.Read(p)
	if m.left > 0 {
		m.left -= n
	}
	m.err = err
	return n, err
}

// judge says what a whole answer means.
func (h *HTTP) judge(code int, info, body []byte) Result {
	m, err := readMember(body)
	r := Result{Class: Status, Code: code, Role: m.role, State: m.state, Timeline: m.timeline}
	verdict := "wrong status"
	switch {
	case !h.expect.Contains(code):
	case !bytes.Contains(body, h.body):
		verdict = "wrong body"
	case h.roles == nil:
		r.Class, verdict = Passed, "check passed"
	case err != nil:
		r.Class, verdict = Protocol, "invalid response: "+err.Error()
	default:
		if doubt := m.doubt(h.roles); doubt != "" {
			r.Promoting = m.promoting(h.roles)
			r.Reason = "Layer7 " + doubt + ", code: " + strconv.Itoa(code) + timelineText(m.timeline)
			return r
		}
		r.Class, verdict = Passed, "check passed"
	}
	r.Reason = fmt.Sprintf("Layer7 %s, code: %d", verdict, code)
	if len(info) > 0 {
		r.Reason += `, info: "` + printable(string(info), maxText) + `"`
	}
	if m.role != "" {
		r.Reason += ", role: " + m.role
	}
	if m.state != "" && m.state != "running" {
		r.Reason += ", state: " + m.state
	}
	r.Reason += timelineText(m.timeline)
	return r
}

func timelineText(timeline uint32) string {
	if timeline == 0 {
		return ""
	}
	return ", timeline: " + strconv.FormatUint(uint64(timeline), 10)
}
