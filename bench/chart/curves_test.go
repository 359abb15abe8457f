package chart

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// latencies are not measured: a curve that rises like real ones.
func latencies() Curves {
	d := Curves{
		Title: "Latency at a fixed rate: 100 B, 16 sessions",
		Note:  "30,000 messages a second through each; less is better",
		X:     Axis{Label: "share of messages that are at least as fast", Scale: Percentile},
		Y:     Axis{Label: "latency, us", Scale: Log},
	}
	for i, key := range []string{"haproxy", "nginx", "dnat", "pointsman"} {
		curve := Curve{Key: key, Name: []string{"HAProxy 2.6.12", "nginx 1.22.1", "kernel DNAT", "pointsman"}[i]}
		for nines := 0.0; nines <= 4; nines += 0.05 {
			curve.Points = append(curve.Points, Point{1 - math.Pow(10, -nines), []float64{62, 60, 30, 52}[i] * math.Exp(nines*nines/7)})
		}
		d.Curves = append(d.Curves, curve)
	}
	return d
}

func growth() Curves {
	return Curves{
		Title: "CPU per message over the number of sessions",
		Note:  "100 B ping-pong; less is better",
		X:     Axis{Label: "sessions", Scale: Log, Ticks: []float64{10, 100, 1000, 9000}},
		Y:     Axis{Label: "proxy's CPU per round trip, us", Scale: Linear},
		Curves: []Curve{
			{Key: "pointsman", Name: "pointsman", Points: []Point{{10, 15}, {100, 15.1}, {1000, 16.2}, {9000, 18}}},
			{Key: "haproxy", Name: "HAProxy 2.6.12", Points: []Point{{10, 17}, {100, 17.3}, {1000, 19.5}, {9000, 24}}},
			{Key: "haproxy-splice", Name: "HAProxy splice-auto", Points: []Point{{10, 17.1}, {100, 17.3}, {1000, math.NaN()}, {9000, 24.1}}},
		},
	}
}

func TestCurves(t *testing.T) {
	for name, d := range map[string]Curves{"latency.svg": latencies(), "growth.svg": growth()} {
		svg := must(t, d.SVG)
		golden(t, name, svg)
		all := parse(t, svg)
		for _, curve := range d.Curves {
			if n := len(having(all, "rect", class(curve.Key))); n != 1 {
				t.Errorf("%s: %s is named %d times", name, curve.Key, n)
			}
		}
	}
}

// What is drawn lies where the axes say.
func TestCurvesPlaces(t *testing.T) {
	d := growth()
	all := parse(t, must(t, d.SVG))
	const bottom = plotTop + plotHeight
	dots := having(all, "circle", class("haproxy"))
	if len(dots) != 4 {
		t.Fatalf("%d dots for 4 points", len(dots))
	}
	for i, p := range d.Curves[1].Points {
		// The axis is linear from 0 to the tick above the greatest value.
		if want := bottom - plotHeight*p.Y/25; math.Abs(dots[i].num(t, "cy")-want) > 0.02 {
			t.Errorf("%v is at %v, want %v", p.Y, dots[i].num(t, "cy"), want)
		}
	}
	decade := dots[1].num(t, "cx") - dots[0].num(t, "cx")
	if next := dots[2].num(t, "cx") - dots[1].num(t, "cx"); math.Abs(decade-next) > 0.02 {
		t.Errorf("one decade is %v wide, the next %v", decade, next)
	}
	// The gap leaves a lone point and a lone last one, not a bridge.
	if n := len(having(all, "path", "l"+class("haproxy-splice")[1:])); n != 2 {
		t.Errorf("a curve with a gap has %d parts", n)
	}
	// pointsman lies over the others.
	lines := having(all, "path", "line")
	if last := lines[len(lines)-1]; !strings.Contains(last.attr["class"], "l"+class("pointsman")[1:]) {
		t.Errorf("the last line is %q", last.attr["class"])
	}
}

func TestNamesKeepApart(t *testing.T) {
	d := Curves{Title: "t", X: Axis{Scale: Linear}, Y: Axis{Scale: Linear}}
	for i := range 6 {
		d.Curves = append(d.Curves, Curve{Key: "haproxy", Name: fmt.Sprint("curve ", i), Points: []Point{{0, 1}, {1, float64(i) / 100}}})
	}
	var at []float64
	for _, e := range parse(t, must(t, d.SVG)) {
		if strings.HasPrefix(e.text, "curve ") {
			at = append(at, e.num(t, "y"))
		}
	}
	slices.Sort(at)
	if len(at) != 6 || at[5] > plotTop+plotHeight+6 {
		t.Fatalf("names are at %v", at)
	}
	for i := 1; i < len(at); i++ {
		if at[i]-at[i-1] < textSize {
			t.Errorf("names are at %v", at)
		}
	}
}

func TestCurvesRefuse(t *testing.T) {
	for name, d := range map[string]Curves{
		"nothing":          {},
		"no points":        {Curves: []Curve{{Key: "haproxy"}}},
		"only NaN":         {Curves: []Curve{{Points: []Point{{math.NaN(), 1}, {1, math.Inf(1)}}}}},
		"zero on log":      {Y: Axis{Scale: Log}, Curves: []Curve{{Points: []Point{{1, 0}, {2, -1}}}}},
		"1 as percentile":  {X: Axis{Scale: Percentile}, Curves: []Curve{{Points: []Point{{1, 5}}}}},
		"both never drawn": {X: Axis{Scale: Log}, Y: Axis{Scale: Log}, Curves: []Curve{{Points: []Point{{0, 5}, {5, 0}}}}},
	} {
		if _, err := d.SVG(); err == nil {
			t.Errorf("%s: drawn", name)
		}
	}
}

func TestTicks(t *testing.T) {
	tests := []struct {
		got, want []float64
	}{
		{linearTicks(0, 1.78, 6), []float64{0, 0.5, 1, 1.5}},
		{linearTicks(0, 24, 6), []float64{0, 5, 10, 15, 20}},
		{linearTicks(0, 60, 6), []float64{0, 10, 20, 30, 40, 50, 60}},
		{linearTicks(3, 3, 6), []float64{3}},
		{logTicks(30, 430), []float64{20, 50, 100, 200, 500}},
		{logTicks(20, 500), []float64{20, 50, 100, 200, 500}},
		{logTicks(1, 1<<20), []float64{1, 10, 100, 1000, 1e4, 1e5, 1e6, 1e7}},
		{logTicks(7, 7), []float64{5, 10}},
	}
	for _, test := range tests {
		if !slices.EqualFunc(test.got, test.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9*math.Abs(b)+1e-12 }) {
			t.Errorf("ticks %v, want %v", test.got, test.want)
		}
	}
}
