// Package haproxy reads a haproxy.cfg and makes a config.Config that does the
// same job. It carries over what balances TCP sessions over checked servers.
// What has no counterpart is an error that says what to do instead; what can
// be left out without harm, or means something else here, is a note.
package haproxy

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxSize bounds a file, in bytes. A haproxy.cfg for a router has a few kB.
const MaxSize = 1 << 20

// most bounds the errors that are listed.
const most = 50

// Note is something that a person should know about what was carried over.
type Note struct {
	File string
	Line int // from 1
	Text string
}

func (n Note) String() string {
	return n.File + ":" + strconv.Itoa(n.Line) + ": note: " + n.Text
}

// Error is one thing that cannot be carried over.
type Error struct {
	File string
	Line int // from 1; 0 = the file as a whole
	Text string
}

func (e Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return e.File + ":" + strconv.Itoa(e.Line) + ": " + e.Text
}

// Errors is all that cannot be carried over, by line.
type Errors []Error

// Error returns one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// quote shows a piece of the file in a message, on one line and not too long.
func quote(text string) string {
	const longest = 80
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	if q := strconv.Quote(text); q != `"`+text+`"` {
		return q
	}
	return "'" + text + "'"
}

// report collects what is to be said.
type report struct {
	file   string
	notes  []Note
	errors Errors
	said   map[Note]bool
}

func (r *report) note(line int, format string, args ...any) {
	n := Note{r.file, line, fmt.Sprintf(format, args...)}
	if !r.said[n] { // a line of `defaults` is met by each proxy
		r.said[n] = true
		r.notes = append(r.notes, n)
	}
}

func (r *report) fail(line int, format string, args ...any) {
	n := Note{r.file, line, fmt.Sprintf(format, args...)}
	if !r.said[n] {
		r.said[n] = true
		r.errors = append(r.errors, Error(n))
	}
}
