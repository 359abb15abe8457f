package chart

import (
	"fmt"
	"math"
)

// Series are the figures of one program.
type Series struct {
	Key    string    // haproxy, haproxy-splice, nginx, dnat, copy, pointsman, old: decides the colour
	Name   string    // as it is shown
	Values []float64 // one for each group, from 0 up; NaN: there is none, and no bar
	Labels []string  // shown at the bars; none: the values themselves
}

// Bars are grouped horizontal bars: a group for each workload, a bar for each
// program in it.
type Bars struct {
	Title    string
	Note     string // under the title: the unit, and which way is better
	Groups   []string
	Series   []Series
	Baseline float64 // a line to compare with, as 1 for ratios; 0: none
}

const (
	barHeight  = 13
	barStep    = 16
	groupGap   = 14
	groupsTop  = 96
	valueSpace = 110 // to the right of the longest bar, for its label
)

// SVG returns the picture, or an error if the data do not fit together.
func (b Bars) SVG() ([]byte, error) {
	most, err := b.most()
	if err != nil {
		return nil, fmt.Errorf("drawing %q: %w", b.Title, err)
	}
	left := 0.0
	for _, name := range b.Groups {
		left = max(left, textWidth(name, textSize))
	}
	left += margin + 14
	plot := width - left - valueSpace
	bottom := float64(groupsTop)
	tops := make([]float64, len(b.Groups))
	for i := range b.Groups {
		tops[i] = bottom
		bottom += float64(b.bars(i))*barStep - (barStep - barHeight) + groupGap
	}

	c := newCanvas(bottom+30, b.Title, b.Note)
	c.legend(70, b.Series)
	for _, at := range linearTicks(0, most, 6) {
		x := left + at/most*plot
		c.line(x, groupsTop-6, x, bottom-groupGap/2, "grid")
		c.text(x, bottom+9, "faint", textSize-1.5, "middle", tick(at))
	}
	if b.Baseline > 0 {
		x := left + b.Baseline/most*plot
		c.raw(`<g stroke-dasharray="3 3">`)
		c.line(x, groupsTop-6, x, bottom-groupGap/2, "mark")
		c.raw("</g>\n")
	}
	for i, top := range tops {
		c.text(left-10, top+float64(b.bars(i)*barStep)/2+3, "text", textSize, "end", b.Groups[i])
		b.group(c, i, left, top, plot/most)
	}
	return c.bytes()
}

// bars is how many rows the i-th group takes: one even if nobody has a value.
func (b Bars) bars(i int) int {
	n := 0
	for _, s := range b.Series {
		if !math.IsNaN(s.Values[i]) {
			n++
		}
	}
	return max(n, 1)
}

// group draws the bars of the i-th group; scale is pixels for one unit.
func (b Bars) group(c *canvas, i int, x, y, scale float64) {
	drawn := 0
	for _, s := range b.Series {
		v := s.Values[i]
		if math.IsNaN(v) {
			continue
		}
		drawn++
		label := number(v)
		if s.Labels != nil {
			label = s.Labels[i]
		}
		kind := "faint halo"
		if s.Key == "pointsman" {
			kind = "text strong halo"
		}
		c.rect(x, y, v*scale, barHeight, class(s.Key), b.Groups[i]+", "+s.Name+": "+label)
		c.text(x+v*scale+6, y+10.5, kind, textSize-1, "start", label)
		y += barStep
	}
	if drawn == 0 {
		c.text(x+6, y+10.5, "faint", textSize-1, "start", "–")
	}
}

// most returns the length of the value axis.
func (b Bars) most() (float64, error) {
	if len(b.Groups) == 0 || len(b.Series) == 0 {
		return 0, fmt.Errorf("%d groups and %d series", len(b.Groups), len(b.Series))
	}
	most := b.Baseline
	for _, s := range b.Series {
		if len(s.Values) != len(b.Groups) || s.Labels != nil && len(s.Labels) != len(b.Groups) {
			return 0, fmt.Errorf("%s has %d values and %d labels for %d groups", s.Key, len(s.Values), len(s.Labels), len(b.Groups))
		}
		for _, v := range s.Values {
			if v < 0 || math.IsInf(v, 0) {
				return 0, fmt.Errorf("%s has the value %v", s.Key, v)
			}
			if v > most { // false for NaN
				most = v
			}
		}
	}
	if most == 0 {
		most = 1
	}
	return most, nil
}
