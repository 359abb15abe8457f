package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// baseline is the proxy that the others are compared with.
const baseline = "haproxy"

// report is the JSON file, and what the table is made of.
type report struct {
	When    time.Time         `json:"when"`
	Kernel  string            `json:"kernel"`
	Cores   int               `json:"cores"`
	TCP     string            `json:"tcp_congestion_control"`
	Rounds  int               `json:"rounds"`
	Seconds float64           `json:"seconds"`
	Awake   bool              `json:"cores_kept_awake"`
	Order   []string          `json:"proxies"`
	Titles  map[string]string `json:"titles"` // by proxy
	Results []*result         `json:"results"`
	Rows    []row             `json:"rows"`
}

// result is one workload through one proxy.
type result struct {
	Workload string   `json:"workload"`
	Proxy    string   `json:"proxy"`
	Samples  []sample `json:"samples"`
	Failures []string `json:"failures,omitempty"`
	workload workload
}

// row is one line of the table.
type row struct {
	Workload string             `json:"workload"`
	Title    string             `json:"title"`
	Metric   string             `json:"metric"`
	Unit     string             `json:"unit"`
	Median   map[string]float64 `json:"median"` // by proxy; missing where nothing could be measured
	Ratio    map[string]float64 `json:"ratio"`  // to the baseline
	digits   int
}

func newReport(o options) *report {
	r := &report{When: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), Rounds: o.rounds, Seconds: o.measure.Seconds(), Order: names(o.proxies), Titles: map[string]string{}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	// It decides how smoothly a bulk stream flows, and is the machine's choice.
	if text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil {
		r.TCP = strings.TrimSpace(string(text))
	}
	return r
}

func (r *report) find(workload, proxy string) *result {
	for _, res := range r.Results {
		if res.Workload == workload && res.Proxy == proxy {
			return res
		}
	}
	return nil
}

func (r *report) add(w workload, p proxy, s sample, err error) {
	res := r.find(w.name, p.name)
	if res == nil {
		res = &result{Workload: w.name, Proxy: p.name, workload: w}
		r.Results = append(r.Results, res)
	}
	if err != nil {
		res.Failures = append(res.Failures, err.Error())
		return
	}
	res.Samples = append(res.Samples, s)
}

func (r *report) failures() []string {
	var out []string
	for _, res := range r.Results {
		for _, text := range res.Failures {
			out = append(out, res.Workload+" through "+res.Proxy+": "+text)
		}
	}
	return out
}

// finish makes the rows of the results.
func (r *report) finish() {
	seen := map[string]bool{}
	for _, res := range r.Results {
		if !seen[res.Workload] {
			seen[res.Workload] = true
			for _, m := range metrics[res.workload.kind] {
				r.Rows = append(r.Rows, r.row(res.workload, m))
			}
		}
	}
}

func (r *report) row(w workload, m metric) row {
	out := row{Workload: w.name, Title: w.title, Metric: m.name, Unit: m.unit, digits: m.digits, Median: map[string]float64{}, Ratio: map[string]float64{}}
	for _, p := range r.Order {
		if res := r.find(w.name, p); res != nil && len(res.Samples) > 0 {
			out.Median[p] = m.value(res.Samples)
		}
	}
	if base := out.Median[baseline]; base > 0 {
		for p, v := range out.Median {
			out.Ratio[p] = v / base
		}
	}
	return out
}

// print writes the table as aligned Markdown, and how far it can be trusted.
func (r *report) print(out io.Writer) error {
	lines := [][]string{{""}}
	for _, p := range r.Order {
		lines[0] = append(lines[0], r.Titles[p])
	}
	title := ""
	for _, row := range r.Rows {
		if row.Title != title {
			title = row.Title
			lines = append(lines, append([]string{"**" + title + "**"}, make([]string, len(r.Order))...))
		}
		lines = append(lines, row.cells(r.Order))
	}
	text := align(lines) + "\n" + r.footer()
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	return nil
}

func (row row) cells(proxies []string) []string {
	out := []string{row.Metric + ", " + row.Unit}
	for _, p := range proxies {
		cell := "failed"
		if v, ok := row.Median[p]; ok {
			cell = fmt.Sprintf("%.*f", row.digits, v)
		}
		if ratio, ok := row.Ratio[p]; ok && p != baseline {
			cell += fmt.Sprintf(" (%.2f)", ratio)
		}
		out = append(out, cell)
	}
	return out
}

// align lays a table out; the first line is its head.
func align(lines [][]string) string {
	width := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			width[i] = max(width[i], len(cell), 3)
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
	text := fmt.Sprintf("Medians of %d rounds of %.1f s, in turns; in brackets: times HAProxy's. Linux %s, %d cores%s, loopback, TCP %s, %d threads each.\n", r.Rounds, r.Seconds, r.Kernel, r.Cores, awake, r.TCP, threads)
	others := map[string][]float64{} // by workload: the share of other programs
	client, server := 0.0, 0.0
	for _, res := range r.Results {
		for _, s := range res.Samples {
			if s.Seconds > 0 {
				others[res.Workload] = append(others[res.Workload], s.OtherShare)
				client, server = max(client, s.Client/s.Seconds), max(server, s.Server/s.Seconds)
			}
		}
	}
	if len(others) == 0 {
		return text
	}
	text += fmt.Sprintf("The client used at most %.0f %% of a core, the server %.0f %%.\n", 100*client, 100*server)
	for _, name := range slices.Sorted(maps.Keys(others)) {
		if share := median(others[name]); share > disturbed {
			text += fmt.Sprintf("DISTURBED: during %s other programs used %.0f %% of the machine.\n", name, 100*share)
		}
	}
	return text
}

// write puts every figure into a file.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// brief is one sample in a few words.
func brief(w workload, s sample) string {
	var out []string
	for _, m := range metrics[w.kind] {
		out = append(out, fmt.Sprintf("%s %.*f %s", m.name, m.digits, m.value([]sample{s}), m.unit))
	}
	return strings.Join(out, ", ")
}
