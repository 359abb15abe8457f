package main

import (
	"fmt"
	"math"
	"slices"
)

// metric is one row of the table: a figure taken from all that is known of one
// workload through one proxy. NaN = there is none.
type metric struct {
	key   string
	name  string
	unit  string
	value func(*result) float64
}

var none = math.NaN()

// figure writes a number with three digits, and all those before the point.
func figure(v float64) string {
	decimals := 0
	for limit := 100.0; math.Abs(v) < limit && decimals < 4; limit /= 10 {
		decimals++
	}
	if v == 0 {
		decimals = 0
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

// metricsOf lists the rows of a workload.
func metricsOf(w workload) []metric {
	switch {
	case w.kind == pingPong:
		return messageMetrics("round trips", w)
	case w.kind == connectClose:
		return messageMetrics("sessions", w)
	case w.kind == transactions:
		return messageMetrics("transactions", w)
	}
	return kindMetrics[w.kind]
}

var kindMetrics = map[kind][]metric{
	bulk:    streamMetrics,
	copying: streamMetrics,
	idle: {
		{"memory", "proxy's memory, each", "KiB", each(func(s sample) float64 { return s.Idle / 1024 })},
		{"resident", "proxy, resident in all", "MiB", resident},
		{"slab", "kernel slab, each (four sockets)", "KiB", each(func(s sample) float64 { return s.Slab / 1024 })},
	},
	fence: {
		{"fenced", "first client's end to the last one's", "ms", each(func(s sample) float64 { return s.Fenced })},
		{"decided", "another leader to the first client's end", "ms", each(func(s sample) float64 { return s.Decided })},
		{"cpu", "proxy's CPU, each", "us", cpu(1e6)},
	},
	checks: {
		{"cpu", "proxy's CPU", "ms/s", each(func(s sample) float64 { return s.CPU / s.Seconds * 1e3 })},
		{"resident", "proxy's memory", "MiB", resident},
	},
}

var streamMetrics = []metric{
	{"rate", "rate", "GB/s", each(func(s sample) float64 { return rate(s) / 1e9 })},
	{"cpu", "proxy's CPU", "s/GB", cpu(1e9)},
	{"user", "of it in user mode", "s/GB", user(1e9)},
	{"machine", "whole machine's CPU", "s/GB", machine(1e9)},
}

func messageMetrics(what string, w workload) []metric {
	all := []metric{
		{"rate", what, "k/s", each(func(s sample) float64 { return rate(s) / 1e3 })},
		{"p50", "p50", "us", each(func(s sample) float64 { return s.P50 })},
		{"p99", "p99", "us", each(func(s sample) float64 { return s.P99 })},
		{"typical", "p99 of the median 0.1 s", "us", typical},
		{"p999", "p99.9", "us", each(func(s sample) float64 { return s.P999 })},
		{"cpu", "proxy's CPU", "us", cpu(1e6)},
		{"user", "of it in user mode", "us", user(1e6)},
		{"machine", "whole machine's CPU", "us", machine(1e6)},
		{"resident", "proxy's memory", "MiB", resident},
		{"calls", "system calls per message and direction", "", callsEach},
	}
	if w.rate == 0 {
		return all
	}
	// What is looked at besides is the same at any rate.
	return slices.DeleteFunc(all, func(m metric) bool { return m.key == "user" || m.key == "resident" || m.key == "calls" })
}

func rate(s sample) float64 { return float64(s.Ops) / s.Seconds }

// each is the median of a figure over the rounds.
func each(figure func(sample) float64) func(*result) float64 {
	return func(r *result) float64 {
		if len(r.Samples) == 0 {
			return none
		}
		values := make([]float64, len(r.Samples))
		for i, s := range r.Samples {
			values[i] = figure(s)
		}
		return median(values)
	}
}

// own is a figure of the proxy's own process; a rule of the kernel has none.
func own(figure func(*result) float64) func(*result) float64 {
	return func(r *result) float64 {
		if r.Kernel {
			return none
		}
		return figure(r)
	}
}

// cpu is the proxy's CPU per operation, times scale.
func cpu(scale float64) func(*result) float64 {
	return own(each(func(s sample) float64 { return s.CPU / float64(s.Ops) * scale }))
}

// machine is the CPU of everything: client and server included, because what
// the kernel does for one end it does in another's name; a packet that is sent
// on loopback or a veth is received on the sender's account.
func machine(scale float64) func(*result) float64 {
	return each(func(s sample) float64 { return s.Machine / float64(s.Ops) * scale })
}

// typical is missing where replies are too few, or were not ours to time.
func typical(r *result) float64 {
	if v := each(func(s sample) float64 { return s.Typical99 })(r); v > 0 {
		return v
	}
	return none
}

var resident = own(each(func(s sample) float64 { return s.Resident / (1 << 20) }))

// user is the CPU per operation, times the share of it that was in user mode:
// sampled in a run of its own, or, where that is not permitted, by the
// kernel's tick in all rounds together: one has too few ticks to tell.
func user(scale float64) func(*result) float64 {
	return func(r *result) float64 {
		share, ok := r.Profile.userShare()
		if !ok {
			all, inUser := 0.0, 0.0
			for _, s := range r.Samples {
				all += s.CPU
				inUser += s.CPU * s.UserShare
			}
			if all == 0 {
				return none
			}
			share = inUser / all
		}
		return cpu(scale)(r) * share
	}
}

func (p profile) userShare() (float64, bool) {
	if p.Samples == 0 {
		return 0, false
	}
	return float64(p.InUser) / float64(p.Samples), true
}

// callsEach is the system calls per message and direction: a round trip is a
// message in each of the two.
func callsEach(r *result) float64 {
	if r.Calls.Ops == 0 {
		return none
	}
	all := uint64(0)
	for _, n := range r.Calls.Syscalls {
		all += n
	}
	return float64(all) / float64(2*r.Calls.Ops)
}
