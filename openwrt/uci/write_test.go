package uci

import (
	"reflect"
	"strings"
	"testing"
)

// The form is that of `uci export`, less its `package` line.
func TestText(t *testing.T) {
	f, err := Parse("t", []byte(`
config a
option p it\'s
list q "one two"
l q ''
c 'b' "y"
o r 'x
y'
c "d'\"#;e" z
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `
config a
	option p 'it'\''s'
	list q 'one two'
	list q ''

config b 'y'
	option r 'x
y'

config 'd'\''"#;e' 'z'

`
	if got := f.Text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// same reports whether two files say the same, wherever it stands.
func same(a, b *File) bool {
	strip := func(f *File) []Section {
		var out []Section
		for _, s := range f.Sections {
			s.Line, s.Again = 0, nil
			var options []Option
			for _, o := range s.Options {
				o.Values = append([]Value(nil), o.Values...)
				for i := range o.Values {
					o.Values[i].Line = 0
				}
				options = append(options, o)
			}
			s.Options = options
			out = append(out, s)
		}
		return out
	}
	return reflect.DeepEqual(strip(a), strip(b))
}

func roundTrip(t *testing.T, text string) {
	f, err := Parse("t", []byte(text))
	if err != nil {
		return
	}
	again, err := Parse("t", []byte(f.Text()))
	if err != nil {
		t.Fatalf("%q was written as %q, which is not read: %v", text, f.Text(), err)
	}
	if !same(f, again) {
		t.Fatalf("%q is read as\n%s\nand written as %q, which is read as\n%s", text, dump(f), f.Text(), dump(again))
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "config a 'x'\n\toption p 'v'\n\tlist q '1'\n\tlist q '2'\n",
		"package a-b\nc a x\no p 1;o q 2\no p 'a'\"b\"c\\ d\\\ne#f\n",
		"config a\r\n\toption p \"x\\\r\ny\"\r\n\toption q 'it'\\''s'\r\n",
		"c a 'x';o p '1' ; l p 2 ;#\nc a x\no p\nc b x\no p 'x",
		"\xef\xbb\xbfconfig a\n", "c 'a#;\\\"'\n", "c \\\n a\n", "x\x00y",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := Parse("t", []byte(text))
		if err != nil {
			checkErrors(t, text, err)
		}
		roundTrip(t, text)
	})
}

// checkErrors verifies what holds of every error: a line that exists, in order, and one line of text.
func checkErrors(t *testing.T, text string, err error) {
	errs := err.(Errors)
	lines, last := 1+strings.Count(text, "\n"), 0
	for i, e := range errs {
		closing := len(errs) > maxErrors && i == maxErrors
		if e.Line < last && !closing || e.Line > lines {
			t.Errorf("line %d after %d, of %d lines: %v", e.Line, last, lines, e)
		}
		last = e.Line
		if strings.ContainsAny(e.Error(), "\n\r\x00\x1b") {
			t.Errorf("%q is not fit for a log", e.Error())
		}
	}
}
