package healthcheck

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// maxChange bounds one message of a watch. One of Patroni's has 300 bytes.
const maxChange = 64 << 10

// A watch that is silent for so long is asked for a sign of life by the
// kernel, and given up after some that remain unanswered: 16 s in all.
var watchKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 2 * time.Second, Count: 3}

// The parts of a watch's messages that matter.
type (
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
	w.lines.Split(wholeLine)
	a, err := w.message()
	if err == nil && !a.Result.Created {
		err = errors.New("the answer is not etcd's")
	}
	return err
}

// wholeLine is a bufio.SplitFunc. Behind the last line break it takes only what
// is a whole message: the gateway ends an error, its last, with none.
func wholeLine(data []byte, atEnd bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEnd && json.Valid(data) {
		return len(data), data, nil
	}
	return 0, nil, nil
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
	line, err := w.line()
	if err != nil {
		return nil, err
	}
	a := &watchAnswer{}
	if json.Unmarshal(line, a) != nil {
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

// line returns the next line that is not empty.
func (w *etcdWatch) line() ([]byte, error) {
	for w.lines.Scan() {
		if line := bytes.TrimSpace(w.lines.Bytes()); len(line) > 0 {
			return line, nil
		}
	}
	err := w.lines.Err()
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, errors.New("a message of more than 64 KiB")
	case err == nil:
		err = io.EOF
	}
	return nil, broken(w.meter.explain(err))
}

// close ends the watch, also under a next that waits.
func (w *etcdWatch) close() { w.tcp.Close() }
