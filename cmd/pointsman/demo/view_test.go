package demo

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pointsman/balancer"
	"pointsman/cmd/pointsman/simulation"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// aView is the demonstration in its second reign, all well.
func aView() view {
	v := view{
		now: noon, started: noon.Add(-83 * time.Second), listen: "127.0.0.1:41234", config: "/tmp/pointsman-demo-1/pointsman",
		next:  noon.Add(6800 * time.Millisecond),
		nodes: map[string]string{"postgres-1": "replica", "postgres-2": "primary", "postgres-3": "replica"},
		backend: balancer.BackendStatus{
			Leader: "postgres-2", Accepting: true, Epoch: 2, Timeline: 2, Since: noon.Add(-3200 * time.Millisecond), Current: 8,
			Reason: "rival confirmed",
			Servers: []balancer.ServerStatus{
				{Name: "postgres-1", State: "DOWN", Role: "replica", Timeline: 2, Result: "Layer7 wrong status, code: 503, role: replica"},
				{Name: "postgres-2", State: "UP", Role: "primary", Timeline: 2, Current: 8, Result: "Layer7 check passed, code: 200"},
				{Name: "postgres-3", State: "DOWN", Result: "Layer4 connection refused"},
			},
		},
		total: simulation.ClientStats{Writes: 4400, Errors: 1},
		failovers: []Failover{
			{From: "postgres-3", To: "postgres-1", Timeline: 1, Stopped: noon.Add(-14400 * time.Millisecond), NoLeaderMS: 1201, LongestGapMS: 1432},
			{From: "postgres-1", To: "postgres-2", Timeline: 2, Stopped: noon.Add(-4400 * time.Millisecond), NoLeaderMS: 1202, LongestGapMS: 1390, Errors: 1},
		},
	}
	for i := range 40 {
		m := markOK
		if i >= 26 && i < 29 {
			m = markGap
		}
		v.reign.add(m, true)
	}
	for i := range 4 {
		row := clientRow{style: simulation.StyleOf(i).String(), stats: simulation.ClientStats{Writes: 1100, LongestGap: 1432 * time.Millisecond}, strip: slices.Clone(v.reign)}
		if i == 2 {
			row.stats.Errors, row.strip[26] = 1, markError
		}
		v.clients = append(v.clients, row)
	}
	for _, e := range []Event{
		{Event: "stopping", Text: "postgres-1 stops: its sessions end"},
		{Event: "client_error", Client: "client-3", Text: "waiting for an answer: EOF"},
		{Event: "log", Text: "warn: Server bk_postgres_primary/postgres-1 is DOWN, reason: Layer7 wrong status, code: 503, check duration: 3ms"},
		{Event: "failover", Text: "is in a table of its own"},
	} {
		e.Time = noon.Add(-4 * time.Second)
		v.events = append(v.events, e)
	}
	return v
}

func TestView(t *testing.T) {
	noLeader := func(v *view) {
		v.stopped = "postgres-2"
		v.nodes["postgres-2"], v.nodes["postgres-3"] = "stopped", "promoting"
		v.backend.Leader, v.backend.Accepting, v.backend.Current, v.backend.Held = "", false, 0, 4
		v.backend.Reason = "postgres-2 is DOWN"
	}
	for _, test := range []struct {
		name          string
		width, height int
		paint         paint
		change        func(*view)
	}{
		{"steady", 80, 24, paint{unicode: true}, func(*view) {}},
		{"no-leader", 80, 24, paint{unicode: true}, noLeader},
		{"in-doubt-in-colours", 80, 24, paint{colours: true}, func(v *view) {
			v.backend.Accepting = false
			v.clients[0].stats.ReadOnly, v.total.ReadOnly, v.lost = 1, 1, 2
		}},
		{"at-the-start", 80, 24, paint{}, func(v *view) {
			*v = view{now: noon, started: noon, listen: v.listen, backend: balancer.BackendStatus{Since: noon}, clients: []clientRow{{style: "connects anew"}}}
		}},
		{"small", 40, 10, paint{}, noLeader},
		{"large", 132, 40, paint{unicode: true}, func(v *view) {
			for range 20 {
				v.clients = append(v.clients, v.clients[0])
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := aView()
			test.change(&v)
			lines := v.render(test.width, test.height, test.paint)
			if len(lines) != test.height {
				t.Errorf("%d lines, want %d", len(lines), test.height)
			}
			for i, line := range lines {
				if n := utf8.RuneCountInString(line); n > test.width && !test.paint.colours {
					t.Errorf("line %d has %d columns: %q", i, n, line)
				}
			}
			golden(t, test.name, strings.ReplaceAll(strings.Join(lines, "\n"), "\x1b", "␛")+"\n")
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: -update if this is as it should be:\n%s", file, got)
	}
}

// However small the terminal, there is no panic and nothing too long.
func TestViewFits(t *testing.T) {
	for width := 1; width < 100; width += 7 {
		for height := 1; height < 40; height++ {
			lines := aView().render(width, height, paint{})
			if len(lines) > height {
				t.Errorf("%d x %d: %d lines", width, height, len(lines))
			}
			for _, line := range lines {
				if utf8.RuneCountInString(line) > width {
					t.Errorf("%d x %d: %q", width, height, line)
				}
			}
		}
	}
}

func TestLine(t *testing.T) {
	cells := []cell{{"one ", plain}, {"two", green}, {" three", bold}}
	for _, test := range []struct {
		paint paint
		width int
		want  string
	}{
		{paint{}, 80, "one two three"},
		{paint{colours: true}, 80, "one \x1b[32mtwo\x1b[0m\x1b[1m three\x1b[0m"},
		{paint{colours: true}, 6, "one \x1b[32mtw\x1b[0m"},
		{paint{colours: true}, 0, ""},
	} {
		if got := test.paint.line(test.width, cells...); got != test.want {
			t.Errorf("%+v, width %d: %q, want %q", test.paint, test.width, got, test.want)
		}
	}
	if got := (paint{}).line(80, cell{"a\x1b[2Jb\nc", plain}); got != "a [2Jb c" {
		t.Errorf("control characters: %q", got)
	}
}

func TestWrap(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"short", "short"},
		{"just sixteen not", "just sixteen not"},
		{"the words of a line break at blanks", "the words of a|  line break at|  blanks"},
		{"averyveryverylongword and more", "averyveryverylon|  gword and more"},
		{"", ""},
	} {
		if got := strings.Join(wrap(test.text, 16, "  "), "|"); got != test.want {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}

func TestStrip(t *testing.T) {
	var s strip
	for i, m := range []mark{markOK, markGap, markGap, markGap, markGap, markError, markOK} {
		s.add(m, i%2 == 0)
	}
	if got := fmt.Sprint(s); got != fmt.Sprint(strip{markOK, markGap, markError, markOK}) {
		t.Errorf("pairs of frames: %v", got)
	}
	if got := (paint{}).line(80, paint{}.strip(s, 3)...); got != ".x#" {
		t.Errorf("the newest three: %q", got)
	}
	for range 10 * stripMax {
		s.add(markOK, true)
	}
	if len(s) != stripMax {
		t.Errorf("it holds %d cells", len(s))
	}
}

func TestFeed(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out strings.Builder
		f := &feed{out: &out, json: asJSON}
		f.start("/tmp/x", "127.0.0.1:5432", "config global\n\n")
		f.Write([]byte("frontend ft listens\nwarn: two\n"))
		f.clientError("client-1", errors.New("EOF"))
		f.note("promoted", "b takes writes")
		f.failover(Failover{From: "a", To: "b", Timeline: 2, Stopped: noon, NoLeaderMS: 1200, LongestGapMS: 1400, Errors: 3, ReadOnly: 1})
		f.end(Summary{Seconds: 12, Failovers: 1, Writes: 900, Errors: 3, ReadOnly: 1, Lost: 2, LongestGapMS: 1400, NoLeaderMS: 1200})
		var lines []string
		for line := range strings.Lines(out.String()) {
			if at := strings.Index(line, `Z","event"`); at > 0 {
				line = `{"time":"` + line[at:]
			} else if len(line) > 13 && line[2] == ':' && line[5] == ':' {
				line = "TIME" + line[12:]
			}
			lines = append(lines, line)
		}
		golden(t, map[bool]string{false: "feed-lines", true: "feed-json"}[asJSON], strings.Join(lines, ""))
	}
}
