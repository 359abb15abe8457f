package pgwire

import (
	"bytes"
	"encoding/binary"
)

// MaxUndecided is the most bytes that Reply wants to see at once. An ordinary
// login answers with half a kilobyte; what is far beyond that is no opening
// that we understand, and shall not wait in our memory.
const MaxUndecided = 32 << 10

// Verdict is what a server's bytes so far mean.
type Verdict uint8

// The verdicts. All but Undecided stay what they are when more bytes come.
const (
	// Undecided: more bytes must come, and none may be passed on yet.
	Undecided Verdict = iota
	// Declined: no encryption. Pass n bytes on; the client speaks next, in clear text.
	Declined
	// Asks: authentication goes on. Pass n bytes on, which are whole messages.
	// The client speaks next, as a rule: with GSSAPI the server may go on at
	// once, so what came behind the n bytes is judged by the next Reply.
	Asks
	// Open: understanding ends, pass on whatever comes. Encryption begins, the
	// server is ready for queries, or an error is the client's own business.
	Open
	// Unavailable: the server takes no sessions now.
	Unavailable
	// Standby: the session would be on a server in hot standby, and cannot
	// write. Servers before PostgreSQL 14 do not say so.
	Standby
)

var verdictNames = [...]string{"undecided", "declined", "asks", "open", "unavailable", "standby"}

// String is the verdict in a word.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "unknown"
}

// Reply judges what a server has said to r so far. b begins where the bytes
// ended that were passed on last, so at a message's first byte. n is how many
// bytes may be passed on; it is 0 unless the verdict is Declined or Asks.
func Reply(r Request, b []byte) (v Verdict, n int) {
	switch r {
	case Startup:
		return replyToStartup(b)
	case SSL, GSS:
		switch {
		case len(b) == 0:
			return Undecided, 0
		case b[0] == 'N':
			return Declined, 1
		case b[0] == 'E': // a server that knows no such request, or is out of processes
			return replyToStartup(b)
		}
	}
	return Open, 0
}

// Codes of Authentication messages; AUTH_REQ_* of src/include/libpq/protocol.h.
const (
	authOK        = 0
	authSASLFinal = 12
)

// messageHeader is a type, and a length that counts itself and not the type.
const messageHeader = 5

// replyToStartup walks over the messages that decide nothing.
//
// PostgreSQL flushes neither AuthenticationSASLFinal nor AuthenticationOk before
// ReadyForQuery (sendAuthRequest in src/backend/libpq/auth.c), so waiting for
// what follows them costs nothing.
func replyToStartup(b []byte) (Verdict, int) {
	standby := false
	for at := 0; len(b)-at >= messageHeader; {
		length := binary.BigEndian.Uint32(b[at+1:])
		if length < messageHeader-1 || length > MaxUndecided {
			return Open, 0 // errors of protocol 2 too: they have no length, and int may have 32 bits
		}
		end := at + 1 + int(length)
		if end > MaxUndecided {
			return Open, 0
		}
		body, whole := b[at+messageHeader:min(end, len(b))], end <= len(b)
		switch b[at] {
		case 'E': // ErrorResponse
			return judgeError(body, whole), 0
		case 'R': // Authentication
			code, told := authCode(body)
			switch {
			case length < 8:
				return Open, 0
			case told && code != authOK && code != authSASLFinal && whole:
				return Asks, end
			}
		case 'S': // ParameterStatus
			if whole {
				standby = hotStandby(body, standby)
			}
		case 'K', 'N', 'v': // BackendKeyData, NoticeResponse, NegotiateProtocolVersion
		case 'Z': // ReadyForQuery
			switch {
			case whole && standby:
				return Standby, 0
			case whole:
				return Open, 0
			}
		default:
			return Open, 0
		}
		if !whole {
			return Undecided, 0
		}
		at = end
	}
	return Undecided, 0
}

// authCode is what an Authentication message says, as soon as it does.
func authCode(body []byte) (code uint32, told bool) {
	if len(body) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(body), true
}

// hotStandby is what a ParameterStatus says about it: or else, what was known.
func hotStandby(body []byte, known bool) bool {
	value, ok := bytes.CutPrefix(body, []byte("in_hot_standby\x00"))
	if !ok {
		return known
	}
	return string(value) == "on\x00"
}

// judgeError waits for an error's SQLSTATE, or its end.
func judgeError(fields []byte, whole bool) Verdict {
	for len(fields) > 0 && fields[0] != 0 {
		value, rest, found := bytes.Cut(fields[1:], zero)
		switch {
		case !found && !whole:
			return Undecided
		case fields[0] == 'C' && unavailable(value):
			return Unavailable
		case fields[0] == 'C':
			return Open
		}
		fields = rest
	}
	if len(fields) == 0 && !whole {
		return Undecided
	}
	return Open
}

// CannotConnectNow is the SQLSTATE of a server that is starting up, shutting
// down or in recovery. src/backend/utils/errcodes.txt has them all.
const CannotConnectNow = "57P03"

const (
	adminShutdown = "57P01" // ended by the server's operator, while it opened
	crashShutdown = "57P02" // ended because another session crashed
)

func unavailable(sqlstate []byte) bool {
	switch string(sqlstate) {
	case CannotConnectNow, adminShutdown, crashShutdown:
		return true
	}
	return false
}
