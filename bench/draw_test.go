package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// drawnReport has something for each kind of picture.
func drawnReport(t *testing.T) *report {
	r := testReport()
	for _, name := range []string{"ping-pong-16", "pgbench-select-8", "sessions-10", "sessions-100", "checks-3", "size-64"} {
		w, err := workloadOf(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		works := []workload{w}
		if w.rated() {
			works = append(works, w.fixed(1000))
		}
		for _, w := range works {
			for _, p := range []string{"haproxy", "pointsman"} {
				s := sample{Ops: 1000, P99: 100, Typical99: 90, Times: new(histogram), usage: usage{Seconds: 1, CPU: 1, Machine: 2}}
				for i := range 1000 {
					s.Times.add(time.Duration(i) * time.Microsecond)
				}
				r.add(w, proxy{name: p}, s, nil)
			}
		}
	}
	r.finish()
	return r
}

func TestDraw(t *testing.T) {
	dir := t.TempDir()
	file, page := filepath.Join(dir, "result.json"), filepath.Join(dir, "page.md")
	r := drawnReport(t)
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, []byte("<!-- bench:short -->\nold\n<!-- end -->\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := draw([]string{file}, dir, page, filepath.Join(dir, "none.md")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"rates", "cpu", "machine", "p99", "latency-ping-pong-16", "latency-pgbench-select-8",
		"growth-sessions-rate", "growth-sessions-p99", "growth-servers-idle-cpu", "growth-sizes-cpu",
	} {
		text, err := os.ReadFile(filepath.Join(dir, name+".svg"))
		if err != nil || !strings.Contains(string(text), "pointsman") || strings.Contains(string(text), "NaN") {
			t.Errorf("%s: %v: %.300s", name, err, text)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"**bulk, one stream**: rate, GB/s", "p99 at 1 k/s, us", "**pgbench -S -M prepared, 8 clients**"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") || strings.Contains(string(text), "sessions-10") {
		t.Errorf("the page is\n%s", text)
	}
}
