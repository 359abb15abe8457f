package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// Event is what happens, as --json prints it.
type Event struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`            // start, log, client_error, stopping, promoted, failover, stuck, summary
	Client string    `json:"client,omitempty"` // of client_error
	Config string    `json:"config,omitempty"` // of start: path of the UCI file
	Listen string    `json:"listen,omitempty"` // of start: where the daemon listens
	Text   string    `json:"text"`             // for people

	Figures any `json:"figures,omitempty"` // of failover: a Failover; of summary: a Summary
}

// kept is how many events the live view can look back on: a tall terminal's.
const kept = 200

// feed tells events: to the live view while it is open, else line by line.
// Its methods may be called from any goroutine.
type feed struct {
	out  io.Writer
	json bool
	term *terminal // nil = no live view

	mu     sync.Mutex
	view   bool // the live view is open
	recent []Event
}

func newFeed(o Options) *feed {
	f := &feed{out: o.Out, json: o.JSON}
	if !o.JSON {
		f.term = terminalOn(o.Out)
	}
	return f
}

func (f *feed) tell(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	switch {
	case f.json:
		lines := json.NewEncoder(f.out)
		lines.SetEscapeHTML(false)
		lines.Encode(e)
	case f.view:
		f.recent = append(f.recent, e)
		f.recent = f.recent[max(0, len(f.recent)-kept):]
	case e.Event == "start":
		fmt.Fprintln(f.out, e.Text)
	case e.Event == "summary":
		fmt.Fprintln(f.out, "\n"+e.Text)
	default:
		fmt.Fprintln(f.out, e.line())
	}
}

// line is an event as one line of text.
func (e Event) line() string {
	return e.Time.Format("15:04:05.000") + "  " + e.subject() + e.Text
}

// subject says whose event it is, where that is not the cluster.
func (e Event) subject() string {
	switch e.Event {
	case "log":
		return "daemon: "
	case "client_error":
		return e.Client + ": "
	}
	return ""
}

func (f *feed) start(config, listen, uci string) {
	text := fmt.Sprintf("# %s\n\n%s# write through it by hand: nc %s, then WHO or WRITE something\n", config, uci, strings.Replace(listen, ":", " ", 1))
	f.tell(Event{Event: "start", Config: config, Listen: listen, Text: text})
}

// note tells what happens to the cluster.
func (f *feed) note(event, text string) { f.tell(Event{Event: event, Text: text}) }

func (f *feed) clientError(client string, err error) {
	f.tell(Event{Event: "client_error", Client: client, Text: err.Error()})
}

func (f *feed) failover(o Failover) {
	f.tell(Event{Event: "failover", Figures: o, Text: fmt.Sprintf(
		"failover %s -> %s: no leader for %s, longest gap of a client %s, errors %d, read-only %d",
		o.From, o.To, seconds(o.NoLeaderMS), seconds(o.LongestGapMS), o.Errors, o.ReadOnly)})
}

func (f *feed) end(s Summary) {
	text := fmt.Sprintf(`failovers    %d in %.0f s
writes       %d acknowledged, %d of them lost
errors       %d, of them %d read-only
longest gap  %s between two writes of a client`, s.Failovers, s.Seconds, s.Writes, s.Lost, s.Errors, s.ReadOnly, seconds(s.LongestGapMS))
	if s.Failovers > 0 { // what nobody can do better than
		text += fmt.Sprintf("; no leader for %s", seconds(s.NoLeaderMS))
	}
	f.tell(Event{Event: "summary", Figures: s, Text: text})
}

// Write takes the daemon's log, whole lines at a time.
func (f *feed) Write(lines []byte) (int, error) {
	for line := range strings.Lines(string(lines)) {
		f.tell(Event{Event: "log", Text: strings.TrimSuffix(line, "\n")})
	}
	return len(lines), nil
}

// openView shows the live view, where there is a terminal.
func (f *feed) openView() {
	if f.term == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = true
	f.term.enter()
}

// closeView gives the terminal back; what went wrong is told once more there.
func (f *feed) closeView(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.view {
		return
	}
	f.view = false
	f.term.leave()
	if err != nil {
		for _, e := range f.recent[max(0, len(f.recent)-20):] {
			fmt.Fprintln(f.out, e.line())
		}
	}
}

// draw shows the next frame, where the live view is open.
func (f *feed) draw(look func() view) {
	if f.term == nil {
		return
	}
	v := look()
	f.mu.Lock()
	v.events = slices.Clone(f.recent)
	f.mu.Unlock()
	f.term.draw(v)
}
