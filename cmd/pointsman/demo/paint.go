package demo

import (
	"strings"
	"unicode/utf8"
)

// paint turns cells into lines for a terminal.
type paint struct{ colours, unicode bool }

// style is a rendition of ECMA-48 (SGR), as its parameters.
type style string

// The styles. Only the eight colours that every terminal has.
const (
	plain      style = ""
	bold       style = "1"
	faint      style = "2"
	underlined style = "2;4"
	reverse    style = "7"
	red        style = "31"
	green      style = "32"
	yellow     style = "33"
	alarm      style = "1;31"
	good       style = "1;32"
	notice     style = "1;33"
)

// cell is a piece of a line in one style.
type cell struct {
	text  string
	style style
}

// line returns the cells as one line, cut to width columns.
func (p paint) line(width int, cells ...cell) string {
	var b strings.Builder
	for _, c := range cells {
		text := fit(c.text, width)
		width -= utf8.RuneCountInString(text)
		if c.style == plain || !p.colours || text == "" {
			b.WriteString(text)
			continue
		}
		b.WriteString("\x1b[" + string(c.style) + "m" + text + "\x1b[0m")
	}
	return b.String()
}

// fit cuts text to at most width columns. All that is shown is one column
// wide, but for what a stranger's error message may hold: control characters
// become blanks, so that they cannot move the cursor.
func fit(text string, width int) string {
	var b strings.Builder
	for _, r := range text {
		if width--; width < 0 {
			break
		}
		if r < ' ' || r == 0x7f {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// wrap breaks text into lines of at most width columns, at blanks where it can.
// Lines after the first begin with indent.
func wrap(text string, width int, indent string) []string {
	width = max(width, 2*len(indent)+1)
	var lines []string
	for utf8.RuneCountInString(text) > width {
		runes := []rune(text)
		at := width
		for i := width; i > len(indent); i-- {
			if runes[i] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, string(runes[:at]))
		text = indent + strings.TrimLeft(string(runes[at:]), " ")
	}
	return append(lines, text)
}

// mark is one cell of a strip.
type mark byte

// The marks. In a cell of several frames the greatest stays.
const (
	markGap   mark = iota + 1 // nothing was acknowledged
	markOK                    // writes were acknowledged
	markError                 // a write failed
)

// strip is what happened lately, the newest last.
type strip []mark

// stripMax is as many cells as the widest strip shows.
const stripMax = 120

// add takes the next frame's mark into the newest cell, or begins another.
func (s *strip) add(m mark, begin bool) {
	if begin || len(*s) == 0 {
		*s = append(*s, 0)
	}
	last := &(*s)[len(*s)-1]
	*last = max(*last, m)
	*s = (*s)[max(0, len(*s)-stripMax):]
}

// strip shows the newest marks, as many as fit.
func (p paint) strip(s strip, width int) []cell {
	looks := map[mark]cell{markGap: {".", notice}, markOK: {"#", green}, markError: {"x", alarm}}
	if p.unicode {
		looks = map[mark]cell{markGap: {"·", notice}, markOK: {"■", green}, markError: {"✗", alarm}}
	}
	var cells []cell
	for _, m := range s[max(0, len(s)-width):] {
		look := looks[m]
		if n := len(cells); n > 0 && cells[n-1].style == look.style {
			cells[n-1].text += look.text
			continue
		}
		cells = append(cells, look)
	}
	return cells
}
