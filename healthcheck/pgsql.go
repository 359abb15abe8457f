package healthcheck

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// PgSQL passes when the server answers a StartupMessage with anything
// well-formed: a demand for a password, or an error such as "no such user". A
// server that is starting up or shutting down says so with an error of class
// 57P, and does not pass.
type PgSQL struct {
	opening []byte
}

// NewPgSQL returns a prober that announces that user. It need not exist.
func NewPgSQL(user string) *PgSQL {
	// https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE
	const protocol3 = 3 << 16
	body := binary.BigEndian.AppendUint32(nil, protocol3)
	body = append(body, "user\x00"+user+"\x00\x00"...)
	opening := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	return &PgSQL{append(opening, body...)}
}

// Probe implements Prober.
func (p *PgSQL) Probe(ctx context.Context, addr netip.AddrPort, deadline time.Time) Result {
	start := time.Now()
	conn, r := connect(ctx, addr, deadline)
	if conn == nil {
		r.Took = time.Since(start)
		return r
	}
	defer conn.Close()
	defer abortWith(ctx, conn)()
	r = p.ask(conn)
	r.Took = time.Since(start)
	if r.Class == Passed || r.Class == Status {
		leave(conn, deadline)
	}
	return r
}

func (p *PgSQL) ask(conn net.Conn) Result {
	if _, err := conn.Write(p.opening); err != nil {
		return fault(layer7, err)
	}
	kind, body, err := readMessage(conn)
	if err != nil {
		return fault(layer7, err)
	}
	r, err := judgeAnswer(kind, body)
	if err != nil {
		return fault(layer7, err)
	}
	return r
}

// leave ends a session so that PostgreSQL logs nothing: with a FIN, after its
// answer was read to the end, since unread bytes would turn the FIN into a reset.
func leave(conn *net.TCPConn, deadline time.Time) {
	const patience = 100 * time.Millisecond // for what is already on its way
	if soon := time.Now().Add(patience); soon.Before(deadline) {
		conn.SetDeadline(soon)
	}
	if conn.CloseWrite() == nil {
		io.CopyN(io.Discard, conn, maxAnswer)
	}
}

// maxMessage is more than any first answer has: an ErrorResponse holds texts,
// an authentication request a few names.
const maxMessage = 8 << 10

// readMessage reads one message of protocol 3: a kind, a length that counts
// itself, and a body.
func readMessage(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[1:])
	if length < 4 || length > maxMessage {
		return 0, nil, fmt.Errorf("not PostgreSQL: %q", head[:])
	}
	body = make([]byte, length-4)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// judgeAnswer says what the first message means. An error means that it is not
// one that PostgreSQL would send.
func judgeAnswer(kind byte, body []byte) (Result, error) {
	switch {
	case kind == 'R' && len(body) >= 4, // Authentication…
		kind == 'N', // NoticeResponse
		kind == 'v': // NegotiateProtocolVersion
		return Result{Class: Passed, Reason: "Layer7 check passed"}, nil
	case kind == 'E': // ErrorResponse
	default:
		return Result{}, fmt.Errorf("unexpected message %q", kind)
	}
	code, message := errorFields(body)
	if code == "" {
		return Result{}, errors.New("an error without a code")
	}
	info := fmt.Sprintf(", code: %s, info: %q", code, message)
	switch code {
	// https://www.postgresql.org/docs/current/errcodes-appendix.html: admin_shutdown,
	// crash_shutdown, cannot_connect_now
	case "57P01", "57P02", "57P03":
		return Result{Class: Status, Reason: "Layer7 wrong status" + info}, nil
	}
	return Result{Class: Passed, Reason: "Layer7 check passed" + info}, nil
}

// errorFields picks SQLSTATE and message out of an ErrorResponse: fields of a
// kind and a text that ends with a NUL, and a NUL after the last.
func errorFields(body []byte) (code, message string) {
	for len(body) > 0 && body[0] != 0 {
		kind := body[0]
		text, rest, ok := bytes.Cut(body[1:], []byte{0})
		if !ok {
			break
		}
		switch kind {
		case 'C':
			code = printable(string(text), 5)
		case 'M':
			message = printable(string(text), maxText)
		}
		body = rest
	}
	return code, message
}
