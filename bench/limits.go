package main

// limit is what pointsman shall reach: a ratio to another proxy, or a figure.
type limit struct {
	workload string
	key      string
	against  string // proxy; "" = the figure itself
	least    bool   // the value is the least, else the most
	value    float64
}

// verdict is a limit and what was measured.
type verdict struct {
	Title   string  `json:"title"`
	Metric  string  `json:"metric"`
	Against string  `json:"against,omitempty"`
	Least   bool    `json:"least,omitempty"`
	Limit   float64 `json:"limit"`
	Got     float64 `json:"got"`
	Met     bool    `json:"met"`
}

const ours = "pointsman"

var limits = allLimits()

func allLimits() []limit {
	var out []limit
	most := func(w, key, against string, value float64) { out = append(out, limit{w, key, against, false, value}) }
	least := func(w, key, against string, value float64) { out = append(out, limit{w, key, against, true, value}) }
	for _, message := range []struct {
		workload  string
		rate, cpu float64
	}{
		{"ping-pong-1", 1.10, 0.92},
		{"ping-pong-16", 1.00, 0.92},
		{"ping-pong-128", 1.05, 0.92},
		{"ping-pong-8k-16", 1.10, 0.90},
		{"connect", 1.05, 0.88},
	} {
		least(message.workload, "rate", baseline, message.rate)
		most(message.workload, "cpu", baseline, message.cpu)
		if message.cpu == 0.92 {
			most(message.workload, "user", baseline, 0.35)
		}
		most(message.workload, "p99", baseline, 1)
		if message.workload == "ping-pong-16" {
			most(message.workload, "calls", "", 2.1)
		}
		most(message.workload+fixedSuffix, "p99", baseline, 1)
		most(message.workload+fixedSuffix, "typical", baseline, 1)
	}
	for _, w := range []string{"pgbench-select-1", "pgbench-select-8"} {
		least(w, "rate", baseline, 1)
		most(w, "cpu", baseline, 0.92)
		most(w, "p99", baseline, 1)
	}
	least("bulk-1", "rate", "haproxy-splice", 1.5)
	most("bulk-1", "cpu", "haproxy-splice", 0.6)
	most("idle", "memory", baseline, 0.2)
	most("fence", "fenced", "", 250)
	return out
}

// judge compares what was measured with the limits; what was not is left out.
func (r *report) judge() []verdict {
	var out []verdict
	for _, l := range limits {
		row, ok := r.lookUp(l.workload, l.key)
		got, ours := row.Median[ours]
		if !ok || !ours {
			continue
		}
		v := verdict{Title: row.Title, Metric: row.Metric, Least: l.least, Limit: l.value, Got: got}
		if l.against != "" {
			base, ok := row.Median[l.against]
			if !ok || base == 0 {
				continue
			}
			v.Against, v.Got = r.Titles[l.against], got/base
		} else if row.Unit != "" {
			v.Metric += ", " + row.Unit
		}
		v.Met = v.Got <= v.Limit
		if l.least {
			v.Met = v.Got >= v.Limit
		}
		out = append(out, v)
	}
	return out
}

func (r *report) limitsTable() string {
	if len(r.Limits) == 0 {
		return ""
	}
	lines := [][]string{{"pointsman against its limits", "against", "limit", "measured", ""}}
	title := ""
	for _, v := range r.Limits {
		if v.Title != title {
			title = v.Title
			lines = append(lines, []string{"**" + title + "**", "", "", "", ""})
		}
		sign, met := "<=", "met"
		if v.Least {
			sign = ">="
		}
		if !v.Met {
			met = "NOT met"
		}
		lines = append(lines, []string{v.Metric, v.Against, sign + " " + figure(v.Limit), figure(v.Got), met})
	}
	return align(lines)
}
