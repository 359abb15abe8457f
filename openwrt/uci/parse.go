package uci

import (
	"fmt"
	"strings"
)

// MaxSize is the most that Parse and Load take, in bytes. A configuration of
// a thousand servers has a fifth of it.
const MaxSize = 1 << 20

// Parse reads a UCI package as libuci does (see set for the one difference);
// name is only for messages.
// Where libuci stops at the first error, Parse goes on with the next line: the
// error is an Errors, and the File holds what could be read.
//
// `package` lines are checked and have no effect, as when libuci loads a file
// of /etc/config.
func Parse(name string, text []byte) (*File, error) {
	p := parser{
		file:     &File{Name: name},
		lexer:    lexer{text: string(text)},
		current:  -1,
		sections: map[string]int{},
		options:  map[optionKey]place{},
	}
	if len(text) > MaxSize {
		p.fail(0, "the file has more than %d bytes; no configuration needs that", MaxSize)
		return p.file, p.errors
	}
	if i := strings.IndexByte(p.text, 0); i >= 0 {
		p.fail(1+strings.Count(p.text[:i], "\n"), "a NUL byte: this is not a text file")
		return p.file, p.errors
	}
	if strings.HasPrefix(p.text, "\xef\xbb\xbf") {
		p.fail(1, "the file begins with a byte order mark (BOM); save it as UTF-8 without one")
		p.next = 3
	}
	for p.more() {
		err := p.parseLine()
		if err == nil {
			continue
		}
		p.fail(err.line, "%s", err.text)
		if len(p.errors) == maxErrors {
			p.fail(p.line, "too many errors; the rest of the file was not read")
			break
		}
	}
	p.file.dropUnset()
	if p.errors != nil {
		return p.file, p.errors
	}
	return p.file, nil
}

type parser struct {
	lexer
	file   *File
	errors Errors

	current int  // index of the open section; -1 = none yet
	lost    bool // the open section has an error of its own: its options are checked, and dropped

	// Where things are: files may have thousands of sections or options.
	sections map[string]int // by name
	options  map[optionKey]place
}

type place struct {
	index   int // among the section's options
	opening int // how often the section had been opened again when it was set
}

type optionKey struct {
	section int
	name    string
}

// syntaxError is what is wrong with one command.
type syntaxError struct {
	line int // 0 = that of the command
	text string
}

func (p *parser) fail(line int, format string, args ...any) {
	p.errors = append(p.errors, errorAt(p.file.Name, line, format, args...))
}

func (p *parser) parseLine() *syntaxError {
	p.skipSpace()
	for first := true; ; first = false {
		line := p.line
		word, ended := p.word()
		if word == "" || word[0] == '#' {
			return nil
		}
		var err *syntaxError
		switch word {
		case "package", "p":
			err = p.parsePackage()
		case "config", "c":
			err = p.parseConfig()
		case "option", "o":
			err = p.parseOption(false)
		case "list", "l":
			err = p.parseOption(true)
		default:
			err = invalidCommand(word, ended, first)
		}
		if err != nil {
			if err.line == 0 {
				err.line = line
			}
			return err
		}
	}
}

func invalidCommand(word string, ended, first bool) *syntaxError {
	word = strings.TrimRight(word, "\r\n")
	switch {
	case word == "" && !first:
		return &syntaxError{text: "a command is missing behind ';'"}
	case ended && (word == "config" || word == "c"):
		return &syntaxError{text: "config without a type"}
	case ended && (word == "option" || word == "list" || word == "package" || word == "o" || word == "l" || word == "p"):
		return &syntaxError{text: word + " without a name"}
	}
	return &syntaxError{text: "invalid command " + quote(word) + "; a line begins with config, option, list or #"}
}

func (p *parser) parsePackage() *syntaxError {
	name, _, err := p.argument()
	switch {
	case err != nil:
		return err
	case name == "":
		return &syntaxError{text: "package without a name"}
	case !isName(strings.ReplaceAll(name, "-", "")):
		return &syntaxError{text: "invalid package name " + quote(name) + "; letters, digits, '_' and '-' are allowed"}
	}
	return p.endCommand()
}

func (p *parser) parseConfig() *syntaxError {
	line := p.line
	p.lost = true
	typ, _, err := p.argument()
	switch {
	case err != nil:
		return err
	case typ == "":
		return &syntaxError{text: "config without a type"}
	case !isType(typ):
		return &syntaxError{text: "invalid section type " + quote(typ) + "; printable ASCII without blanks is allowed"}
	}
	name, _, err := p.argument()
	switch {
	case err != nil:
		return err
	case name != "" && !isName(name):
		return &syntaxError{text: "invalid section name " + quote(name) + "; letters, digits and '_' are allowed"}
	}
	if err := p.endCommand(); err != nil {
		return err
	}
	i, exists := p.sections[name]
	if exists && p.file.Sections[i].Type != typ {
		first := &p.file.Sections[i]
		return &syntaxError{text: fmt.Sprintf("config %s %s: line %d has a section of that name and of another type, %s",
			typ, quote(name), first.Line, quote(first.Type))}
	}
	if exists {
		p.file.Sections[i].Again = append(p.file.Sections[i].Again, Reopening{Line: line})
	} else {
		i = len(p.file.Sections)
		p.file.Sections = append(p.file.Sections, Section{Type: typ, Name: name, Line: line})
		if name != "" {
			p.sections[name] = i
		}
	}
	p.current, p.lost = i, false
	return nil
}

func (p *parser) parseOption(list bool) *syntaxError {
	if p.current < 0 && !p.lost {
		return &syntaxError{text: "an option before the first section; a 'config' line is missing above it"}
	}
	name, _, err := p.argument()
	switch {
	case err != nil:
		return err
	case name == "":
		return &syntaxError{text: "an option without a name"}
	case !isName(name):
		return &syntaxError{text: "invalid option name " + quote(name) + "; letters, digits and '_' are allowed"}
	}
	text, line, err := p.argument()
	if err != nil {
		return err
	}
	if err := p.endCommand(); err != nil {
		return err
	}
	if !p.lost {
		p.set(name, Value{text, line}, list)
	}
	return nil
}

// endCommand verifies that the line or the command ends here. Empty arguments
// do not count, as in libuci.
func (p *parser) endCommand() *syntaxError {
	extra, line, err := p.argument()
	switch {
	case err != nil:
		return err
	case extra != "":
		return &syntaxError{line: line, text: "too many arguments, from " + quote(extra) + " on; a value with blanks needs quotes"}
	}
	return nil
}

// set stores a value: `option` replaces what there was, in its place, and
// `list` adds to it. An option that is set to nothing is as if never given;
// libuci says so too, and does so where a file names the option once, but
// within a file it leaves an earlier value standing.
func (p *parser) set(name string, v Value, list bool) {
	section := &p.file.Sections[p.current]
	key := optionKey{p.current, name}
	was, exists := p.options[key]
	now := place{was.index, len(section.Again)}
	switch {
	case v.Text == "" && !list:
		if exists {
			section.Options[was.index].Values = nil // see dropUnset
			delete(p.options, key)
		}
		return
	case !exists:
		now.index = len(section.Options)
		section.Options = append(section.Options, Option{name, list, []Value{v}})
	case list:
		o := &section.Options[was.index]
		o.List, o.Values = true, append(o.Values, v)
	default:
		section.Options[was.index] = Option{name, false, []Value{v}}
		if was.opening < now.opening && section.Again[now.opening-1].Overwrites == "" {
			section.Again[now.opening-1].Overwrites = name
		}
	}
	p.options[key] = now
}

// dropUnset removes the options that were unset, all at once: one at a time
// would take a time that grows with the square of their number.
func (f *File) dropUnset() {
	for i := range f.Sections {
		kept := f.Sections[i].Options[:0]
		for _, o := range f.Sections[i].Options {
			if len(o.Values) > 0 {
				kept = append(kept, o)
			}
		}
		f.Sections[i].Options = kept
	}
}

func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		default:
			return false
		}
	}
	return true
}

func isType(s string) bool {
	for i := range len(s) {
		if s[i] < 33 || s[i] > 126 {
			return false
		}
	}
	return true
}
