// Package uci reads OpenWrt's configuration text. One half knows the syntax
// only: Parse turns text into sections as libuci does, and File.Text turns
// them back. The other half, Decode and Load, turns sections into a
// config.Config, strictly: what config's reference does not know is an error.
// Encode turns a config.Config into sections.
package uci

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// File is one UCI package, taken apart.
type File struct {
	Name     string // as given to Parse; errors begin with it
	Sections []Section
}

// Section is one section. Sections of one name are merged into the first.
type Section struct {
	Type    string
	Name    string // "" = anonymous
	Line    int    // of its first `config` command
	Options []Option

	// Again holds one entry for each further `config` command of that name.
	Again []Reopening
}

// Reopening is a `config` command that continues an earlier section.
type Reopening struct {
	Line int
	// Overwrites is the first option that it sets though it was set before; "" = none.
	Overwrites string
}

// Option is one option or list of a section.
type Option struct {
	Name   string
	List   bool
	Values []Value // at least one; exactly one where List is false
}

// Value is one value and the line on which it begins.
type Value struct {
	Text string
	Line int
}

// Option returns the option of that name, or nil.
func (s *Section) Option(name string) *Option {
	for i := range s.Options {
		if s.Options[i].Name == name {
			return &s.Options[i]
		}
	}
	return nil
}

// Error is one thing that is wrong in a file.
type Error struct {
	File    string
	Line    int    // from 1; 0 = the file as a whole
	Section string // its type and name, as "server 'postgres_1'"; "" = no matter
	Option  string // "" = the section as a whole
	Value   string // as given; "" = none
	Text    string // what is wrong, and what is allowed
}

func (e Error) Error() string {
	text := e.File + ": "
	if e.Line > 0 {
		text = e.File + ":" + strconv.Itoa(e.Line) + ": "
	}
	if e.Section != "" {
		text += e.Section + ": "
	}
	if e.Option != "" {
		text += "option " + quote(e.Option) + ": "
	}
	return text + e.Text
}

// Errors is all that is wrong in a file, by line.
type Errors []Error

// Error returns one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// maxErrors bounds a list of errors: a file that is not UCI at all has one on every line.
const maxErrors = 50

// quote shows a piece of the file in a message, on one line and not too long.
func quote(text string) string {
	const most = 80
	cut := ""
	if len(text) > most {
		end := most
		for end > most-utf8.UTFMax && !utf8.RuneStart(text[end]) {
			end--
		}
		text, cut = text[:end], "…"
	}
	for _, r := range text {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return strconv.Quote(text) + cut
		}
	}
	return "'" + text + "'" + cut
}

func errorAt(file string, line int, format string, args ...any) Error {
	return Error{File: file, Line: line, Text: fmt.Sprintf(format, args...)}
}
