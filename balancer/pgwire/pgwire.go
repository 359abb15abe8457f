// Package pgwire understands the opening of a PostgreSQL session: what a client
// asks for, and whether the server that it was connected to takes it. It
// understands nothing after ReadyForQuery, after encryption begins, or after
// anything that it does not know. It looks at bytes that others read and keep,
// and passes no judgement on what clients may do: that is the server's job.
//
// Messages are those of PostgreSQL's protocol 3 (documentation, "Message
// Formats"); rules about their order are from its sources, and named there.
package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxStartup is the longest opening packet in bytes: the length word, and
// MAX_STARTUP_PACKET_LENGTH of src/include/libpq/pqcomm.h, which
// ProcessStartupPacket compares with the length less that word.
const MaxStartup = 4 + 10_000

// HeaderSize is how many bytes tell what an opening packet is, and how long:
// a length that counts itself, and a code or the protocol's version.
const HeaderSize = 8

// Request is what a client's message asks for.
type Request uint8

// The requests.
const (
	None    Request = iota // not told yet
	Startup                // StartupMessage of protocol 3.x
	SSL                    // SSLRequest
	GSS                    // GSSENCRequest
	Cancel                 // CancelRequest
	TLS                    // a TLS ClientHello (sslnegotiation=direct): understanding ends
)

var requestNames = [...]string{"nothing", "StartupMessage", "SSLRequest", "GSSENCRequest", "CancelRequest", "TLS"}

// String is the request's name in PostgreSQL's documentation.
func (r Request) String() string {
	if int(r) < len(requestNames) {
		return requestNames[r]
	}
	return fmt.Sprintf("Request(%d)", uint8(r))
}

// Codes in the place of a version: PG_PROTOCOL(1234, n) of pqcomm.h.
const (
	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680
)

const (
	// tlsHandshake begins each TLS connection (RFC 8446, 5.1: ContentType).
	// No opening packet does: it would be 352 MiB long.
	tlsHandshake = 0x16
	// A CancelRequest ends with a key of 4 bytes, since protocol 3.2 of up to 256.
	minCancel = 16
	maxCancel = 12 + 256
	// maxQuote is how many bytes of a stranger's talk the log shows.
	maxQuote = 32
)

// Identify looks at the beginning of a client's message. size is its whole
// length in bytes, at most MaxStartup; for TLS it is 0, none of our business.
// None and 0 mean that b is too short to tell; an error, that it is no opening
// at all. The error's text is for the log: it quotes what came in printable
// ASCII, cut short.
func Identify(b []byte) (r Request, size int, err error) {
	switch {
	case len(b) == 0:
		return None, 0, nil
	case b[0] == tlsHandshake:
		return TLS, 0, nil
	case b[0] != 0:
		return None, 0, fmt.Errorf("not PostgreSQL's protocol: %s", quote(b))
	case len(b) < HeaderSize:
		return None, 0, nil
	}
	length, code := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	least, most := uint32(HeaderSize), uint32(HeaderSize)
	switch {
	case code == codeSSL:
		r = SSL
	case code == codeGSS:
		r = GSS
	case code == codeCancel:
		r, least, most = Cancel, minCancel, maxCancel
	case code>>16 == 3:
		r, most = Startup, MaxStartup
	case code>>16 <= 9, code>>16 == 1234: // a version or a request, and not random bytes
		return None, 0, fmt.Errorf("protocol %d.%d is not spoken, only 3.x", code>>16, code&0xffff)
	default:
		return None, 0, fmt.Errorf("not PostgreSQL's protocol: %s", quote(b))
	}
	if length < least || length > most {
		return None, 0, fmt.Errorf("%v of %d bytes, which has %d to %d", r, length, least, most)
	}
	return r, int(length), nil
}

// quote shows a stranger's first bytes.
func quote(b []byte) string {
	if len(b) > maxQuote {
		return fmt.Sprintf("%+q and more", b[:maxQuote])
	}
	return fmt.Sprintf("%+q", b)
}

// Check looks at a whole StartupMessage, as long as Identify said: pairs of
// zero-terminated names and values, then a zero byte that is its last one.
// Which names there are, and a user among them, is the server's business.
func Check(startup []byte) error {
	if len(startup) < HeaderSize {
		return errors.New("StartupMessage ends in its header")
	}
	for rest := startup[HeaderSize:]; ; {
		name, after, found := bytes.Cut(rest, zero)
		switch {
		case !found:
			return errors.New("StartupMessage has no terminator")
		case len(name) == 0 && len(after) > 0:
			return fmt.Errorf("StartupMessage goes on for %d bytes after its terminator", len(after))
		case len(name) == 0:
			return nil
		}
		if _, rest, found = bytes.Cut(after, zero); !found {
			return fmt.Errorf("StartupMessage has no value for %s", quote(name))
		}
	}
}

var zero = []byte{0}
