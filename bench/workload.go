package main

// kind is a way to use a proxy; it decides what is measured.
type kind string

const (
	pingPong     kind = "ping-pong"
	connectClose kind = "connect"
	bulk         kind = "bulk"
	idle         kind = "idle"
)

// workload is one group of rows of the table.
type workload struct {
	name     string // in the command line and the JSON file
	title    string
	kind     kind
	sessions int
	size     int // of a message, bytes
}

func (w workload) id() string { return w.name }

var allWorkloads = []workload{
	{"ping-pong-1", "100 B ping-pong, 1 session", pingPong, 1, 100},
	{"ping-pong-16", "100 B ping-pong, 16 sessions", pingPong, 16, 100},
	{"ping-pong-128", "100 B ping-pong, 128 sessions", pingPong, 128, 100},
	{"connect", "connect, 1 byte, close; 16 at a time", connectClose, 16, 1},
	{"bulk", "bulk, one stream", bulk, 1, 0},
	{"idle", "1,900 idle sessions", idle, 1900, 100},
}

// server names the server that the workload needs.
func (w workload) server() string {
	if w.kind == bulk {
		return "source"
	}
	return "echo"
}

// metric is one row of the table: a figure taken from all rounds' samples.
type metric struct {
	name   string
	unit   string
	digits int
	value  func([]sample) float64
}

var metrics = map[kind][]metric{
	pingPong:     messageMetrics("round trips"),
	connectClose: messageMetrics("sessions"),
	bulk: {
		{"rate", "GB/s", 2, each(func(s sample) float64 { return rate(s) / 1e9 })},
		{"proxy's CPU", "s/GB", 3, each(func(s sample) float64 { return s.CPU / float64(s.Ops) * 1e9 })},
		{"of it in user mode", "s/GB", 3, user(1e9)},
	},
	idle: {
		{"proxy's memory, each", "KiB", 2, each(func(s sample) float64 { return s.Idle / 1024 })},
		{"proxy, resident in all", "MiB", 1, each(func(s sample) float64 { return s.Total / (1 << 20) })},
		{"kernel slab, each (four sockets)", "KiB", 1, each(func(s sample) float64 { return s.Slab / 1024 })},
	},
}

func messageMetrics(what string) []metric {
	return []metric{
		{what, "k/s", 1, each(func(s sample) float64 { return rate(s) / 1e3 })},
		{"p50", "us", 0, each(func(s sample) float64 { return s.P50 })},
		{"p99", "us", 0, each(func(s sample) float64 { return s.P99 })},
		{"proxy's CPU", "us", 1, each(func(s sample) float64 { return s.CPU / float64(s.Ops) * 1e6 })},
		{"of it in user mode", "us", 1, user(1e6)},
	}
}

func rate(s sample) float64 { return float64(s.Ops) / s.Seconds }

// each is the median of a figure over the rounds.
func each(figure func(sample) float64) func([]sample) float64 {
	return func(samples []sample) float64 {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = figure(s)
		}
		return median(values)
	}
}

// user is the median CPU per operation, times the share of all rounds' CPU that
// was in user mode: one round has too few ticks to tell that share.
func user(scale float64) func([]sample) float64 {
	return func(samples []sample) float64 {
		all, inUser := 0.0, 0.0
		for _, s := range samples {
			all += s.CPU
			inUser += s.CPU * s.UserShare
		}
		cpu := each(func(s sample) float64 { return s.CPU / float64(s.Ops) * scale })(samples)
		if all == 0 {
			return 0
		}
		return cpu * inUser / all
	}
}
