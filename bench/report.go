package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pointsman/netlab"
)

// How the share of user mode was measured.
const (
	byTick    = "the kernel's tick"
	bySamples = "samples every 250 us of its CPU, in a run of their own"
)

// baseline is the proxy that the others are compared with.
const baseline = "haproxy"

// report is the JSON file, and what the tables and pictures are made of.
type report struct {
	When    time.Time         `json:"when"`
	Kernel  string            `json:"kernel"`
	Cores   int               `json:"cores"`
	Place   string            `json:"place"`
	TCP     string            `json:"tcp_congestion_control"`
	Rounds  int               `json:"rounds"`
	Seconds float64           `json:"seconds"`
	Awake   bool              `json:"cores_kept_awake"`
	User    string            `json:"user_mode_measured_by"`
	Order   []string          `json:"proxies"`
	Titles  map[string]string `json:"titles"` // by proxy
	Rows    []row             `json:"rows"`
	Limits  []verdict         `json:"limits,omitempty"`
	Curves  []curve           `json:"curves,omitempty"`
	Results []*result         `json:"results"`
}

// result is one workload through one proxy.
type result struct {
	Workload string     `json:"workload"`
	Proxy    string     `json:"proxy"`
	Kernel   bool       `json:"kernel,omitempty"` // no process of its own
	Rate     float64    `json:"fixed_rate,omitempty"`
	Samples  []sample   `json:"samples"`
	Times    *histogram `json:"latency,omitempty"` // of all rounds
	Profile  profile    `json:"profile,omitzero"`
	Calls    profile    `json:"calls,omitzero"`
	Failures []string   `json:"failures,omitempty"`
	workload workload
}

// row is one line of the table.
type row struct {
	Workload string             `json:"workload"`
	Title    string             `json:"title"`
	Key      string             `json:"key"`
	Metric   string             `json:"metric"`
	Unit     string             `json:"unit"`
	Median   map[string]float64 `json:"median"` // by proxy; missing where nothing could be measured
	Ratio    map[string]float64 `json:"ratio"`  // to the baseline
	Failed   []string           `json:"failed,omitempty"`
}

func newReport(o options) *report {
	r := &report{
		When: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), Place: o.place,
		Rounds: o.rounds, Seconds: o.measure.Seconds(), Titles: map[string]string{}, User: byTick,
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	// It decides how smoothly a bulk stream flows.
	r.TCP = netlab.CongestionControl
	if text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control"); err == nil && o.place == onLoopback {
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

// of returns the result of a workload through a proxy, a new one if need be.
func (r *report) of(w workload, p proxy) *result {
	res := r.find(w.name, p.name)
	if res == nil {
		res = &result{Workload: w.name, Proxy: p.name, Kernel: p.kernel, Rate: w.rate, workload: w}
		r.Results = append(r.Results, res)
	}
	if !slices.Contains(r.Order, p.name) {
		r.Order = append(r.Order, p.name)
	}
	return res
}

func (r *report) add(w workload, p proxy, s sample, err error) {
	res := r.of(w, p)
	if err != nil {
		res.Failures = append(res.Failures, err.Error())
		return
	}
	if s.Times != nil {
		if res.Times == nil {
			res.Times = new(histogram)
		}
		res.Times.merge(s.Times)
		s.Times = nil
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

// finish makes rows, verdicts and curves of the results.
func (r *report) finish() {
	// The order of allProxies, and not that in which they came up.
	var order []string
	for _, p := range allProxies {
		if slices.Contains(r.Order, p.name) {
			order = append(order, p.name)
		}
	}
	r.Order, r.Rows = order, nil
	seen := map[string]bool{}
	for _, res := range r.Results {
		if !seen[res.Workload] {
			seen[res.Workload] = true
			for _, m := range metricsOf(res.workload) {
				if row := r.row(res.workload, m); len(row.Median) > 0 || len(row.Failed) > 0 {
					r.Rows = append(r.Rows, row)
				}
			}
		}
	}
	r.Limits = r.judge()
	r.Curves = r.curves()
}

func (r *report) row(w workload, m metric) row {
	out := row{Workload: w.name, Title: w.title, Key: m.key, Metric: m.name, Unit: m.unit, Median: map[string]float64{}, Ratio: map[string]float64{}}
	for _, p := range r.Order {
		res := r.find(w.name, p)
		if res == nil {
			continue
		}
		if v := m.value(res); !math.IsNaN(v) {
			out.Median[p] = v
		} else if len(res.Samples) == 0 {
			out.Failed = append(out.Failed, p)
		}
	}
	if base := out.Median[baseline]; base > 0 {
		for p, v := range out.Median {
			out.Ratio[p] = v / base
		}
	}
	return out
}

// lookUp returns the row of a workload with a key.
func (r *report) lookUp(workload, key string) (row, bool) {
	for _, row := range r.Rows {
		if row.Workload == workload && row.Key == key {
			return row, true
		}
	}
	return row{}, false
}

// read gets a report back from its file.
func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	for _, res := range r.Results {
		if res.workload, err = workloadOf(res.Workload, res.Rate); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	r.finish()
	return r, nil
}

// workloadOf finds a workload by its name in the file.
func workloadOf(name string, rate float64) (workload, error) {
	plain, fixed := strings.CutSuffix(name, fixedSuffix)
	for _, w := range allWorkloads {
		if w.name == plain && fixed {
			return w.fixed(rate), nil
		}
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("no workload %q is known", name)
}

// keep adds an earlier report's results, where there are none of this run.
func (r *report) keep(earlier *report) {
	for _, res := range earlier.Results {
		if r.find(res.Workload, res.Proxy) == nil {
			r.Results = append(r.Results, res)
		}
	}
	for _, p := range earlier.Order {
		if !slices.Contains(r.Order, p) {
			r.Order = append(r.Order, p)
		}
		if r.Titles[p] == "" {
			r.Titles[p] = earlier.Titles[p]
		}
	}
	if r.User == byTick {
		r.User = earlier.User
	}
	// In the order of the table.
	rank := func(res *result) int {
		return slices.IndexFunc(allWorkloads, func(w workload) bool { return w.name == strings.TrimSuffix(res.Workload, fixedSuffix) })
	}
	slices.SortStableFunc(r.Results, func(a, b *result) int { return rank(a) - rank(b) })
}

// write puts every figure into a file.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// brief is one sample in a few words.
func brief(w workload, p proxy, s sample) string {
	res := &result{Samples: []sample{s}, Kernel: p.kernel, workload: w}
	var out []string
	for _, m := range metricsOf(w) {
		if v := m.value(res); !math.IsNaN(v) {
			out = append(out, fmt.Sprintf("%s %s %s", m.name, figure(v), m.unit))
		}
	}
	return strings.Join(out, ", ")
}
