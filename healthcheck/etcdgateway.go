package healthcheck

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// Paths of etcd's JSON gateway since 3.4 (api/etcdserverpb/rpc.proto). A
// stream of messages is a body that does not end, one message a line.
const (
	pathRange        = "/v3/kv/range"
	pathWatch        = "/v3/watch"
	pathAuthenticate = "/v3/auth/authenticate"
)

// maxChange bounds one message of a watch. One of Patroni's has 300 bytes.
const maxChange = 64 << 10

// A watch that is silent for so long is asked for a sign of life by the
// kernel, and given up after some that remain unanswered: 16 s in all.
var watchKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 2 * time.Second, Count: 3}

// etcdMember is one member of an etcd cluster, as a client sees it.
type etcdMember struct {
	url  string      // for people
	addr string      // HOST:PORT
	tls  *tls.Config // nil = plain
}

// gateway speaks etcd's v3 API with one member. Each question has a connection
// of its own, as a probe has: they are rare, and nothing can go stale.
type gateway struct {
	member         *etcdMember
	key            []byte
	user, password string        // "" = no authentication
	token          string        // of the last authentication
	limit          time.Duration // of one question, from the connect to the whole answer
}

// leaderKey is what the leader's key holds. Two that are equal are the same
// reign: who is elected anew, makes the key anew.
type leaderKey struct {
	there   bool
	leader  string // the value
	created int64  // revision in which the key was made
}

// reading is the leader's key and the store's revision at which it was read.
type reading struct {
	key      leaderKey
	revision int64
}

// The parts of etcd's messages that matter. Its numbers of 64 bits are strings.
type (
	etcdHeader struct {
		Revision int64 `json:"revision,string"`
	}
	etcdKeyValue struct {
		Created  int64  `json:"create_revision,string"`
		Modified int64  `json:"mod_revision,string"`
		Value    []byte `json:"value"`
	}
	rangeRequest struct {
		Key []byte `json:"key"`
	}
	rangeAnswer struct {
		Header *etcdHeader    `json:"header"`
		KVs    []etcdKeyValue `json:"kvs"`
	}
	watchRequest struct {
		Create struct {
			Key  []byte `json:"key"`
			From int64  `json:"start_revision,string"`
		} `json:"create_request"`
	}
	watchAnswer struct {
		Result struct {
			Created      bool   `json:"created"`
			Canceled     bool   `json:"canceled"`
			CancelReason string `json:"cancel_reason"`
			Compacted    int64  `json:"compact_revision,string"`
			Events       []struct {
				Type string       `json:"type"` // "" = PUT
				KV   etcdKeyValue `json:"kv"`
			} `json:"events"`
		} `json:"result"`
		Error json.RawMessage `json:"error"`
	}
)

// etcdRefusal is an answer that says no.
type etcdRefusal struct {
	code int
	text string // etcd's own words; "" = none
}

func (r *etcdRefusal) Error() string {
	if r.text == "" {
		return "status " + strconv.Itoa(r.code)
	}
	return printable(r.text, maxText) + ", status " + strconv.Itoa(r.code)
}

// token reports whether the token is to blame: it ended, or its member was
// started again, or users were changed since (etcdserver/api/v3rpc/rpctypes).
func (r *etcdRefusal) token() bool {
	return r.code == fasthttp.StatusUnauthorized || strings.Contains(r.text, "revision of auth store is old")
}

// read asks for the leader's key. The answer is that of the majority: a member
// that is cut off from the others has none.
func (g *gateway) read(ctx context.Context) (reading, error) {
	if g.user != "" && g.token == "" {
		if err := g.authenticate(ctx); err != nil {
			return reading{}, err
		}
	}
	r, err := g.askRange(ctx)
	var no *etcdRefusal
	if g.user != "" && errors.As(err, &no) && no.token() {
		if err := g.authenticate(ctx); err != nil {
			return reading{}, err
		}
		r, err = g.askRange(ctx)
	}
	return r, err
}

func (g *gateway) askRange(ctx context.Context) (reading, error) {
	var a rangeAnswer
	if err := g.ask(ctx, pathRange, rangeRequest{g.key}, &a); err != nil {
		return reading{}, fmt.Errorf("reading %s: %w", g.key, err)
	}
	if a.Header == nil {
		return reading{}, fmt.Errorf("reading %s: the answer is not etcd's", g.key)
	}
	r := reading{revision: a.Header.Revision}
	if len(a.KVs) > 0 {
		r.key = a.KVs[0].leaderKey()
	}
	return r, nil
}

func (kv *etcdKeyValue) leaderKey() leaderKey {
	return leaderKey{there: true, leader: string(kv.Value), created: kv.Created}
}

func (g *gateway) authenticate(ctx context.Context) error {
	g.token = ""
	var a struct {
		Token string `json:"token"`
	}
	err := g.ask(ctx, pathAuthenticate, map[string]string{"name": g.user, "password": g.password}, &a)
	var no *etcdRefusal
	if errors.As(err, &no) && !strings.HasPrefix(no.text, "etcdserver: ") && !strings.HasPrefix(no.text, "CommonName ") {
		no.text = "" // not etcd's: somebody in between may tell what was sent
	}
	switch {
	case err != nil:
		return fmt.Errorf("authenticating as %s: %w", g.user, err)
	case a.Token == "":
		return fmt.Errorf("authenticating as %s: the answer has no token", g.user)
	}
	g.token = a.Token
	return nil
}

// ask puts one question and decodes the answer.
func (g *gateway) ask(ctx context.Context, path string, question, answer any) error {
	// Without keepalive: the deadline is shorter than that.
	conn, tcp, err := g.dial(ctx, net.KeepAliveConfig{})
	if err != nil {
		return err
	}
	defer tcp.Close() // of TLS too: its own Close may wait 5 s to say goodbye
	defer abortWith(ctx, tcp)()
	if err := g.send(conn, path, question); err != nil {
		return err
	}
	resp := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(resp)
	if err := read(resp, conn); err != nil {
		return broken(err)
	}
	if resp.StatusCode() != fasthttp.StatusOK {
		return etcdRefusalOf(resp.StatusCode(), resp.Body())
	}
	if json.Unmarshal(resp.Body(), answer) != nil {
		return errBrokenJSON
	}
	return nil
}

// dial connects, with a deadline on all that follows.
func (g *gateway) dial(ctx context.Context, keep net.KeepAliveConfig) (conn net.Conn, tcp *net.TCPConn, err error) {
	dialer := net.Dialer{Deadline: time.Now().Add(g.limit), KeepAlive: -1, KeepAliveConfig: keep}
	dialer.SetMultipathTCP(false)
	c, err := dialer.DialContext(ctx, "tcp", g.member.addr)
	if err != nil {
		return nil, nil, errors.New(fault(layer4, err).Reason)
	}
	tcp = c.(*net.TCPConn)
	if err := tcp.SetDeadline(dialer.Deadline); err != nil {
		tcp.Close()
		return nil, nil, errors.New(fault(layer4, err).Reason)
	}
	if g.member.tls == nil {
		return tcp, tcp, nil
	}
	secured := tls.Client(tcp, g.member.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		tcp.Close()
		return nil, nil, errors.New(fault(layer6, err).Reason)
	}
	return secured, tcp, nil
}

func (g *gateway) send(conn net.Conn, path string, question any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("writing a question: %w", err)
	}
	req := fasthttp.AcquireRequest()
	defer fasthttp.ReleaseRequest(req)
	h := &req.Header
	h.SetMethod(fasthttp.MethodPost)
	h.SetRequestURI(path)
	h.SetHost(g.member.addr)
	h.SetUserAgent("pointsman")
	h.SetContentType("application/json")
	h.SetContentLength(len(body))
	h.SetConnectionClose()
	// The gateway hands such a header on as metadata: a watch at a member that
	// has lost the others is ended instead of silent (MetadataRequireLeaderKey
	// in etcdserver/api/v3rpc/rpctypes).
	h.Set("Grpc-Metadata-Hasleader", "true")
	if g.token != "" {
		h.Set("Authorization", g.token)
	}
	if _, err := conn.Write(append(h.Header(), body...)); err != nil {
		return broken(err)
	}
	return nil
}

// broken says what became of a connection.
func broken(err error) error { return errors.New(fault(layerOf(err), err).Reason) }

// etcdRefusalOf finds etcd's own words in an answer.
func etcdRefusalOf(code int, body []byte) *etcdRefusal {
	var a struct {
		Message string          `json:"message"`
		Error   json.RawMessage `json:"error"`
	}
	switch {
	case json.Unmarshal(body, &a) != nil:
		a.Message = strings.TrimSpace(string(body)) // what is in front of the gateway speaks plainly
	case a.Message == "":
		a.Message = errorText(a.Error)
	}
	return &etcdRefusal{code, a.Message}
}

// errorText reads the member `error`: text, or in a stream an object.
func errorText(raw json.RawMessage) string {
	var text string
	var object struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	_ = json.Unmarshal(raw, &object)
	return object.Message
}

// etcdWatch is an open watch.
type etcdWatch struct {
	tcp   *net.TCPConn
	meter *meter
	resp  *fasthttp.Response
	lines *bufio.Scanner
}

// etcdEvent is one change of the key, and the revision that made it.
type etcdEvent = reading

// watch opens a watch on the leader's key for what happens from a revision on.
// The watch ends with close; ctx and g.limit bound the opening alone.
func (g *gateway) watch(ctx context.Context, from int64) (*etcdWatch, error) {
	conn, tcp, err := g.dial(ctx, watchKeepAlive)
	if err != nil {
		return nil, err
	}
	defer abortWith(ctx, tcp)()
	w := &etcdWatch{tcp: tcp, meter: &meter{r: conn, left: -1}, resp: &fasthttp.Response{}}
	err = w.open(g, conn, from)
	if err == nil {
		err = tcp.SetDeadline(time.Time{}) // it may be silent for weeks
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("opening a watch on %s: %w", g.key, err)
	}
	return w, nil
}

func (w *etcdWatch) open(g *gateway, conn net.Conn, from int64) error {
	var question watchRequest
	question.Create.Key, question.Create.From = g.key, from
	if err := g.send(conn, pathWatch, question); err != nil {
		return err
	}
	w.resp.StreamBody = true
	if err := w.resp.ReadLimitBody(bufio.NewReaderSize(w.meter, maxHeader), maxChange); err != nil {
		return broken(w.meter.explain(err))
	}
	stream := w.resp.BodyStream() // nil where the status allows no body
	switch code := w.resp.StatusCode(); {
	case stream == nil:
		return etcdRefusalOf(code, nil)
	case code != fasthttp.StatusOK:
		body, _ := io.ReadAll(io.LimitReader(stream, maxChange)) // etcd's words, as far as they came
		return etcdRefusalOf(code, body)
	}
	w.lines = bufio.NewScanner(stream)
	w.lines.Buffer(make([]byte, 0, 512), maxChange)
	a, err := w.message()
	if err == nil && !a.Result.Created {
		err = errors.New("the answer is not etcd's")
	}
	return err
}

// next waits for the next changes: several where one message has them.
func (w *etcdWatch) next() ([]etcdEvent, error) {
	a, err := w.message()
	if err != nil {
		return nil, fmt.Errorf("watching: %w", err)
	}
	var events []etcdEvent
	for i := range a.Result.Events {
		e := &a.Result.Events[i]
		event := etcdEvent{revision: e.KV.Modified}
		if e.Type != "DELETE" {
			event.key = e.KV.leaderKey()
		}
		events = append(events, event)
	}
	return events, nil
}

// message reads one message, and turns one that ends the watch into an error.
func (w *etcdWatch) message() (*watchAnswer, error) {
	if !w.lines.Scan() {
		err := w.lines.Err()
		switch {
		case errors.Is(err, bufio.ErrTooLong):
			return nil, errors.New("a message of more than 64 KiB")
		case err == nil:
			err = io.EOF
		}
		return nil, broken(w.meter.explain(err))
	}
	a := &watchAnswer{}
	if json.Unmarshal(w.lines.Bytes(), a) != nil {
		return nil, errBrokenJSON
	}
	r := &a.Result
	switch {
	case a.Error != nil:
		return nil, fmt.Errorf("etcd ended the watch: %s", printable(errorText(a.Error), maxText))
	case r.Canceled && r.Compacted != 0:
		return nil, fmt.Errorf("etcd ended the watch: revisions before %d were compacted", r.Compacted)
	case r.Canceled:
		return nil, fmt.Errorf("etcd ended the watch: %s", printable(r.CancelReason, maxText))
	}
	return a, nil
}

// close ends the watch, also under a next that waits.
func (w *etcdWatch) close() { w.tcp.Close() }
