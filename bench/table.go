package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// print writes the tables as aligned Markdown, and how far they can be trusted.
func (r *report) print(out io.Writer) error {
	text := ""
	for _, part := range []string{"rows", "notes", "calls", "curves", "limits"} {
		if part := r.part(part); part != "" {
			text += part + "\n"
		}
	}
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	return nil
}

// parts are what can be shown by itself, in a page say.
var parts = []string{"rows", "short", "notes", "calls", "curves", "limits"}

func (r *report) part(name string) string {
	switch name {
	case "rows":
		return r.rowsTable()
	case "short":
		return r.shortTable()
	case "notes":
		return r.footer()
	case "calls":
		return r.callsTable()
	case "curves":
		return r.curvesTables()
	case "limits":
		return r.limitsTable()
	}
	return ""
}

// shortKeys are the rows that a reader in a hurry gets.
var shortKeys = map[kind][]string{
	pingPong: {"rate", "p99", "typical", "cpu", "user"}, connectClose: {"rate", "p99", "typical", "cpu", "user"}, transactions: {"rate", "p99", "cpu"},
	bulk: {"rate", "cpu"}, copying: {"rate", "cpu"}, idle: {"memory"}, fence: {"fenced"},
}

// shortTable has a line for each of the main rows. Latency is the typical p99
// at the fixed rate, where there is one.
func (r *report) shortTable() string {
	lines := [][]string{{""}}
	for _, p := range r.Order {
		lines[0] = append(lines[0], r.Titles[p])
	}
	title := ""
	for _, row := range r.Rows {
		w, err := workloadOf(row.Workload, 0)
		if err != nil || w.curve != "" || !slices.Contains(shortKeys[w.kind], row.Key) {
			continue
		}
		fixed := strings.HasSuffix(row.Workload, fixedSuffix)
		_, hasFixed := r.lookUp(row.Workload+fixedSuffix, "typical")
		if fixed != (row.Key == "typical") || row.Key == "p99" && hasFixed {
			continue
		}
		cells := row.cells(r.Order)
		if fixed {
			_, at, _ := strings.Cut(row.Title, ", at ")
			cells[0] = "p99 at " + at + ", us"
		} else if row.Title != title {
			title = row.Title
			cells[0] = "**" + title + "**: " + cells[0]
		}
		lines = append(lines, cells)
	}
	return align(lines)
}

func (r *report) rowsTable() string {
	lines := [][]string{{""}}
	for _, p := range r.Order {
		lines[0] = append(lines[0], r.Titles[p])
	}
	title := ""
	for _, row := range r.Rows {
		if w, err := workloadOf(row.Workload, 0); err == nil && w.curve != "" {
			continue
		}
		if row.Title != title {
			title = row.Title
			lines = append(lines, append([]string{"**" + title + "**"}, make([]string, len(r.Order))...))
		}
		lines = append(lines, row.cells(r.Order))
	}
	if len(lines) == 1 {
		return ""
	}
	return align(lines)
}

func (row row) cells(proxies []string) []string {
	name := row.Metric
	if row.Unit != "" {
		name += ", " + row.Unit
	}
	out := []string{name}
	for _, p := range proxies {
		cell := ""
		if v, ok := row.Median[p]; ok {
			cell = figure(v)
		} else if slices.Contains(row.Failed, p) {
			cell = "failed"
		}
		if ratio, ok := row.Ratio[p]; ok && p != baseline {
			cell += fmt.Sprintf(" (%.2f)", ratio)
		}
		out = append(out, cell)
	}
	return out
}

// callsTable says which system calls each proxy makes, per message and direction.
func (r *report) callsTable() string {
	lines := [][]string{{"system calls per message and direction"}}
	by := map[string][]string{} // cells by name of the call
	columns := 0
	for _, res := range r.Results {
		if res.Calls.Ops == 0 {
			continue
		}
		columns++
		lines[0] = append(lines[0], fmt.Sprintf("%s, %d", r.Titles[res.Proxy], res.workload.sessions))
		for name, n := range res.Calls.Syscalls {
			each := float64(n) / float64(2*res.Calls.Ops)
			if each < 0.005 {
				continue
			}
			for len(by[name]) < columns {
				by[name] = append(by[name], "")
			}
			by[name][columns-1] = fmt.Sprintf("%.2f", each)
		}
	}
	if columns == 0 {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		line := append([]string{name}, by[name]...)
		lines = append(lines, append(line, make([]string, columns+1-len(line))...))
	}
	return align(lines)
}

// align lays a table out; the first line is its head.
func align(lines [][]string) string {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			width[i] = max(width[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	for n, line := range lines {
		for i, cell := range line {
			if i == 0 {
				fmt.Fprintf(&b, "| %-*s ", width[i], cell)
			} else {
				fmt.Fprintf(&b, "| %*s ", width[i], cell)
			}
		}
		b.WriteString("|\n")
		if n == 0 {
			for i, w := range width {
				rule := strings.Repeat("-", w)
				if i > 0 {
					rule = rule[1:] + ":"
				}
				b.WriteString("| " + rule + " ")
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}

// footer says what the figures are, and what may have disturbed them.
func (r *report) footer() string {
	awake := ""
	if r.Awake {
		awake = " kept awake"
	}
	text := fmt.Sprintf("Medians of %d rounds of %.1f s, in turns; in brackets: times HAProxy's. Linux %s, %d cores%s, %s, TCP %s, %d threads each; user mode by %s.\n",
		r.Rounds, r.Seconds, r.Kernel, r.Cores, awake, r.Place, r.TCP, threads, r.User)
	others := map[string][]float64{} // by workload: the share of other programs
	client, server, late, stolen, all := 0.0, 0.0, 0.0, 0.0, 0.0
	for _, res := range r.Results {
		for _, s := range res.Samples {
			if s.Seconds > 0 {
				others[res.Workload] = append(others[res.Workload], s.OtherShare)
				client, server = max(client, s.Client/s.Seconds), max(server, s.Server/s.Seconds)
			}
			late = max(late, s.Late)
			stolen, all = stolen+s.Stolen, all+s.Seconds*float64(r.Cores)
		}
	}
	if len(others) == 0 {
		return text
	}
	text += fmt.Sprintf("The client used at most %.0f %% of a core, the server %.0f %%.", 100*client, 100*server)
	if late > 0 {
		text += fmt.Sprintf(" At fixed rates 99 %% of the requests were sent at most %.0f us late; latency counts from when they were due.", late)
	}
	if stolen > 0 {
		text += fmt.Sprintf(" The hypervisor took %.1f %% of the time away, in pauses.", 100*stolen/all)
	}
	text += "\n"
	for _, name := range slices.Sorted(maps.Keys(others)) {
		if share := median(others[name]); share > disturbed {
			text += fmt.Sprintf("DISTURBED: during %s other programs used %.0f %% of the machine.\n", name, 100*share)
		}
	}
	return text
}
