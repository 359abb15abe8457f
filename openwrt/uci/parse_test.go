package uci

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dump shows what Parse understood, one section a line, with line numbers.
func dump(f *File) string {
	var b strings.Builder
	for _, s := range f.Sections {
		fmt.Fprintf(&b, "%d %s %q", s.Line, s.Type, s.Name)
		for _, o := range s.Options {
			fmt.Fprintf(&b, " %s", o.Name)
			if o.List {
				b.WriteString("[]")
			}
			for _, v := range o.Values {
				fmt.Fprintf(&b, " %d=%q", v.Line, v.Text)
			}
		}
		for _, a := range s.Again {
			fmt.Fprintf(&b, " again %d %q", a.Line, a.Overwrites)
		}
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Each of these was also read by libuci (its main branch of November 2025),
// with the same outcome, but for those under "unset" that had a value before.
func TestParse(t *testing.T) {
	const a = "config a x\n"
	tests := []struct{ name, text, want string }{
		{"empty", "", ""},
		{"blank lines and comments", "\n  \n# x 'y\n\t#\n\r\n\v\f\n", ""},
		{"no newline at the end", "config a 'x'", `1 a "x"`},
		{"abbreviations", "p q\nc a x\no p 1\nl q 2", `2 a "x" p 3="1" q[] 4="2"`},
		{"CRLF", "config a 'x'\r\n\toption p 'v'\r\n\r\n\toption q w\r\n", `1 a "x" p 2="v" q 4="w"`},
		{"CR alone is white space", "\rconfig a\rx\r\n", `1 a "x"`},
		{"tabs", "config\ta\tx\n\toption\tp\tv\n", `1 a "x" p 2="v"`},

		{"anonymous", "config a\nconfig a\nconfig a ''\n", "1 a \"\"\n2 a \"\"\n3 a \"\""},
		{"any printable type", "config a-b.c!\nconfig 'a#b;\"'\n", "1 a-b.c! \"\"\n2 a#b;\" \"\""},
		{"merge", a + "option p 1\nconfig b y\noption p 2\nconfig a x\noption q 3\n",
			"1 a \"x\" p 2=\"1\" q 6=\"3\" again 5 \"\"\n3 b \"y\" p 4=\"2\""},
		{"merge overwrites", a + "option p 1\noption q 1\n" + a + "option q 1\noption p 2\n" + a,
			`1 a "x" p 6="2" q 5="1" again 4 "q" again 7 ""`},
		{"merge on one line", "config a 'x'; option p '1' ; config a 'x' ; option p '2'",
			`1 a "x" p 1="2" again 1 "p"`},
		{"set twice, opened once", a + "option p 1\noption p 2\n", `1 a "x" p 3="2"`},

		{"package has no effect", a + "package other-name\noption p 1\npackage 'b'\n", `1 a "x" p 3="1"`},

		{"quoted and bare names", "config 'a' \"x\"\noption 'p' 1\noption \"q\" 2\n", `1 a "x" p 2="1" q 3="2"`},
		{"concatenation", a + "option p 'a'\"b\"c''d\n", `1 a "x" p 2="abcd"`},
		{"concatenated name", "config a'b' 'x''y'\noption p\"q\" 1\n", `1 ab "xy" pq 2="1"`},
		{"single quotes are literal", a + `option p 'a\b\"#;'` + "\n", `1 a "x" p 2="a\\b\\\"#;"`},
		{"escapes in double quotes", a + `option p "a\b\"\'\\#;"` + "\n", `1 a "x" p 2="ab\"'\\#;"`},
		{"escapes outside quotes", a + `option p a\b\'\"\\\ \#\;z` + "\n", `1 a "x" p 2="ab'\"\\ #;z"`},
		{"quote within quotes", a + `option p 'it'\''s'` + "\n", `1 a "x" p 2="it's"`},

		{"backslash-newline", a + "option p b\\\nc\noption q 1\n", `1 a "x" p 2="bc" q 4="1"`},
		{"backslash-newline in double quotes", a + "option p \"b\\\nc\"\noption q 1\n", `1 a "x" p 2="bc" q 4="1"`},
		{"backslash-newline in single quotes", a + "option p 'b\\\nc'\noption q 1\n", `1 a "x" p 2="b\\\nc" q 4="1"`},
		{"backslash-CRLF", a + "option p b\\\r\nc\n", `1 a "x" p 2="bc"`},
		{"backslash at the end of the file", a + "option p b\\", `1 a "x" p 2="b"`},
		{"backslash at the end of a comment", a + "# b\\\noption p 1", `1 a "x" p 3="1"`},
		{"newline in quotes", a + "option p 'b\n\n# c'\nlist q \"1\n2\"\nlist q 3\n", `1 a "x" p 2="b\n\n# c" q[] 5="1\n2" 7="3"`},
		{"CRLF in quotes", a + "option p 'b\r\nc'\n", `1 a "x" p 2="b\r\nc"`},

		{"comment behind a value", a + "option p b # c d\n", `1 a "x" p 2="b"`},
		{"comment in mid-word", a + "option p b#c d\n", `1 a "x" p 2="b"`},
		{"comment behind a quote", a + "option p 'b'#c d\n", `1 a "x" p 2="b"`},
		{"comment for a name", "config a #x\n", `1 a ""`},

		{"`;` hides the rest of the line", a + "option p b;option q c\n", `1 a "x" p 2="b"`},
		{"`;` behind a quote separates", a + "option p 'b';option q c\n", `1 a "x" p 2="b" q 2="c"`},
		{"`;` on its own separates", a + "option p b ; option q c\n", `1 a "x" p 2="b" q 2="c"`},
		{"`;` behind an escape separates", a + `option p \b;option q c`, `1 a "x" p 2="b" q 2="c"`},
		{"`;` in quotes", a + "option p 'a;b'\n", `1 a "x" p 2="a;b"`},
		{"`;` before a comment", a + "option p 'b' ; # c\n", `1 a "x" p 2="b"`},
		{"`;` instead of a value", a + "option p ;\n", `1 a "x"`},
		{"`;` at the end of the file", a + "option p 'b' ;", `1 a "x" p 2="b"`},

		{"last option wins, in the first's place", a + "option p 1\noption q 2\noption p 3\n", `1 a "x" p 4="3" q 3="2"`},
		{"list", a + "list p 1\noption q 2\nlist p 3\n", `1 a "x" p[] 2="1" 4="3" q 3="2"`},
		{"list after option converts", a + "option p 1\noption q 2\nlist p 3\n", `1 a "x" p[] 2="1" 4="3" q 3="2"`},
		{"option after list replaces", a + "list p 1\nlist p 2\noption q 3\noption p 4\n", `1 a "x" p 5="4" q 4="3"`},
		{"empty list values", a + "list p\nlist p ''\n", `1 a "x" p[] 2="" 3=""`},
		{"empty extra arguments", a + "option p 1 ''\n", `1 a "x" p 2="1"`},

		{"unset, never set", a + "option p ''\noption q\noption r \"\"\n", `1 a "x"`},
		{"unset by ''", a + "option p 1\noption q 2\noption p ''\n", `1 a "x" q 3="2"`},
		{"unset without value", a + "option p 1\noption q 2\noption p\n", `1 a "x" q 3="2"`},
		{"unset list", a + "list p 1\nlist p 2\noption p ''\n", `1 a "x"`},
		{"unset and set again", a + "option p 1\noption q 2\noption p ''\noption p 3\n", `1 a "x" q 3="2" p 5="3"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("t", []byte(tt.text))
			if err != nil {
				t.Fatalf("%q: %v", tt.text, err)
			}
			if got := dump(f); got != tt.want {
				t.Errorf("%q is read as\n%s\nwant\n%s", tt.text, got, tt.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	const a = "config a x\n"
	tests := []struct{ name, text, want string }{
		{"invalid command", "\nconfog a x\n", "t:2: invalid command 'confog'; a line begins with config, option, list or #"},
		{"abbreviations are no prefixes", "conf a\n", "t:1: invalid command 'conf'; a line begins with config, option, list or #"},
		{"quoted command", "'config' a\n", "t:1: invalid command ''config''; a line begins with config, option, list or #"},
		{"no command behind ;", a + "option p 'b' ; \n", "t:2: a command is missing behind ';'"},
		{"BOM", "\xef\xbb\xbfconfig a x\n", "t:1: the file begins with a byte order mark (BOM); save it as UTF-8 without one"},
		{"NUL", a + "option p 'a\x00b'\n", "t:2: a NUL byte: this is not a text file"},

		{"config alone", "config\n", "t:1: config without a type"},
		{"config and blanks", "config  \n", "t:1: config without a type"},
		{"config ''", "config ''\n", "t:1: config without a type"},
		{"type", "config a\x01 x\n", `t:1: invalid section type "a\x01"; printable ASCII without blanks is allowed`},
		{"section name", "config a 'postgres-1'\n", "t:1: invalid section name 'postgres-1'; letters, digits and '_' are allowed"},
		{"section name not ASCII", "config a é\n", "t:1: invalid section name 'é'; letters, digits and '_' are allowed"},
		{"config with too much", "config a x y\n", "t:1: too many arguments, from 'y' on; a value with blanks needs quotes"},
		{"other type", "config a x\n\nconfig b x\n", "t:3: config b 'x': line 1 has a section of that name and of another type, 'a'"},

		{"package alone", "package\n", "t:1: package without a name"},
		{"package ''", "package ''\n", "t:1: package without a name"},
		{"package name", "package a.b\n", "t:1: invalid package name 'a.b'; letters, digits, '_' and '-' are allowed"},
		{"package with too much", "package a b\n", "t:1: too many arguments, from 'b' on; a value with blanks needs quotes"},

		{"option before a section", "option a b\n", "t:1: an option before the first section; a 'config' line is missing above it"},
		{"option alone", a + "option\n", "t:2: option without a name"},
		{"option ''", a + "option '' 1\n", "t:2: an option without a name"},
		{"option name", a + "option on-marked-down 1\n", "t:2: invalid option name 'on-marked-down'; letters, digits and '_' are allowed"},
		{"option with too much", a + "option p 1 2\n", "t:2: too many arguments, from '2' on; a value with blanks needs quotes"},
		{"option, nothing, too much", a + "option p '' 2\n", "t:2: too many arguments, from '2' on; a value with blanks needs quotes"},
		{"; instead of a value, too much", a + "option p ; foo\n", "t:2: too many arguments, from 'foo' on; a value with blanks needs quotes"},
		{"backslash-newline before blanks", a + "option p \\\n 2\n", "t:3: too many arguments, from '2' on; a value with blanks needs quotes"},

		{"unterminated '", a + "option p 1\noption q 'a\noption r b\n", "t:3: a value is not closed: its ' is missing"},
		{"unterminated \"", a + "option q \"a\\\"\noption r b\n", "t:2: a value is not closed: its \" is missing"},
		// Of a quote too few or too many, the last line of the file is no help.
		{"odd quote", a + "option p 'a\noption q 'b'\noption r 'c'\n", "t:2: a value is not closed: its ' is missing"},

		{"errors on many lines", "option p 1\nconfig a x\noption q-q 1\noption r 1\nbogus\nconfig b y-y\noption z 1\noption - 1\n",
			"t:1: an option before the first section; a 'config' line is missing above it\n" +
				"t:3: invalid option name 'q-q'; letters, digits and '_' are allowed\n" +
				"t:5: invalid command 'bogus'; a line begins with config, option, list or #\n" +
				"t:6: invalid section name 'y-y'; letters, digits and '_' are allowed\n" +
				"t:8: invalid option name '-'; letters, digits and '_' are allowed"},
		{"control characters are shown", "con\x1b[2Jfig\n", `t:1: invalid command "con\x1b[2Jfig"; a line begins with config, option, list or #`},
		{"what is not UTF-8 as well", "con\xfffig\n", `t:1: invalid command "con\xfffig"; a line begins with config, option, list or #`},
		{"and long words cut", strings.Repeat("é", 100) + "\n", "t:1: invalid command '" + strings.Repeat("é", 40) + "'…; a line begins with config, option, list or #"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("t", []byte(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("%q:\ngot  %v\nwant %s", tt.text, err, tt.want)
			}
		})
	}
}

// What could be read is there beside the errors, without what belongs to a broken section.
func TestParseGoesOn(t *testing.T) {
	f, err := Parse("t", []byte("config a x\noption p-p 1\noption q 2\nconfig b y-y\noption r 3\nconfig c z\noption s 4\n"))
	if want := "1 a \"x\" q 3=\"2\"\n6 c \"z\" s 7=\"4\""; err == nil || dump(f) != want {
		t.Errorf("got\n%s\n%v\nwant\n%s", dump(f), err, want)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("t", []byte(strings.Repeat("x\n", 1000)))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors+1 {
		t.Fatalf("%d errors, want %d", len(errs), maxErrors+1)
	}
	if got := errs[maxErrors].Error(); got != "t:50: too many errors; the rest of the file was not read" {
		t.Error(got)
	}
}

// hugeFiles is what would cost a careless reader a time that grows with the
// square of the size.
func hugeFiles() map[string]string {
	numbered := func(format string) string {
		var b strings.Builder
		b.WriteString("config backend b\n")
		for i := 0; b.Len() < MaxSize-100; i++ {
			b.WriteString(strings.ReplaceAll(format, "%", fmt.Sprint(i)))
		}
		return b.String()
	}
	fill := func(start, piece string) string {
		return start + strings.Repeat(piece, (MaxSize-len(start))/len(piece))
	}
	return map[string]string{
		"options":             numbered("o p% 1\n"),
		"list values":         numbered("l p %\n"),
		"options unset":       numbered("o p% 1\no p%\n"),
		"sections merged":     fill("", "c server s\n"),
		"sections closed":     numbered("c server s%\no backend b\no address h%:1\n"),
		"servers alike":       fill("c backend b\n", "c server\no name s\no backend b\no address h:1\n"),
		"dangling references": numbered("c server s%\no backend c%\no address h%:1\nc backend d%\n"),
		"listeners":           numbered("l check_header 'a: b'\nc frontend f%\nl bind [::%]:1\n"),
		"listeners alike":     fill("c frontend f\n", "l bind :1\n"),
		"one word":            fill("", "a"),
		"one type":            fill("config ", "a"),
		"one option name":     fill("config server s\noption ", "check_uri"),
		"one value":           fill("config server s\noption name ", "\\a'b'\"c\""),
		"one open quote":      fill("config server s\noption name '", "\n"),
		"quotes":              fill("config server s\noption name ", "''"),
		"joined lines":        fill("config server s\noption name ", "\\\n"),
		"semicolons":          fill("config server s", " ;"),
		"commands":            fill("config server s;", "o p '';"),
		"backslashes":         fill("config server s\noption name ", "\\"),
		"blanks":              fill("", " "),
		"newlines":            fill("", "\n"),
		"NULs":                fill("", "\x00"),
	}
}

// TestHugeFiles holds Decode to a time that grows with the size: the bound is
// ten times what the slowest takes, and less than what a square would.
func TestHugeFiles(t *testing.T) {
	for name, text := range hugeFiles() {
		t.Run(name, func(t *testing.T) {
			start := cpuTime(t)
			_, err := Decode("t", []byte(text))
			if took := cpuTime(t) - start; took > 5*time.Second {
				t.Errorf("took %v", took)
			} else {
				t.Logf("%v, %.60v", took, err)
			}
		})
	}

	text := make([]byte, 10<<20)
	if _, err := Parse("t", text); err == nil || err.Error() != "t: the file has more than 1048576 bytes; no configuration needs that" {
		t.Error(err)
	}
	if _, err := Parse("t", []byte(strings.Repeat("#", MaxSize))); err != nil {
		t.Error(err)
	}
}

// cpuTime is what the test has used so far: a busy machine does not count.
func cpuTime(t *testing.T) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
