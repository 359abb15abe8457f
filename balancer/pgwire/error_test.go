package pgwire

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf8"
)

// fields reads an ErrorResponse as a client does: text by type of field.
func fields(t *testing.T, b []byte) map[byte]string {
	t.Helper()
	if len(b) < messageHeader || b[0] != 'E' || int(binary.BigEndian.Uint32(b[1:])) != len(b)-1 {
		t.Fatalf("no error: %q", b)
	}
	all := map[byte]string{}
	for rest := b[messageHeader:]; ; {
		if len(rest) == 1 && rest[0] == 0 {
			return all
		}
		field, after, found := bytes.Cut(rest, zero)
		if !found || len(field) == 0 {
			t.Fatalf("a field has no end: %q", b)
		}
		all[field[0]], rest = string(field[1:]), after
	}
}

func TestErrorResponse(t *testing.T) {
	long := strings.Repeat("é", maxText)
	for _, test := range []struct {
		name, message, hint         string
		wantMessage, wantHint, more string
	}{
		{"as a server", "no leader for bk", "last leader postgres-1", "no leader for bk", "last leader postgres-1", "H"},
		{"no hint", "no leader", "", "no leader", "", ""},
		{"zero bytes", "no\x00 leader\x00", "\x00x", "no leader", "x", "H"},
		{"long", long, "x" + long, long[:maxText], "x" + long[:maxText-2], "H"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := ErrorResponse(CannotConnectNow, test.message, test.hint)
			got := fields(t, b)
			if got['S'] != "FATAL" || got['V'] != "FATAL" || got['C'] != CannotConnectNow || got['M'] != test.wantMessage || got['H'] != test.wantHint {
				t.Errorf("%q", got)
			}
			if _, hint := got['H']; hint != (test.more != "") {
				t.Errorf("hint is there: %v", hint)
			}
			if v, _ := Reply(Startup, b); v != Unavailable {
				t.Errorf("Reply takes it for %v", v)
			}
		})
	}
	if b := ErrorResponse("28000", "no", ""); string(b) != "E\x00\x00\x00\x1eSFATAL\x00VFATAL\x00C28000\x00Mno\x00\x00" {
		t.Errorf("%q", b)
	}
}

func FuzzErrorResponse(f *testing.F) {
	f.Add(CannotConnectNow, "no leader for bk_postgres_primary since 31 s", "last leader postgres-1")
	f.Add("", "", "")
	f.Add("28000", "\x00", strings.Repeat("é", 600))
	f.Fuzz(func(t *testing.T, code, message, hint string) {
		b := ErrorResponse(code, message, hint)
		got := fields(t, b)
		if len(b) > 3*maxText+64 {
			t.Errorf("%d bytes", len(b))
		}
		for kind, text := range map[byte]string{'C': code, 'M': message, 'H': hint} {
			if !strings.HasPrefix(strings.ReplaceAll(text, "\x00", ""), got[kind]) && utf8.ValidString(text) {
				t.Errorf("%c is %q of %q", kind, got[kind], text)
			}
		}
	})
}
