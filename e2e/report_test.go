//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// The limits, all of them. Those of a switchover stand beside the floor of the
// same switchover: what the cluster needs is not the proxy's to mend.
const (
	limitMedian   = 300 * time.Millisecond // of several switchovers: a client writes again, after the floor's does
	limitWorst    = 600 * time.Millisecond
	limitBusyGone = 3 * time.Second // leader's host silent while sessions are busy: idle ones ended
	limitIdleGone = 7 * time.Second // the same with idle sessions alone, inter 3s, fall 3
	// What a client's own retrying may add to the moment at which the proxy takes
	// the new leader.
	limitTenInARow = time.Second
	limitNone      = 0
)

// row is one line of the report. A value is missing where it says nothing.
type row struct {
	Scenario string             `json:"scenario"`
	Measure  string             `json:"measure"`
	Unit     string             `json:"unit"` // s, bytes, tps; "" = a number of things
	Values   map[string]float64 `json:"values"`
	AtLeast  map[string]bool    `json:"at_least,omitempty"` // it had not ended when we stopped looking
	Limit    *float64           `json:"limit,omitempty"`    // for pointsman: at most
	OK       *bool              `json:"ok,omitempty"`
	Note     string             `json:"note,omitempty"`
}

type report struct {
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Rows    []row     `json:"rows"`
}

func newRow(scenario, measure, unit string) row {
	return row{Scenario: scenario, Measure: measure, Unit: unit, Values: map[string]float64{}, AtLeast: map[string]bool{}}
}

// limit sets what pointsman may reach at most, and judges it.
func (r *row) limit(max float64) {
	value, ok := r.Values["pointsman"]
	if !ok {
		return
	}
	r.Limit = &max
	fine := value <= max && !r.AtLeast["pointsman"]
	r.OK = &fine
}

func (r *row) failed() bool { return r.OK != nil && !*r.OK }

func (r *row) text(way string) string {
	v, ok := r.Values[way]
	if !ok {
		return "-"
	}
	text := number(v, r.Unit)
	if r.AtLeast[way] {
		text = ">= " + text
	}
	return text
}

func number(v float64, unit string) string {
	if unit == "s" {
		return fmt.Sprintf("%.2f s", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// ways are all that have a value, the floor last.
func (r *report) ways() []string {
	seen := map[string]bool{}
	for _, row := range r.Rows {
		for way := range row.Values {
			seen[way] = true
		}
	}
	delete(seen, "floor")
	return append(sortedKeys(seen), "floor")
}

func (r *report) table() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	ways := r.ways()
	fmt.Fprintln(t, "scenario\tmeasure\t"+strings.Join(ways, "\t")+"\tlimit\tok\tnote")
	for i := range r.Rows {
		row := &r.Rows[i]
		limit, ok := "", ""
		if row.Limit != nil {
			limit = "<= " + number(*row.Limit, row.Unit)
			ok = map[bool]string{true: "yes", false: "NO"}[*row.OK]
		}
		fmt.Fprintf(t, "%s\t%s\t", row.Scenario, row.Measure)
		for _, way := range ways {
			fmt.Fprintf(t, "%s\t", row.text(way))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", limit, ok, row.Note)
	}
	t.Flush()
	return b.String()
}

// write stores the report as JSON beside the tests.
func (r *report) write() error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile("report.json", append(text, '\n'), 0o644)
}
