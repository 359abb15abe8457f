package healthcheck

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

func TestFault(t *testing.T) {
	dial := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	tests := []struct {
		at     layer
		err    error
		class  Class
		reason string
	}{
		{layer4, dial(syscall.ECONNREFUSED), Refused, "Layer4 connection problem, connection refused"},
		{layer4, dial(syscall.ECONNRESET), Refused, "Layer4 connection problem, connection reset by peer"},
		{layer4, dial(syscall.ETIMEDOUT), Timeout, "Layer4 timeout"},
		{layer4, dial(syscall.EHOSTUNREACH), Unreachable, "Layer4 connection problem, no route to host"},
		{layer4, dial(syscall.ENETUNREACH), Unreachable, "Layer4 connection problem, network is unreachable"},
		{layer4, dial(syscall.EADDRNOTAVAIL), Unreachable, "Layer4 connection problem, cannot assign requested address"},
		{layer4, dial(syscall.ENETDOWN), Unreachable, "Layer4 connection problem, network is down"},
		{layer4, dial(syscall.EPERM), Unreachable, "Layer4 connection problem, operation not permitted"},
		{layer4, dial(syscall.EMFILE), SocketError, "Socket error, too many open files"},
		{layer4, dial(syscall.ENOBUFS), SocketError, "Socket error, no buffer space available"},
		{layer4, context.Canceled, Timeout, "Layer4 timeout"},
		{layer6, os.ErrDeadlineExceeded, Timeout, "Layer6 timeout"},
		{layer6, errors.New("tls: bad"), Protocol, "Layer6 invalid response: tls: bad"},
		{layer7, context.DeadlineExceeded, Timeout, "Layer7 timeout"},
		{layer7, dial(syscall.ETIMEDOUT), Timeout, "Layer7 timeout"},
		{layer7, dial(syscall.ECONNRESET), Protocol, "Layer7 invalid response: connection reset by peer"},
		{layer7, dial(syscall.EPIPE), Protocol, "Layer7 invalid response: broken pipe"},
		{layer7, dial(syscall.EHOSTUNREACH), Unreachable, "Layer4 connection problem, no route to host"},
		{layer7, io.EOF, Protocol, "Layer7 invalid response: closed before the end of the answer"},
	}
	for _, tt := range tests {
		if r := fault(tt.at, tt.err); r.Class != tt.class || r.Reason != tt.reason {
			t.Errorf("%s %v: class %d, %s; want %d, %s", tt.at, tt.err, r.Class, r.Reason, tt.class, tt.reason)
		}
	}
}

func TestPrintable(t *testing.T) {
	tests := []struct {
		text  string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"57P03", 5, "57P03"},
		{"0123456789", 10, "0123456789"},
		{"0123456789a", 10, "0123456..."},
		{"a\nb\tc\x00d\x7f", 20, "a?b?c?d?"},
		{"\x1b[31mred \u202e\u200b", 20, "?[31mred ??"},
		{`say "hi"`, 20, "say 'hi'"},
		{"\xff\xfe", 20, "??"},
		{"größer", 20, "größer"},
		{"ééééé", 8, "éé..."},
	}
	for _, tt := range tests {
		if got := printable(tt.text, tt.limit); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x00\xff", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 5 || limit > 200 {
			return
		}
		got := printable(text, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsAny(got, "\"\n\r\x00\x1b") {
			t.Errorf("%q at %d: %q", text, limit, got)
		}
	})
}
