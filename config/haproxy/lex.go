package haproxy

import (
	"errors"
	"strconv"
	"strings"
)

// line is one line of the file that says something.
type line struct {
	number int
	words  []string // at least one
}

// word returns the i-th word, or "".
func (l line) word(i int) string {
	if i < len(l.words) {
		return l.words[i]
	}
	return ""
}

// rest returns the words from the i-th on.
func (l line) rest(i int) []string {
	if i < len(l.words) {
		return l.words[i:]
	}
	return nil
}

// split takes one line apart as HAProxy does (parse_line in its src/tools.c):
// blanks separate words, quotes and backslashes protect, # begins a comment.
func split(text string) (words []string, err error) {
	var word []byte
	var quoted byte // the quote that is open, or 0
	inWord := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted != 0 && c == quoted:
			quoted = 0
		case quoted == 0 && (c == '"' || c == '\''):
			quoted, inWord = c, true
		case c == '\\' && quoted != '\'':
			var used int
			if word, used, err = escaped(word, text[i:], quoted != 0); err != nil {
				return nil, err
			}
			i += used - 1
			inWord = true
		case quoted == '"' && c == '$':
			return nil, variable(text[i:])
		case quoted == 0 && c == '#':
			text = ""
		case quoted == 0 && (c == ' ' || '\t' <= c && c <= '\r'):
			if inWord {
				words = append(words, string(word))
			}
			word, inWord = nil, false
		default:
			word, inWord = append(word, c), true
		}
	}
	if quoted != 0 {
		return nil, errors.New("a quote is not closed: its " + string(quoted) + " is missing")
	}
	if inWord {
		words = append(words, string(word))
	}
	return words, nil
}

// variable is the error of the environment variable at the start of text.
func variable(text string) error {
	name := strings.TrimLeft(text, "${")
	if end := strings.IndexFunc(name, func(r rune) bool { return !isNameRune(r) }); end >= 0 {
		name = name[:end]
	}
	return errors.New("the environment variable " + quote(name) + " has its value only where HAProxy runs; write the value itself")
}

func isNameRune(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// escaped appends what the backslash at the start of text stands for, and
// returns how many bytes of text that took. One that protects nothing stays:
// so does that of \$ outside of quotes, where HAProxy expands no variables.
func escaped(word []byte, text string, quoted bool) (out []byte, used int, err error) {
	if len(text) < 2 {
		return append(word, '\\'), 1, nil
	}
	switch c := text[1]; c {
	case ' ', '\\', '#', '"', '\'':
		return append(word, c), 2, nil
	case '$':
		if quoted {
			return append(word, c), 2, nil
		}
	case 'r':
		return append(word, '\r'), 2, nil
	case 'n':
		return append(word, '\n'), 2, nil
	case 't':
		return append(word, '\t'), 2, nil
	case 'x':
		if len(text) < 4 {
			return nil, 0, errors.New(`\x lacks its two hexadecimal digits`)
		}
		n, err := strconv.ParseUint(text[2:4], 16, 8)
		if err != nil {
			return nil, 0, errors.New(`\x lacks its two hexadecimal digits`)
		}
		return append(word, byte(n)), 4, nil
	}
	return append(word, '\\'), 1, nil
}
