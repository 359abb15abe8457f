package postgres

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseLog(t *testing.T) {
	tests := []struct {
		text string
		want []transaction
		err  string
	}{
		{"", nil, ""},
		{"0 1 112 0 1795350951 000042\n", []transaction{{0, 112, 1795350951000042}}, ""},
		{"7 199 2241 0 175850 995598\n7 200 0 0 175851 3\n", []transaction{{7, 2241, 175850995598}, {7, 0, 175851000003}}, ""},
		// With --rate a lag follows, with --max-tries the retries.
		{"0 1 2 0 4 5 0 0\n", []transaction{{0, 2, 4000005}}, ""},
		{"3 0 failed 0 1499414498 84905\n", nil, "not a successful transaction"},
		{"3 0 skipped 0 1499414498 84905\n", nil, "not a successful transaction"},
		{"3 0 12 0 1499414498\n", nil, "not a successful transaction"},
		{"\n", nil, "not a successful transaction"},
		{"3 0 12 0 1499414498 84", nil, "no line"}, // cut off: the number may be too
	}
	for _, test := range tests {
		var got []transaction
		err := parseLog(strings.NewReader(test.text), func(tr transaction) { got = append(got, tr) })
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: error %v, want %q", test.text, err, test.err)
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: %v, want %v", test.text, got, test.want)
		}
	}
}

// The measured part is half-open, and with a connect the time between two
// ends of one client is what counts.
func TestGathering(t *testing.T) {
	log := []transaction{
		{0, 90, 900}, {0, 95, 999}, {0, 10, 1000}, {0, 20, 1050}, {0, 30, 2000}, {0, 40, 2100},
		{1, 50, 950}, {1, 60, 1999},
		{2, 70, 1500}, // began late
	}
	for _, test := range []struct {
		connect bool
		want    []time.Duration
	}{
		{false, []time.Duration{10, 20, 60, 70}},
		{true, []time.Duration{1, 50, 1049, 1500}},
	} {
		g := gathering{from: 1000, to: 2000, connect: test.connect, last: map[int]int64{}}
		for _, tr := range log {
			g.add(tr)
		}
		for i := range g.latencies {
			g.latencies[i] /= time.Microsecond
		}
		if !slices.Equal(g.latencies, test.want) {
			t.Errorf("connect %v: %d us, want %d", test.connect, g.latencies, test.want)
		}
		if g.early != 2 {
			t.Errorf("%d clients were early, want 2", g.early)
		}
	}
}

func TestQuantile(t *testing.T) {
	r := Result{Seconds: 2}
	if got := r.Quantile(0.5); got != 0 {
		t.Errorf("the quantile of nothing is %d", got)
	}
	for i := range 1000 {
		r.Latencies = append(r.Latencies, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.001: 1, 0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := r.Quantile(q); got != want {
			t.Errorf("quantile %g is %d, want %d", q, got, want)
		}
	}
	if r.Rate() != 500 {
		t.Errorf("rate %g, want 500", r.Rate())
	}
}
