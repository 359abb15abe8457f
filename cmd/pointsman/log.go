package main

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// newLog returns the daemon's logger. procd gives what comes on standard
// error the priority daemon.err and the rest daemon.info, and adds the time.
func newLog(e env, level slog.Leveler) *slog.Logger {
	return slog.New(&logHandler{out: e.stdout, err: e.stderr, level: level, mu: new(sync.Mutex)})
}

// maxLogLine is what logd keeps of a line: 1024 bytes with its NUL.
const maxLogLine = 1023

// logHandler writes each record as lines of plain text: the message, then its
// attributes as key=value. A message of several lines stays several lines.
type logHandler struct {
	out, err io.Writer
	level    slog.Leveler
	mu       *sync.Mutex
	attrs    string
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	var attrs strings.Builder
	r.Attrs(func(a slog.Attr) bool { writeAttr(&attrs, a); return true })
	text += h.attrs + attrs.String()
	w := h.out
	if r.Level >= slog.LevelWarn {
		w = h.err
		text = severity(r.Level) + ": " + text
	}
	var lines []byte
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > maxLogLine {
			line = line[:maxLogLine-3] + "..."
		}
		lines = append(append(lines, line...), '\n')
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := w.Write(lines)
	return err
}

// severity is syslog's word for a level.
func severity(l slog.Level) string {
	if l >= slog.LevelError {
		return "error"
	}
	return "warning"
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, a)
	}
	with := *h
	with.attrs += b.String()
	return &with
}

// WithGroup leaves names as they are: the daemon uses no groups.
func (h *logHandler) WithGroup(string) slog.Handler { return h }

func writeAttr(b *strings.Builder, a slog.Attr) {
	b.WriteByte(' ')
	b.WriteString(a.Key)
	b.WriteByte('=')
	b.WriteString(a.Value.String())
}
