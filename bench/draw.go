package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"pointsman/bench/chart"
	"pointsman/bench/page"
)

// draw makes pictures of files of results in a folder, and puts their tables
// into the marked places of pages. Of a workload that several files have, the
// first one's figures count.
func draw(files []string, folder string, pages ...string) error {
	r, err := readReport(files[0])
	if err != nil {
		return err
	}
	for _, file := range files[1:] {
		more, err := readReport(file)
		if err != nil {
			return err
		}
		r.keep(more)
	}
	r.finish()
	if err := r.draw(folder); err != nil {
		return err
	}
	texts := map[string]string{}
	for _, part := range parts {
		texts["bench:"+part] = r.part(part)
	}
	for _, path := range pages {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := page.Refresh(path, texts); err != nil {
			return err
		}
	}
	return nil
}

// draw writes every picture for which there are figures into a folder.
func (r *report) draw(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("drawing: %w", err)
	}
	var errs []error
	save := func(name string, picture interface{ SVG() ([]byte, error) }) {
		text, err := picture.SVG()
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name+".svg"), text, 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("drawing %s: %w", name, err))
		}
	}
	for _, b := range []struct{ name, key, title, note string }{
		{"rates", "rate", "Messages, sessions and bytes per second", "as fast as replies come; times HAProxy's: longer is better"},
		{"cpu", "cpu", "CPU of the proxy for the same work", "times HAProxy's: shorter is better"},
		{"machine", "machine", "CPU of the whole machine for the same work", "client, proxy, server and kernel; times HAProxy's: shorter is better"},
		{"p99", "typical", "The slowest 1 % of the replies in a tenth of a second", "at a fixed rate; times HAProxy's: shorter is better"},
	} {
		if bars := r.bars(b.key, b.title, b.note); len(bars.Groups) > 0 {
			save(b.name, bars)
		}
	}
	for _, res := range r.Results {
		if res.Proxy == ours && res.Times != nil && res.workload.curve == "" && (res.Rate > 0 || res.workload.kind == transactions) {
			save("latency-"+strings.TrimSuffix(res.Workload, fixedSuffix), r.latencies(res.workload))
		}
	}
	for _, c := range r.Curves {
		save("growth-"+c.Name+"-"+c.Key, r.growth(c))
	}
	return errors.Join(errs...)
}

// bars compares one figure over the workloads, as ratios to the baseline.
func (r *report) bars(key, title, note string) chart.Bars {
	bars := chart.Bars{Title: title, Note: note, Baseline: 1}
	var rows []row
	for _, row := range r.Rows {
		w, err := workloadOf(row.Workload, 0)
		// Latency is compared at the same rate, the rest at each one's own.
		fixed := strings.HasSuffix(row.Workload, fixedSuffix)
		if err != nil || w.curve != "" || w.kind == fence || row.Key != key || len(row.Ratio) == 0 || fixed != (key == "typical") {
			continue
		}
		rows = append(rows, row)
		bars.Groups = append(bars.Groups, row.Title)
	}
	for _, p := range r.Order {
		s := chart.Series{Key: p, Name: r.Titles[p]}
		any := false
		for _, row := range rows {
			v, ok := row.Ratio[p]
			if !ok {
				v = math.NaN()
			}
			any = any || ok
			s.Values = append(s.Values, v)
			label := figure(row.Median[p]) + " " + row.Unit
			if p != baseline {
				label = fmt.Sprintf("%.2f", v)
			}
			s.Labels = append(s.Labels, label)
		}
		if any {
			bars.Series = append(bars.Series, s)
		}
	}
	return bars
}

// latencyShares are the points of a latency curve: closer where it bends.
func latencyShares() []float64 {
	var out []float64
	for nines := 0.30; nines < 4.01; nines += 0.05 {
		out = append(out, 1-math.Pow(10, -nines))
	}
	return out
}

// latencies draws all of a workload's latencies, of all rounds together.
func (r *report) latencies(w workload) chart.Curves {
	c := chart.Curves{
		Title: "Latency of " + w.title, Note: "microseconds; lower is better",
		X: chart.Axis{Label: "share of the replies that came within", Scale: chart.Percentile},
		Y: chart.Axis{Label: "us", Scale: chart.Log},
	}
	for _, p := range r.Order {
		res := r.find(w.name, p)
		if res == nil || res.Times == nil {
			continue
		}
		line := chart.Curve{Key: p, Name: r.Titles[p]}
		for _, share := range latencyShares() {
			// A share that fewer than ten replies decide is chance.
			if float64(res.Times.count)*(1-share) >= 10 {
				line.Points = append(line.Points, chart.Point{X: share, Y: res.Times.micros(share)})
			}
		}
		c.Curves = append(c.Curves, line)
	}
	return c
}

// growth draws how one figure grows.
func (r *report) growth(from curve) chart.Curves {
	c := chart.Curves{
		Title: from.Title, Note: from.Unit,
		X: chart.Axis{Label: from.X, Scale: chart.Log}, Y: chart.Axis{Label: from.Unit},
	}
	if from.Name == bySize {
		c.X.Format, c.Y.Scale = chart.Bytes, chart.Log
	}
	for _, p := range r.Order {
		line := chart.Curve{Key: p, Name: r.Titles[p]}
		for _, point := range from.Points {
			c.X.Ticks = append(c.X.Ticks, point.X)
			if v, ok := point.Median[p]; ok {
				line.Points = append(line.Points, chart.Point{X: point.X, Y: v})
			}
		}
		if len(line.Points) > 0 {
			c.Curves = append(c.Curves, line)
		}
	}
	if len(from.Points) > 0 {
		c.X.Ticks = c.X.Ticks[:len(from.Points)]
	}
	return c
}
