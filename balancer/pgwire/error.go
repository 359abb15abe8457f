package pgwire

import (
	"encoding/binary"
	"strings"
)

// maxText is the longest text of an error in bytes. Older clients take an error
// of more than 30,000 bytes during a login for one of protocol 2 (MAX_ERRLEN of
// libpq's fe-connect.c), and a line of a log is not a page.
const maxText = 1000

// ErrorResponse is a FATAL error as a server would send it, ending the session.
// code is an SQLSTATE. Texts are cut to 1000 bytes each, and cleaned of zero
// bytes; an empty hint is left out.
func ErrorResponse(code, message, hint string) []byte {
	b := make([]byte, messageHeader, messageHeader+64+len(message)+len(hint))
	b[0] = 'E'
	b = appendField(b, 'S', "FATAL") // in the server's language
	b = appendField(b, 'V', "FATAL") // in English, since 9.6
	b = appendField(b, 'C', code)
	b = appendField(b, 'M', message)
	if hint != "" {
		b = appendField(b, 'H', hint)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

func appendField(b []byte, kind byte, text string) []byte {
	text = strings.ReplaceAll(text, "\x00", "")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") // no half a letter at the cut
	}
	return append(append(append(b, kind), text...), 0)
}
