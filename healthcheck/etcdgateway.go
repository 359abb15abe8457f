package healthcheck

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
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

// etcdMember is one member of an etcd cluster, as a client sees it.
type etcdMember struct {
	url  string      // for people
	addr string      // HOST:PORT to connect to
	host string      // the same, as its own requests name it
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
	switch {
	case err != nil:
		return fmt.Errorf("authenticating as %s: %w", g.user, withoutEcho(err))
	case a.Token == "":
		return fmt.Errorf("authenticating as %s: the answer has no token", g.user)
	}
	g.token = a.Token
	return nil
}

// withoutEcho keeps out of an error what an answer may have told of the
// question: the password. etcd's own words do not; whoever is in between may.
func withoutEcho(err error) error {
	const unread = string(layer7) + " invalid response"
	var no *etcdRefusal
	switch {
	case errors.As(err, &no):
		if !strings.HasPrefix(no.text, "etcdserver: ") && !strings.HasPrefix(no.text, "CommonName ") {
			return &etcdRefusal{code: no.code}
		}
	case strings.HasPrefix(err.Error(), unread):
		return errors.New(unread)
	}
	return err
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
	h.SetHost(g.member.host)
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
