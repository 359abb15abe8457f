package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func testReport() *report {
	o := options{rounds: 3, measure: time.Second, proxies: []proxy{{name: "haproxy"}, {name: "nginx"}, {name: "pointsman"}}}
	r := newReport(o)
	r.Kernel, r.Cores, r.TCP, r.Awake = "6.18", 2, "cubic", true
	r.Titles = map[string]string{"haproxy": "HAProxy 2.6", "nginx": "nginx", "pointsman": "pointsman"}
	w := workload{"bulk", "bulk, one stream", bulk, 1, 0}
	take := func(proxy int, gigabytes, cpu, user, other float64) {
		s := sample{Ops: uint64(gigabytes * 1e9), usage: usage{Seconds: 2, CPU: cpu, UserShare: user, OtherShare: other, Client: 1, Server: 0.5}}
		r.add(w, o.proxies[proxy], s, nil)
	}
	for round := range 3 {
		take(0, 2+float64(round)/10, 1+float64(round)/10, 0.10, 0.02)
		take(1, 4, 1, 0.2, 0.30)
		r.add(w, o.proxies[2], sample{}, errors.New("refused"))
	}
	r.finish()
	return r
}

const wantTable = `
|                          | HAProxy 2.6 |        nginx | pointsman |
| ------------------------ | ----------: | -----------: | --------: |
| **bulk, one stream**     |             |              |           |
| rate, GB/s               |        1.05 |  2.00 (1.90) |    failed |
| proxy's CPU, s/GB        |       0.524 | 0.250 (0.48) |    failed |
| of it in user mode, s/GB |       0.052 | 0.050 (0.95) |    failed |

Medians of 3 rounds of 1.0 s, in turns; in brackets: times HAProxy's. Linux 6.18, 2 cores kept awake, loopback, TCP cubic, 2 threads each.
The client used at most 50 % of a core, the server 25 %.
DISTURBED: during bulk other programs used 16 % of the machine.
`

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := testReport().print(&out); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + out.String(); got != wantTable {
		t.Errorf("the table is\n%s\nwant\n%s", got, wantTable)
	}
}

func TestFailuresAreToldAndKept(t *testing.T) {
	r := testReport()
	failed := r.failures()
	if len(failed) != 3 || failed[0] != "bulk through pointsman: refused" {
		t.Errorf("failures: %q", failed)
	}
	path := filepath.Join(t.TempDir(), "result.json")
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if res := back.find("bulk", "haproxy"); res == nil || len(res.Samples) != 3 || res.Samples[0].CPU != 1 {
		t.Errorf("HAProxy's samples in the file: %+v", res)
	}
	if res := back.find("bulk", "pointsman"); res == nil || len(res.Failures) != 3 {
		t.Errorf("pointsman's failures in the file: %+v", res)
	}
	if _, ok := back.Rows[0].Ratio["pointsman"]; ok || back.Rows[0].Ratio["haproxy"] != 1 {
		t.Errorf("ratios in the file: %v", back.Rows[0].Ratio)
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
	if got := user(1e6)(samples); got < 2.2499 || got > 2.2501 {
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
	want := usage{Seconds: 2, CPU: 1, UserShare: 0.25, Server: 0.1, Client: 0.2, OtherShare: 0.25 / float64(cores)}
	got := to.since(from)
	if math.Abs(got.OtherShare-want.OtherShare) < 1e-9 {
		got.OtherShare = want.OtherShare
	}
	if got != want {
		t.Errorf("used %+v, want %+v", got, want)
	}
	to.idle += time.Second // the kernel counts in hundredths: never below none
	if got := to.since(from).OtherShare; got != 0 {
		t.Errorf("others used %v of the machine, want 0", got)
	}
}
