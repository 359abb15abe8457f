package main

import (
	"fmt"
	"math"
	"slices"
)

// curve says how one figure grows.
type curve struct {
	Name   string  `json:"name"` // sessions, servers, sizes
	Key    string  `json:"key"`
	Title  string  `json:"title"`
	X      string  `json:"x"`
	Unit   string  `json:"unit"`
	Points []point `json:"points"`
}

// point is one place of a curve.
type point struct {
	X      float64            `json:"x"`
	Median map[string]float64 `json:"median"` // by proxy
}

// curveShapes are the curves that are drawn, in order.
var curveShapes = []struct {
	name, x string
	kind    kind
	keys    []string
}{
	{bySessions, "sessions", pingPong, []string{"rate", "cpu", "p99", "resident"}},
	{byServers, "servers", pingPong, []string{"rate", "cpu", "p99"}},
	{byServers, "servers", checks, []string{"cpu", "resident"}},
	{bySize, "bytes of a message", pingPong, []string{"rate", "cpu", "p99"}},
}

var curveTitles = map[string]string{
	bySessions: "100 B ping-pong",
	byServers:  "100 B ping-pong, 16 sessions, servers checked every second",
	bySize:     "ping-pong, 16 sessions",
}

func (r *report) curves() []curve {
	var out []curve
	for _, shape := range curveShapes {
		for _, m := range metricsOf(workload{kind: shape.kind}) {
			if !slices.Contains(shape.keys, m.key) {
				continue
			}
			c := curve{Name: shape.name, Key: m.key, X: shape.x, Unit: m.unit, Title: curveTitles[shape.name] + ": " + m.name}
			if shape.kind == checks {
				c.Key, c.Title = "idle-"+m.key, "no sessions, servers checked every second: "+m.name
			}
			for _, w := range allWorkloads {
				if w.curve == shape.name && w.kind == shape.kind {
					c.add(r, w, m)
				}
			}
			if len(c.Points) > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

func (c *curve) add(r *report, w workload, m metric) {
	p := point{X: w.x, Median: map[string]float64{}}
	for _, proxy := range r.Order {
		if res := r.find(w.name, proxy); res != nil {
			if v := m.value(res); !math.IsNaN(v) {
				p.Median[proxy] = v
			}
		}
	}
	if len(p.Median) > 0 {
		c.Points = append(c.Points, p)
	}
}

func (r *report) curvesTables() string {
	text := ""
	for i, c := range r.Curves {
		lines := [][]string{{c.Title + ", " + c.Unit + "; " + c.X}}
		var proxies []string
		for _, p := range r.Order {
			if slices.ContainsFunc(c.Points, func(point point) bool { _, ok := point.Median[p]; return ok }) {
				proxies = append(proxies, p)
				lines[0] = append(lines[0], r.Titles[p])
			}
		}
		for _, point := range c.Points {
			line := []string{fmt.Sprintf("%.0f", point.X)}
			for _, p := range proxies {
				cell := ""
				if v, ok := point.Median[p]; ok {
					cell = figure(v)
					if base := point.Median[baseline]; base > 0 && p != baseline {
						cell += fmt.Sprintf(" (%.2f)", v/base)
					}
				}
				line = append(line, cell)
			}
			lines = append(lines, line)
		}
		if i > 0 {
			text += "\n"
		}
		text += align(lines)
	}
	return text
}
