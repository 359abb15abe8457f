package haproxy

import (
	"slices"
	"testing"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		text string
		want []string
		err  string
	}{
		{"", nil, ""},
		{" \t# all of it\r", nil, ""},
		{"\tbind  :5432\t name x # why", []string{"bind", ":5432", "name", "x"}, ""},
		{"a#b c", []string{"a"}, ""},
		{`a\#b \ c`, []string{"a#b", " c"}, ""},
		{`"a b"'c "d'\ e`, []string{`a bc "d e`}, ""},
		{`"a#b" '#' #c`, []string{"a#b", "#"}, ""},
		{`'' ""`, []string{"", ""}, ""},
		{`"a\"b" 'a\b'`, []string{`a"b`, `a\b`}, ""},
		{`a\r\nb\tc\x41`, []string{"a\r\nb\tcA"}, ""},
		{`^2\.[0-9]`, []string{`^2\.[0-9]`}, ""},
		{`$HOME '$HOME' "\$HOME" \$HOME`, []string{"$HOME", "$HOME", "$HOME", `\$HOME`}, ""},
		{`a\`, []string{`a\`}, ""},
		{`\x4`, nil, `\x lacks its two hexadecimal digits`},
		{`\xgg`, nil, `\x lacks its two hexadecimal digits`},
		{`"a`, nil, `a quote is not closed: its " is missing`},
		{`'a"`, nil, `a quote is not closed: its ' is missing`},
		{`"$A:1"`, nil, "the environment variable 'A' has its value only where HAProxy runs; write the value itself"},
	}
	for _, test := range tests {
		got, err := split(test.text)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if !slices.Equal(got, test.want) || said != test.err {
			t.Errorf("%q gives %q, %q; want %q, %q", test.text, got, said, test.want, test.err)
		}
	}
}

func TestAddress(t *testing.T) {
	tests := []struct{ text, host, port string }{
		{":5432", "", "5432"},
		{"*:5432", "*", "5432"},
		{"10.0.0.1", "10.0.0.1", ""},
		{"db.lan:5432", "db.lan", "5432"},
		{"ipv4@10.0.0.1:5432", "10.0.0.1", "5432"},
		{":::5432", "::", "5432"},
		{"fd00::1:5432", "fd00::1", "5432"},
		{"[fd00::1]:5432", "fd00::1", "5432"},
		{"ipv6@[fd00::1]", "fd00::1", ""},
	}
	for _, test := range tests {
		host, port, err := address(test.text)
		if host != test.host || port != test.port || err != nil {
			t.Errorf("%q is host %q, port %q, %v; want %q, %q", test.text, host, port, err, test.host, test.port)
		}
	}
	for _, text := range []string{"/run/x", "unix@/run/x", "abns@x", "fd@3", "[::1", "[::1]5432", ":$PORT", "${HOST}:1"} {
		if host, port, err := address(text); err == nil {
			t.Errorf("%q is taken: %q, %q", text, host, port)
		}
	}
}
