package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the pictures in testdata anew")

// element is one of a picture.
type element struct {
	name string
	attr map[string]string
	text string // directly in it
	tip  string // of the title in it
}

func (e element) num(t *testing.T, name string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(e.attr[name], 64)
	if err != nil {
		t.Fatalf("%s of <%s>: %v", name, e.name, err)
	}
	return v
}

// parse reads a picture; anything that is no well-formed XML fails the test.
func parse(t *testing.T, svg []byte) []element {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	var all []element
	var open []int
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attr: map[string]string{}}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			open = append(open, len(all))
			all = append(all, e)
		case xml.EndElement:
			i := open[len(open)-1]
			open = open[:len(open)-1]
			if token.Name.Local == "title" && len(open) > 0 {
				all[open[len(open)-1]].tip = all[i].text
			}
		case xml.CharData:
			if len(open) > 0 {
				all[open[len(open)-1]].text += string(token)
			}
		}
	}
	for _, bad := range []string{"NaN", "Inf"} {
		for _, e := range all {
			for name, value := range e.attr {
				if strings.Contains(value, bad) {
					t.Errorf("<%s %s=%q>", e.name, name, value)
				}
			}
		}
	}
	return all
}

// having returns the elements with this name and class.
func having(all []element, name, class string) []element {
	var out []element
	for _, e := range all {
		if e.name == name && strings.Contains(" "+e.attr["class"]+" ", " "+class+" ") {
			out = append(out, e)
		}
	}
	return out
}

// golden compares a picture with the one that is kept.
func golden(t *testing.T, name string, svg []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, svg, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(svg, want) {
		t.Errorf("%s is not what it was; look at the new one with -update, and keep it if it is right", path)
	}
}

func must(t *testing.T, draw func() ([]byte, error)) []byte {
	t.Helper()
	svg, err := draw()
	if err != nil {
		t.Fatal(err)
	}
	again, err := draw()
	if err != nil || !bytes.Equal(svg, again) {
		t.Errorf("drawn twice, the picture is not the same (%v)", err)
	}
	return svg
}

// These are not measured: they only have the size of real figures.
var rates = Bars{
	Title: "Rate beside HAProxy",
	Note:  "HAProxy = 1.00; more is better",
	Groups: []string{
		"100 B ping-pong, 1 session", "100 B ping-pong, 16 sessions", "connect, 1 byte, close", "bulk, one stream",
	},
	Series: []Series{
		{Key: "haproxy", Name: "HAProxy 2.6.12", Values: []float64{1, 1, 1, 1}},
		{Key: "haproxy-splice", Name: "HAProxy splice-auto", Values: []float64{math.NaN(), math.NaN(), math.NaN(), 1.31}},
		{Key: "nginx", Name: "nginx 1.22.1", Values: []float64{1.06, 0.91, 1.02, 1.11}},
		{Key: "dnat", Name: "kernel DNAT", Values: []float64{1.9, 2.1, 2.4, 2.6}},
		{Key: "pointsman", Name: "pointsman", Values: []float64{1.15, 1.05, 1.08, 1.78}, Labels: []string{"1.15 · 25.1 k/s", "1.05 · 56.8 k/s", "1.08 · 10.0 k/s", "1.78 · 1.8 GB/s"}},
	},
	Baseline: 1,
}

func TestBars(t *testing.T) {
	svg := must(t, rates.SVG)
	golden(t, "bars.svg", svg)
	all := parse(t, svg)
	scale := 0.0 // pixels for 1
	for n, s := range rates.Series {
		bars := having(all, "rect", class(s.Key))[1:] // the first is in the legend
		for i, v := range s.Values {
			if math.IsNaN(v) {
				continue
			}
			bar := bars[0]
			bars = bars[1:]
			if n == 0 && i == 0 {
				scale = bar.num(t, "width")
			}
			if got := bar.num(t, "width"); math.Abs(got-v*scale) > 0.02 {
				t.Errorf("%s in %s: %v is %v pixels long, with %v for 1", s.Key, rates.Groups[i], v, got, scale)
			}
			if !strings.HasPrefix(bar.tip, rates.Groups[i]+", "+s.Name) {
				t.Errorf("%s in %s: the bar says %q", s.Key, rates.Groups[i], bar.tip)
			}
			if right := bar.num(t, "x") + bar.num(t, "width"); right > width-valueSpace+0.02 {
				t.Errorf("%s in %s: the bar ends at %v", s.Key, rates.Groups[i], right)
			}
		}
		if len(bars) != 0 {
			t.Errorf("%s has %d bars too many", s.Key, len(bars))
		}
	}
}

func TestBarsRefuse(t *testing.T) {
	one := func(values ...float64) Bars {
		return Bars{Groups: []string{"a"}, Series: []Series{{Key: "haproxy", Values: values}}}
	}
	labelled := one(1)
	labelled.Series[0].Labels = []string{"a", "b"}
	for name, b := range map[string]Bars{
		"nothing": {}, "no series": {Groups: []string{"a"}}, "too few values": one(), "too many": one(1, 2),
		"negative": one(-1), "infinite": one(math.Inf(1)), "labels": labelled,
	} {
		if _, err := b.SVG(); err == nil {
			t.Errorf("%s: drawn", name)
		}
	}
	for name, b := range map[string]Bars{"zero": one(0), "none": one(math.NaN()), "tiny": one(1e-12), "huge": one(1e300)} {
		svg, err := b.SVG()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		parse(t, svg)
	}
}

func TestEscape(t *testing.T) {
	const name = "<script>\"a\" & b\x00\xff</script>"
	const want = "<script>\"a\" & b\ufffd</script>"
	bars := Bars{Title: name, Note: name, Groups: []string{name}, Series: []Series{{Key: name, Name: name, Values: []float64{1}, Labels: []string{name}}}}
	curves := Curves{Title: name, Note: name, X: Axis{Label: name}, Y: Axis{Label: name}, Curves: []Curve{{Key: name, Name: name, Points: []Point{{1, 1}}}}}
	flame := Flame{Title: name, Note: name}
	if err := flame.Add(strings.NewReader(name + " 1\n")); err != nil {
		t.Fatal(err)
	}
	for what, draw := range map[string]func() ([]byte, error){"bars": bars.SVG, "curves": curves.SVG, "flame": flame.SVG} {
		seen := 0
		for _, e := range parse(t, must(t, draw)) {
			if e.name == "script" {
				t.Errorf("%s: a name became an element", what)
			}
			if e.text == want {
				seen++
			}
		}
		if seen < 3 {
			t.Errorf("%s: the name was read back %d times", what, seen)
		}
	}
}

func TestNotANumber(t *testing.T) {
	c := newCanvas(100, "", "")
	c.rect(math.NaN(), 0, 1, 1, "", "")
	if _, err := c.bytes(); err == nil {
		t.Error("NaN became a coordinate")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1.00", 9.996: "10.0", 99.96: "100", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234: "1,234", 1234567: "1,234,567",
		0.12: "0.12", 0.0123: "0.012", -1234: "-1,234", -123: "-123", 100: "100", math.Inf(1): "–",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{1: "1 B", 1024: "1 KiB", 65536: "64 KiB", 1 << 20: "1 MiB", 1.5 * (1 << 30): "1.5 GiB", 24600: "24.0234 KiB"} {
		if got := Bytes(v); got != want {
			t.Errorf("Bytes(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestColours(t *testing.T) {
	seen := map[string]string{}
	for _, c := range colours {
		for _, shade := range []string{"light " + c.light, "dark " + c.dark} {
			if seen[shade] != "" {
				t.Errorf("%q and %q are both %s", seen[shade], c.key, shade)
			}
			seen[shade] = c.key
		}
	}
	if class("someone") != class("") || class("haproxy") == class("pointsman") {
		t.Error("programs have the wrong colours")
	}
}
