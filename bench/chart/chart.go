// Package chart draws the benchmark's pictures as SVG: grouped bars, curves and
// flame graphs. It gets plain data and knows nothing of how they were measured.
//
// The same data give the same bytes, so that pictures can be kept beside the
// figures and compared. Text stays text. Every picture has a background of its
// own and two sets of colours, for light and for dark pages.
package chart

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// width of every picture, in pixels: a README on GitHub shows about as many.
const width = 840

const (
	margin    = 24 // from the picture's edge to its content
	titleSize = 17
	textSize  = 12.5
)

// colours are those of Okabe and Ito, which people with any kind of colour
// blindness tell apart (https://jfly.uni-koeln.de/color/), lighter on dark
// pages. What is known by name has the same colour in all pictures.
var colours = []struct{ key, light, dark string }{
	{"pointsman", "#0072b2", "#3f9fe0"},
	{"haproxy", "#e08a00", "#e69f00"},
	{"haproxy-splice", "#f2c46d", "#8f6a1c"},
	{"nginx", "#009e73", "#2bb58c"},
	{"dnat", "#8c8c8c", "#8b949e"},
	{"copy", "#cc79a7", "#d58fb7"},
	{"old", "#56b4e9", "#8ecbf2"},
	{"", "#d55e00", "#e8793a"}, // whoever else
}

// class is the name of a program's colour in the style sheet.
func class(key string) string {
	for i, c := range colours {
		if c.key == key || c.key == "" {
			return "c" + strconv.Itoa(i)
		}
	}
	panic("colours has no last resort")
}

// style is the head of every picture. Renderers that know no media queries show
// the light colours.
func style() string {
	light, dark := "", ""
	for i, c := range colours {
		light += fmt.Sprintf(".c%d{fill:%s}.l%d{stroke:%s}", i, c.light, i, c.light)
		dark += fmt.Sprintf(".c%d{fill:%s}.l%d{stroke:%s}", i, c.dark, i, c.dark)
	}
	return `text{font-family:system-ui,-apple-system,"Segoe UI","Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}` +
		`.title{font-weight:600}.strong{font-weight:600}.line{fill:none;stroke-linejoin:round;stroke-linecap:round}` +
		`.page{fill:#ffffff;stroke:#d1d9e0}.text{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#e6e9ed}.mark{stroke:#59636e}` +
		`.halo{paint-order:stroke;stroke-width:3px;stroke:#ffffff}` +
		`.user{fill:#9cc7e8}.kernel{fill:#f4c98b}.frame{fill:#1f2328}` + light +
		`@media(prefers-color-scheme:dark){` +
		`.page{fill:#0d1117;stroke:#3d444d}.text{fill:#e6edf3}.faint{fill:#9198a1}.grid{stroke:#262c36}.mark{stroke:#9198a1}.halo{stroke:#0d1117}` +
		`.user{fill:#2f6690}.kernel{fill:#8a5a1f}.frame{fill:#f0f6fc}` + dark + `}`
}

// canvas collects a picture. Its first error ends it: a coordinate that is no
// number would spoil the picture silently.
type canvas struct {
	b   bytes.Buffer
	err error
}

// newCanvas begins a picture of this height, with title and note at its top.
func newCanvas(height float64, title, note string) *canvas {
	c := &canvas{}
	c.raw(fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %s" width="%d" height="%s" role="img">`, width, c.num(height), width, c.num(height)))
	c.raw("<title>" + escape(title) + "</title><style>" + style() + "</style>\n")
	c.raw(fmt.Sprintf(`<rect class="page" x="0.5" y="0.5" width="%d" height="%s" rx="6"/>`+"\n", width-1, c.num(height-1)))
	c.text(margin, 34, "title text", titleSize, "start", title)
	c.text(margin, 54, "faint", textSize, "start", note)
	return c
}

// bytes ends the picture.
func (c *canvas) bytes() ([]byte, error) {
	c.raw("</svg>\n")
	return c.b.Bytes(), c.err
}

func (c *canvas) raw(text string) { c.b.WriteString(text) }

func (c *canvas) rect(x, y, w, h float64, class, tooltip string) {
	c.raw(fmt.Sprintf(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"`, class, c.num(x), c.num(y), c.num(w), c.num(h)))
	if tooltip == "" {
		c.raw("/>\n")
		return
	}
	c.raw("><title>" + escape(tooltip) + "</title></rect>\n")
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	c.raw(fmt.Sprintf(`<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n", class, c.num(x1), c.num(y1), c.num(x2), c.num(y2)))
}

// text writes a line; anchor is start, middle or end.
func (c *canvas) text(x, y float64, class string, size float64, anchor, text string) {
	if text != "" {
		c.raw(fmt.Sprintf(`<text class="%s" x="%s" y="%s" font-size="%s" text-anchor="%s">%s</text>`+"\n", class, c.num(x), c.num(y), c.num(size), anchor, escape(text)))
	}
}

// num writes a coordinate, to a hundredth of a pixel.
func (c *canvas) num(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		if c.err == nil {
			c.err = fmt.Errorf("drawing: %v is no coordinate", v)
		}
		return "0"
	}
	text := strconv.FormatFloat(v, 'f', 2, 64)
	text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	if text == "-0" {
		return "0"
	}
	return text
}

// escaper also drops what XML 1.0 cannot carry.
var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func escape(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
	return escaper.Replace(text)
}

// textWidth guesses how wide a line is: who shows the picture has a font of
// their own. The shares of the size are DejaVu's, roughly, which is wide.
func textWidth(text string, size float64) float64 {
	sum := 0.0
	for _, r := range text {
		switch {
		case strings.ContainsRune("iljtfrI.,:;'!|()[] /", r):
			sum += 0.36
		case strings.ContainsRune("mwMW%@", r):
			sum += 0.92
		case r >= 'A' && r <= 'Z':
			sum += 0.70
		default:
			sum += 0.62
		}
	}
	return sum * size
}

// legend names the colours in one line that begins at y.
func (c *canvas) legend(y float64, series []Series) {
	x := float64(margin)
	for _, s := range series {
		c.rect(x, y, 11, 11, class(s.Key), "")
		c.text(x+17, y+10, "text", textSize, "start", s.Name)
		x += 17 + textWidth(s.Name, textSize) + 20
	}
}

// number writes a measured value for people, with about three significant
// digits and a comma between thousands.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	digits := 0
	for limit := 99.95; math.Abs(v) < limit && digits < 2 && v != 0; limit = 9.995 {
		digits++
	}
	if v != 0 && math.Abs(v) < 0.1 {
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return thousands(strconv.FormatFloat(v, 'f', digits, 64))
}

// tick writes a round value as short as it is.
func tick(v float64) string {
	text := strconv.FormatFloat(v, 'g', 6, 64)
	if v, err := strconv.ParseFloat(text, 64); err == nil && (v == 0 || math.Abs(v) >= 1e-4 && math.Abs(v) < 1e12) {
		text = thousands(strconv.FormatFloat(v, 'f', -1, 64))
	}
	return text
}

func thousands(text string) string {
	whole, rest, point := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if point {
		return whole + "." + rest
	}
	return whole
}
