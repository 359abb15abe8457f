package uci

import "strings"

// lexer follows libuci's view of a file: it sees one line at a time, and asks
// for the next only inside quotes and after a backslash at a line's end. What
// stands between pos and end is what is seen of the line.
type lexer struct {
	text string
	pos  int
	end  int // behind the line, or behind the part of it that still counts
	next int // start of the next line
	line int // of pos, from 1
}

// more goes on to the next line, and reports whether there is one.
func (l *lexer) more() bool {
	l.pos = l.next
	if l.next == len(l.text) {
		l.end = l.next
		return false
	}
	if i := strings.IndexByte(l.text[l.next:], '\n'); i >= 0 {
		l.next += i + 1
	} else {
		l.next = len(l.text)
	}
	l.end = l.next
	l.line++
	return true
}

func (l *lexer) atEnd() bool { return l.pos == l.end }

// isSpace is C's isspace.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func (l *lexer) skipSpace() {
	for !l.atEnd() && isSpace(l.text[l.pos]) {
		l.pos++
	}
}

// word returns the next word up to a blank or tab, as it stands: libuci knows
// neither quotes nor other white space where a command is expected.
// ended reports that nothing follows it, not even a blank.
func (l *lexer) word() (word string, ended bool) {
	for !l.atEnd() && (l.text[l.pos] == ' ' || l.text[l.pos] == '\t') {
		l.pos++
	}
	rest := l.text[l.pos:l.end]
	if i := strings.IndexAny(rest, " \t"); i >= 0 {
		l.pos += i + 1
		return rest[:i], false
	}
	l.pos = l.end
	return rest, true
}

// argument returns the next argument of a command, "" if there is none, and
// the line on which it begins.
func (l *lexer) argument() (text string, line int, err *syntaxError) {
	l.skipSpace()
	if !l.atEnd() && l.text[l.pos] == ';' {
		l.pos++
		return "", l.line, nil
	}
	start, line := l.pos, l.line
	var b []byte
	for !l.atEnd() && !isSpace(l.text[l.pos]) {
		switch c := l.text[l.pos]; c {
		case '\'', '"':
			if b, err = l.quoted(b, c); err != nil {
				err.line = line
				return "", line, err
			}
		case '\\':
			b = l.escaped(b)
		case '#':
			l.end = l.pos
		case ';':
			// libuci ends a token in place, by writing a NUL behind it. Where
			// the token was taken as it stood, that NUL falls upon the `;`
			// and hides the rest of the line. Otherwise the `;` stays, and
			// what follows it is another command.
			if start+len(b) == l.pos {
				l.end = l.pos
			}
			return string(b), line, nil
		default:
			b = append(b, c)
			l.pos++
		}
	}
	if !l.atEnd() {
		l.pos++
	}
	return string(b), line, nil
}

// quoted appends what stands between two quotes, newlines included.
func (l *lexer) quoted(b []byte, mark byte) ([]byte, *syntaxError) {
	l.pos++
	for {
		if l.atEnd() {
			if !l.more() {
				return b, &syntaxError{text: "a value is not closed: its " + string(mark) + " is missing"}
			}
			continue
		}
		switch c := l.text[l.pos]; {
		case c == mark:
			l.pos++
			return b, nil
		case c == '\\' && mark == '"':
			b = l.escaped(b)
		default:
			b = append(b, c)
			l.pos++
		}
	}
}

// escaped appends the character behind a backslash. A backslash at the end of
// a line joins it with the next.
func (l *lexer) escaped(b []byte) []byte {
	l.pos++
	switch l.text[l.pos:l.end] {
	case "", "\n", "\r\n":
		l.more()
		return b
	}
	b = append(b, l.text[l.pos])
	l.pos++
	return b
}
