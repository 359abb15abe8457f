package chart

import (
	"fmt"
	"math"
	"slices"
)

// Scale says how an axis grows.
type Scale int

const (
	Linear     Scale = iota // from 0
	Log                     // values above 0
	Percentile              // shares of 1 below 1, on -log10(1-p): 0.9, 0.99, 0.999 lie equally far apart
)

// Axis is one axis of curves.
type Axis struct {
	Label  string // with the unit
	Scale  Scale
	Ticks  []float64            // nil: chosen to fit
	Format func(float64) string // of a tick; nil: a plain number
}

// Bytes formats an axis of sizes.
func Bytes(v float64) string {
	switch {
	case v >= 1<<30:
		return tick(v/(1<<30)) + " GiB"
	case v >= 1<<20:
		return tick(v/(1<<20)) + " MiB"
	case v >= 1<<10:
		return tick(v/(1<<10)) + " KiB"
	}
	return tick(v) + " B"
}

// nines are where a percentile axis has ticks.
var nines = []float64{0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999}

// place maps a value onto a line on which all scales are even; false if the
// axis has no place for it.
func (s Scale) place(v float64) (float64, bool) {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return 0, false
	case s == Log:
		return math.Log10(v), v > 0
	case s == Percentile:
		return -math.Log10(1 - v), v >= 0 && v < 1
	}
	return v, true
}

// span is the part of an axis that is shown, and where its ticks are.
type span struct {
	Axis
	from, to float64 // placed
}

// fit chooses the part of an axis that holds all values.
func (a Axis) fit(values []float64) (span, error) {
	s := span{Axis: a}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if _, ok := a.Scale.place(v); ok {
			low, high = min(low, v), max(high, v)
		}
	}
	if low > high {
		return s, fmt.Errorf("nothing to draw along %q", a.Label)
	}
	switch a.Scale {
	case Linear:
		low = min(low, 0)
		if s.Ticks == nil {
			s.Ticks = linearTicks(low, high, 6)
			if last := s.Ticks[len(s.Ticks)-1]; last < high && len(s.Ticks) > 1 {
				high = last + s.Ticks[1] - s.Ticks[0]
				s.Ticks = append(s.Ticks, high)
			}
		}
	case Log:
		if s.Ticks == nil {
			s.Ticks = logTicks(low, high)
			low, high = min(low, s.Ticks[0]), max(high, s.Ticks[len(s.Ticks)-1])
		}
	case Percentile:
		if s.Ticks == nil {
			s.Ticks = nines
		}
		if s.Format == nil {
			s.Format = func(v float64) string { return fmt.Sprintf("%.6g %%", 100*v) }
		}
	}
	s.from, _ = a.Scale.place(low)
	s.to, _ = a.Scale.place(high)
	if s.from == s.to {
		s.from, s.to = s.from-0.5, s.to+0.5
	}
	if s.Format == nil {
		s.Format = tick
	}
	s.Ticks = slices.DeleteFunc(slices.Clone(s.Ticks), func(v float64) bool { _, ok := s.share(v); return !ok })
	return s, nil
}

// share places a value between 0 and 1 along the span; false if it lies outside.
func (s span) share(v float64) (float64, bool) {
	at, ok := s.Scale.place(v)
	share := (at - s.from) / (s.to - s.from)
	const rounding = 1e-9
	return share, ok && share >= -rounding && share <= 1+rounding
}

// linearTicks returns at most about n round values from low to high.
func linearTicks(low, high float64, n int) []float64 {
	rough := (high - low) / float64(n)
	if rough <= 0 || math.IsInf(rough, 0) {
		return []float64{low}
	}
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if step*factor >= rough*0.999 {
			step *= factor
			break
		}
	}
	var out []float64
	for i := math.Ceil(low / step); i*step <= high*(1+1e-9); i++ {
		out = append(out, i*step)
	}
	return out
}

// logTicks returns 1, 2 and 5 of every power of ten, or only the powers where
// there are many, from at most low to at least high.
func logTicks(low, high float64) []float64 {
	factors := []float64{1, 2, 5}
	if high/low > 1e3 {
		factors = factors[:1]
	}
	var all []float64
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for _, f := range factors {
			// 10^e by way of its decimal text would be exact; Pow is, for whole e.
			all = append(all, f*math.Pow(10, e))
		}
	}
	first, last := 0, len(all)-1
	for first < last && all[first+1] <= low*(1+1e-9) {
		first++
	}
	for last > first && all[last-1] >= high*(1-1e-9) {
		last--
	}
	return all[first : last+1]
}
