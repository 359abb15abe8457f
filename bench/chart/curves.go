package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Point is one point of a curve. One that an axis has no place for, as 0 on a
// logarithmic one or NaN, leaves a gap.
type Point struct{ X, Y float64 }

// Curve is one program's points, from left to right.
type Curve struct {
	Key    string // as in Series
	Name   string
	Points []Point
}

// Curves are lines over a common axis: latencies over percentiles, or how a
// cost grows.
type Curves struct {
	Title  string
	Note   string
	X, Y   Axis
	Curves []Curve
}

const (
	plotTop    = 92
	plotHeight = 300
)

// SVG returns the picture, or an error if there is nothing that could be drawn.
func (d Curves) SVG() ([]byte, error) {
	var xs, ys []float64
	right := 0.0
	for _, curve := range d.Curves {
		right = max(right, textWidth(curve.Name, textSize))
		for _, p := range curve.Points {
			_, okX := d.X.Scale.place(p.X)
			_, okY := d.Y.Scale.place(p.Y)
			if okX && okY {
				xs, ys = append(xs, p.X), append(ys, p.Y)
			}
		}
	}
	x, err := d.X.fit(xs)
	if err != nil {
		return nil, fmt.Errorf("drawing %q: %w", d.Title, err)
	}
	y, err := d.Y.fit(ys)
	if err != nil {
		return nil, fmt.Errorf("drawing %q: %w", d.Title, err)
	}
	left := 0.0
	for _, v := range y.Ticks {
		left = max(left, textWidth(y.Format(v), textSize-1))
	}
	a := area{x, y, margin + left + 10, width - margin - right - 26}
	c := newCanvas(plotTop+plotHeight+60, d.Title, d.Note)
	a.grid(c)
	for _, curve := range inFront(d.Curves) {
		a.curve(c, curve)
	}
	a.names(c, d.Curves)
	return c.bytes()
}

// inFront puts pointsman last, so that it is drawn over the others.
func inFront(curves []Curve) []Curve {
	out := slices.Clone(curves)
	slices.SortStableFunc(out, func(a, b Curve) int {
		rank := map[bool]int{true: 1}
		return cmp.Compare(rank[a.Key == "pointsman"], rank[b.Key == "pointsman"])
	})
	return out
}

// area is where the curves are drawn.
type area struct {
	x, y        span
	left, right float64 // its edges
}

// at returns the place of a point in the picture.
func (a area) at(p Point) (x, y float64, ok bool) {
	sx, okX := a.x.share(p.X)
	sy, okY := a.y.share(p.Y)
	return a.left + sx*(a.right-a.left), plotTop + (1-sy)*plotHeight, okX && okY
}

func (a area) grid(c *canvas) {
	const bottom = plotTop + plotHeight
	for _, v := range a.y.Ticks {
		share, _ := a.y.share(v)
		at := plotTop + (1-share)*plotHeight
		c.line(a.left, at, a.right, at, "grid")
		c.text(a.left-8, at+4, "faint", textSize-1, "end", a.y.Format(v))
	}
	for _, v := range a.x.Ticks {
		share, _ := a.x.share(v)
		at := a.left + share*(a.right-a.left)
		c.line(at, bottom, at, bottom+5, "mark")
		c.text(at, bottom+20, "faint", textSize-1, "middle", a.x.Format(v))
	}
	c.line(a.left, bottom, a.right, bottom, "mark")
	c.text(margin, plotTop-14, "faint", textSize-1, "start", a.y.Label)
	c.text((a.left+a.right)/2, bottom+42, "faint", textSize-1, "middle", a.x.Label)
}

// dots are drawn where single points can be told apart.
const dots = 16

func (a area) curve(c *canvas, curve Curve) {
	stroke := "l" + class(curve.Key)[1:]
	thick := "1.8"
	if curve.Key == "pointsman" {
		thick = "2.6"
	}
	for _, part := range a.parts(curve.Points) {
		var path strings.Builder
		for i, p := range part {
			letter := "L"
			if i == 0 {
				letter = "M"
			}
			path.WriteString(letter + c.num(p.X) + " " + c.num(p.Y))
		}
		c.raw(fmt.Sprintf(`<path class="line %s" stroke-width="%s" d="%s"/>`+"\n", stroke, thick, path.String()))
		if len(curve.Points) > dots {
			continue
		}
		for _, p := range part {
			c.raw(fmt.Sprintf(`<circle class="%s" cx="%s" cy="%s" r="3.2"/>`+"\n", class(curve.Key), c.num(p.X), c.num(p.Y)))
		}
	}
}

// parts returns the runs of points between gaps, in the picture's coordinates.
func (a area) parts(points []Point) [][]Point {
	var out [][]Point
	gap := true
	for _, p := range points {
		x, y, ok := a.at(p)
		switch {
		case ok && gap:
			out = append(out, []Point{{x, y}})
		case ok:
			out[len(out)-1] = append(out[len(out)-1], Point{x, y})
		}
		gap = !ok
	}
	return out
}

// names writes each curve's name beside its end, apart from the others.
func (a area) names(c *canvas, curves []Curve) {
	type name struct {
		Curve
		y float64
	}
	var all []name
	for _, curve := range curves {
		if parts := a.parts(curve.Points); len(parts) > 0 {
			last := parts[len(parts)-1]
			all = append(all, name{curve, last[len(last)-1].Y})
		}
	}
	slices.SortStableFunc(all, func(a, b name) int { return cmp.Compare(a.y, b.y) })
	const line = textSize + 3
	for i := range all {
		if i > 0 {
			all[i].y = max(all[i].y, all[i-1].y+line)
		}
	}
	// What was pushed below the area goes back up.
	limit := float64(plotTop + plotHeight)
	for i := len(all) - 1; i >= 0; i-- {
		all[i].y = math.Min(all[i].y, limit)
		limit = all[i].y - line
	}
	for _, n := range all {
		kind := "text"
		if n.Key == "pointsman" {
			kind = "text strong"
		}
		c.rect(a.right+8, n.y-1.5, 10, 3, class(n.Key), "")
		c.text(a.right+23, n.y+4.5, kind, textSize, "start", n.Name)
	}
}
