package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pointsman/bench/chart"
)

// result is what was seen of one proxy, in all rounds.
type result struct {
	subject
	rounds  []round            // undisturbed
	sampled []round            // while samples were taken
	calls   map[string]float64 // counted, by name
	stacks  map[string]int     // samples, by folded stack
}

// messages is how many were sent on while calls were counted, both directions
// together: in a ping-pong, no two messages ever share a call.
func (r *result) messages() float64 {
	sum := 0.0
	for _, name := range []string{"write", "writev", "sendto", "sendmsg"} {
		sum += r.calls[name]
	}
	return sum
}

// cpu is the median CPU of a round trip, us.
func (r *result) cpu() float64 {
	return median(r.rounds, func(x round) float64 { return x.CPU / x.Ops * 1e6 })
}

// rate is the median of round trips, a second.
func rate(rounds []round) float64 {
	return median(rounds, func(x round) float64 { return x.Ops / x.Seconds })
}

func median(rounds []round, figure func(round) float64) float64 {
	var all []float64
	for _, x := range rounds {
		all = append(all, figure(x))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func (r *result) samples() int {
	sum := 0
	for _, n := range r.stacks {
		sum += n
	}
	return sum
}

// callTable shows calls for each message and direction. What is below a
// hundredth in all proxies is in "others".
func callTable(o options, results []*result) string {
	most := map[string]float64{}
	for _, r := range results {
		for name, n := range r.calls {
			most[name] = max(most[name], n/r.messages())
		}
	}
	delete(most, allCalls)
	maps.DeleteFunc(most, func(_ string, n float64) bool { return n < 0.01 })
	names := slices.SortedFunc(maps.Keys(most), func(a, b string) int {
		return cmp.Or(cmp.Compare(most[b], most[a]), cmp.Compare(a, b))
	})
	var b strings.Builder
	head(&b, fmt.Sprintf("system calls for each message and direction (%d B, %d sessions)", o.size, o.sessions), results)
	row := func(title string, figure func(*result) float64) {
		fmt.Fprintf(&b, "| %s |", title)
		for _, r := range results {
			fmt.Fprintf(&b, " %.2f |", figure(r)/r.messages())
		}
		b.WriteString("\n")
	}
	for _, name := range names {
		row("`"+name+"`", func(r *result) float64 { return r.calls[name] })
	}
	row("others", func(r *result) float64 {
		rest := r.calls[allCalls]
		for _, name := range names {
			rest -= r.calls[name]
		}
		return max(rest, 0) // the events do not begin all at once
	})
	row("**all**", func(r *result) float64 { return r.calls[allCalls] })
	return b.String()
}

// timeTable shows what the CPU of a round trip is spent on.
func timeTable(o options, results []*result) string {
	var b strings.Builder
	head(&b, fmt.Sprintf("CPU of a round trip (%d B, %d sessions), us", o.size, o.sessions), results)
	sums := make([]map[string]int, len(results))
	for i, r := range results {
		sums[i] = map[string]int{}
		for stack, n := range r.stacks {
			sums[i][judge(stack)] += n
		}
	}
	for _, title := range titles() {
		fmt.Fprintf(&b, "| %s |", title)
		for i, r := range results {
			share := float64(sums[i][title]) / float64(max(r.samples(), 1))
			fmt.Fprintf(&b, " %.2f (%.0f %%) |", share*r.cpu(), 100*share)
		}
		b.WriteString("\n")
	}
	for _, line := range []struct {
		title, format string
		figure        func(*result) float64
	}{
		{"**all**", "**%.2f**", (*result).cpu},
		{"round trips a second", "%.0f", func(r *result) float64 { return rate(r.rounds) }},
		{"the same while samples are taken", "%.0f", func(r *result) float64 { return rate(r.sampled) }},
		{"CPU of the machine that other programs used, %", "%.0f", func(r *result) float64 {
			return 100 * median(r.rounds, func(x round) float64 { return x.Others })
		}},
		{"samples", "%.0f", func(r *result) float64 { return float64(r.samples()) }},
	} {
		fmt.Fprintf(&b, "| %s |", line.title)
		for _, r := range results {
			fmt.Fprintf(&b, " "+line.format+" |", line.figure(r))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func head(b *strings.Builder, title string, results []*result) {
	fmt.Fprintf(b, "| %s |", title)
	for _, r := range results {
		fmt.Fprintf(b, " %s |", r.title)
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(results)) + "\n")
}

// flame draws a proxy's flame graph.
func (r *result) flame(o options) ([]byte, error) {
	f := chart.Flame{
		Title: r.title + ": where the CPU goes",
		Note:  fmt.Sprintf("%d B ping-pong, %d sessions; %d samples; blue: user mode, orange: kernel", o.size, o.sessions, r.samples()),
	}
	var folded bytes.Buffer
	for _, stack := range slices.Sorted(maps.Keys(r.stacks)) {
		fmt.Fprintf(&folded, "%s %d\n", stack, r.stacks[stack])
	}
	if err := f.Add(&folded); err != nil {
		return nil, err
	}
	return f.SVG()
}
