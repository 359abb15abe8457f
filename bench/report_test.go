package main

import (
	"errors"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func testReport() *report {
	o := options{rounds: 3, measure: time.Second, place: onLoopback}
	r := newReport(o)
	r.Kernel, r.Cores, r.TCP, r.Awake = "6.18", 2, "cubic", true
	r.Titles = map[string]string{"haproxy": "HAProxy 2.6", "haproxy-splice": "HAProxy splice-auto", "dnat": "DNAT", "pointsman": "pointsman"}
	w, err := workloadOf("bulk-1", 0)
	if err != nil {
		panic(err)
	}
	take := func(name string, gigabytes, cpu, other float64) {
		s := sample{Ops: uint64(gigabytes * 1e9), usage: usage{Seconds: 2, CPU: cpu, UserShare: 0.1, OtherShare: other, Client: 1, Server: 0.5, Machine: 3}}
		r.add(w, proxy{name: name, kernel: name == "dnat"}, s, nil)
	}
	for round := range 3 {
		take("haproxy", 2+float64(round)/10, 1+float64(round)/10, 0.02)
		take("pointsman", 4, 1, 0.30)
		take("dnat", 8, 0, 0.02)
		r.add(w, proxy{name: "haproxy-splice"}, sample{}, errors.New("refused"))
	}
	r.find("bulk-1", "pointsman").Profile = profile{Samples: 200, InUser: 100, Leaving: 10}
	r.finish()
	return r
}

const wantTable = `
|                           | HAProxy 2.6 | HAProxy splice-auto |         DNAT |    pointsman |
| ------------------------- | ----------: | ------------------: | -----------: | -----------: |
| **bulk, one stream**      |             |                     |              |              |
| rate, GB/s                |        1.05 |              failed |  4.00 (3.81) |  2.00 (1.90) |
| proxy's CPU, s/GB         |       0.524 |              failed |              | 0.250 (0.48) |
| of it in user mode, s/GB  |      0.0524 |              failed |              | 0.125 (2.39) |
| whole machine's CPU, s/GB |        1.43 |              failed | 0.375 (0.26) | 0.750 (0.53) |
`

func TestTable(t *testing.T) {
	r := testReport()
	if got := "\n" + r.rowsTable(); got != wantTable {
		t.Errorf("the table is\n%s\nwant\n%s", got, wantTable)
	}
	for _, want := range []string{
		"Medians of 3 rounds of 1.0 s", "Linux 6.18, 2 cores kept awake, loopback, TCP cubic, 2 threads each",
		"The client used at most 50 % of a core, the server 25 %.", "DISTURBED: during bulk-1 other programs used 2 % of the machine.",
	} {
		if has := strings.Contains(r.footer(), want); has == strings.HasPrefix(want, "DISTURBED") {
			t.Errorf("the footer says %q", r.footer())
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01234: "0.0123", 0.5: "0.500", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 505414: "505414", -1.5: "-1.50", 0.00001: "0.0000",
	} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %s, want %s", v, got, want)
		}
	}
}

// What is judged, and that a limit on both sides can be missed.
func TestLimits(t *testing.T) {
	r := &report{Titles: map[string]string{"haproxy": "HAProxy"}}
	add := func(w, key, unit string, haproxy, ours float64) {
		r.Rows = append(r.Rows, row{Workload: w, Title: w, Key: key, Metric: key, Unit: unit, Median: map[string]float64{"haproxy": haproxy, "pointsman": ours}})
	}
	add("ping-pong-1", "rate", "k/s", 10, 11)
	add("ping-pong-16", "rate", "k/s", 10, 9)
	add("ping-pong-16", "cpu", "us", 10, 9.3)
	add("ping-pong-16-fixed", "typical", "us", 100, 100)
	add("ping-pong-16", "calls", "", 3, 2.2)
	add("bulk-1", "rate", "GB/s", 1, 2) // judged against another proxy, which was not measured
	add("fence", "fenced", "ms", 1000, 240)
	add("ping-pong-1024", "rate", "k/s", 10, 1) // has no limit
	want := []verdict{
		{"ping-pong-1", "rate", "HAProxy", true, 1.10, 1.1, true},
		{"ping-pong-16", "rate", "HAProxy", true, 1, 0.9, false},
		{"ping-pong-16", "cpu", "HAProxy", false, 0.92, 0.93, false},
		{"ping-pong-16", "calls", "", false, 2.1, 2.2, false},
		{"ping-pong-16-fixed", "typical", "HAProxy", false, 1, 1, true},
		{"fence", "fenced, ms", "", false, 250, 240, true},
	}
	got := r.judge()
	for i := range got {
		got[i].Got = math.Round(got[i].Got*1000) / 1000
	}
	if !slices.Equal(got, want) {
		t.Errorf("judged\n%+v, want\n%+v", got, want)
	}
	r.Limits = got
	if text := r.limitsTable(); strings.Count(text, "NOT met") != 3 {
		t.Errorf("the table says\n%s", text)
	}
}

// Every limit names a row that some workload has, so none is passed over.
func TestLimitsNameRows(t *testing.T) {
	for _, l := range limits {
		w, err := workloadOf(l.workload, 1000)
		if err != nil {
			t.Error(err)
			continue
		}
		if !w.quick {
			t.Errorf("%s has a limit, and is not in the quick set", w.name)
		}
		if !slices.ContainsFunc(metricsOf(w), func(m metric) bool { return m.key == l.key }) {
			t.Errorf("%s has no row %q", w.name, l.key)
		}
	}
}

func TestFailuresAreToldAndKept(t *testing.T) {
	r := testReport()
	failed := r.failures()
	if len(failed) != 3 || failed[0] != "bulk-1 through haproxy-splice: refused" {
		t.Errorf("failures: %q", failed)
	}
	path := filepath.Join(t.TempDir(), "result.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	back, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if res := back.find("bulk-1", "haproxy"); res == nil || len(res.Samples) != 3 || res.Samples[0].CPU != 1 {
		t.Errorf("HAProxy's samples in the file: %+v", res)
	}
	if res := back.find("bulk-1", "haproxy-splice"); res == nil || len(res.Failures) != 3 {
		t.Errorf("failures in the file: %+v", res)
	}
	if back.rowsTable() != r.rowsTable() {
		t.Errorf("the table of the file is\n%s", back.rowsTable())
	}
}

// A run of other workloads adds to the file; the same ones replace.
func TestKeep(t *testing.T) {
	r, earlier := testReport(), testReport()
	w, err := workloadOf("ping-pong-16", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"haproxy", "nginx"} {
		earlier.add(w.fixed(5000), proxy{name: name}, sample{Ops: 7, usage: usage{Seconds: 1}}, nil)
		earlier.add(w, proxy{name: name}, sample{Ops: 7, usage: usage{Seconds: 1}}, nil)
	}
	earlier.Titles["nginx"] = "nginx 1"
	earlier.find("bulk-1", "haproxy").Samples[0].Ops = 1
	r.keep(earlier)
	r.finish()
	if len(r.Results) != 4+4 {
		t.Errorf("%d results", len(r.Results))
	}
	if got := r.find("bulk-1", "haproxy").Samples[0].Ops; got != 2e9 {
		t.Errorf("this run's figure became the earlier one's: %d", got)
	}
	if row, ok := r.lookUp("ping-pong-16", "rate"); !ok || row.Median["nginx"] != 0.007 || r.Titles["nginx"] != "nginx 1" {
		t.Errorf("the earlier run's row: %+v", row)
	}
	if got := r.Results[0].Workload; got != "ping-pong-16-fixed" || r.Rows[len(r.Rows)-1].Workload != "bulk-1" {
		t.Errorf("the first result is %s, the last row %s", got, r.Rows[len(r.Rows)-1].Workload)
	}
}

// A round is too short for the tick to tell user from kernel: the rounds'
// shares are put together, weighed by their CPU.
func TestUserShareIsOfAllRounds(t *testing.T) {
	samples := []sample{
		{Ops: 1e6, usage: usage{CPU: 10, UserShare: 0}},
		{Ops: 1e6, usage: usage{CPU: 10, UserShare: 0.3}},
		{Ops: 1e6, usage: usage{CPU: 20, UserShare: 0.3}},
	}
	// 9 of 40 s, of a median of 10 us.
	if got := user(1e6)(&result{Samples: samples}); got < 2.2499 || got > 2.2501 {
		t.Errorf("user CPU per operation: %v us, want 2.25", got)
	}
}

func TestUsageBetweenReadings(t *testing.T) {
	cores := time.Duration(runtime.NumCPU())
	from := reading{at: time.Second, proxy: 5 * time.Second, ticks: 4 * time.Second, inUser: time.Second, idle: time.Hour}
	to := reading{
		at: 3 * time.Second, proxy: 6 * time.Second, ticks: 5 * time.Second, inUser: 1250 * time.Millisecond,
		server: 100 * time.Millisecond, client: 200 * time.Millisecond,
		// Of 2 s on each core, 1.3 s are ours and 0.5 s those of others.
		idle: time.Hour + 2*cores*time.Second - 1800*time.Millisecond,
	}
	want := usage{Seconds: 2, CPU: 1, UserShare: 0.25, Server: 0.1, Client: 0.2, Machine: 1.8, OtherShare: 0.25 / float64(cores)}
	got := to.since(from)
	if math.Abs(got.OtherShare-want.OtherShare) < 1e-9 {
		got.OtherShare = want.OtherShare
	}
	if math.Abs(got.Machine-want.Machine) < 1e-9 {
		got.Machine = want.Machine
	}
	if got != want {
		t.Errorf("used %+v, want %+v", got, want)
	}
	to.idle += time.Second // the kernel counts in hundredths: never below none
	if got := to.since(from).OtherShare; got != 0 {
		t.Errorf("others used %v of the machine, want 0", got)
	}
}
