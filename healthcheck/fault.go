package healthcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
)

// layer says how far a probe came; its text begins HAProxy's words for what happened.
type layer string

const (
	layer4 layer = "Layer4" // connect
	layer6 layer = "Layer6" // TLS
	layer7 layer = "Layer7" // request and answer
)

// fault turns what stopped a probe into a Result. It is the one place that
// knows what an errno means.
func fault(at layer, err error) Result {
	class := classOf(at, err)
	var reason string
	switch {
	case class == Timeout:
		reason = string(at) + " timeout"
	case class == SocketError:
		reason = "Socket error, " + brief(err)
	case at == layer4 || class == Unreachable:
		reason = string(layer4) + " connection problem, " + brief(err)
	default:
		reason = string(at) + " invalid response: " + brief(err)
	}
	return Result{Class: class, Reason: reason}
}

func classOf(at layer, err error) Class {
	var timeout interface{ Timeout() bool }
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return Timeout // an errno too: ETIMEDOUT, when the kernel gave up first
	case !errors.As(err, &errno):
		return Protocol
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		return SocketError
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN,
		syscall.EADDRNOTAVAIL,         // no local address to speak from, or no port
		syscall.EINVAL,                // a link-local address without its zone
		syscall.EACCES, syscall.EPERM: // a firewall of this machine: connect(2), ip(7)
		return Unreachable
	}
	if at == layer4 {
		return Refused // ECONNREFUSED; also a RST between SYN and accept
	}
	return Protocol
}

// brief is the part of an error that tells an operator something new: not the
// addresses, which the log line has already, and nothing long or unprintable.
func brief(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "closed before the end of the answer"
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		err = cert.Err
	case errors.As(err, &op) && op.Err != nil:
		err = op.Err
	}
	return printable(err.Error(), maxText)
}

// maxText bounds a text from the network where it goes into a log line.
const maxText = 80

// printable makes a text from the network safe to show: one line, no control
// characters, no double quotes, at most limit bytes.
func printable(text string, limit int) string {
	const more = "..."
	var b strings.Builder
	keep := 0 // where the text is cut if it proves too long
	for _, r := range text {
		switch {
		case r == '"':
			r = '\''
		case r == utf8.RuneError || !strconv.IsPrint(r):
			r = '?'
		}
		b.WriteRune(r)
		if b.Len() > limit {
			return b.String()[:keep] + more
		}
		if b.Len() <= limit-len(more) {
			keep = b.Len()
		}
	}
	return b.String()
}
