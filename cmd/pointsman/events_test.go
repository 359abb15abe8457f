package main

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"pointsman/balancer"
	"pointsman/cmd/pointsman/simulation"
)

func (p *process) events() *balancer.History {
	p.t.Helper()
	status, out, errs := call(p.t, "events", "--socket", p.socket, "--json")
	var h balancer.History
	if err := json.Unmarshal([]byte(out), &h); status != 0 || err != nil {
		p.t.Fatalf("status %d, %v: %s%s", status, err, out, errs)
	}
	return &h
}

func TestEvents(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	p.until("leader of bk is now postgres-1")
	client := simulation.NewClient("client", simulation.Anew, p.listener, func(error) {})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	change, err := c.Failover(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.until("failover 2 of bk: postgres-1 -> " + change.To)

	h := p.events()
	if len(h.Events) < 2 {
		t.Fatalf("%+v", h)
	}
	e := h.Events[1]
	if e.Outcome != balancer.LeaderChanged || e.Old.Server != change.From || e.New.Server != change.To || e.New.Timeline != change.Timeline {
		t.Errorf("%+v, want %+v", e, change)
	}
	if e.Confirmed == nil || !e.Confirmed.At.After(change.Stopped) || h.Taken.Before(e.Confirmed.At.Truncate(time.Millisecond)) {
		t.Errorf("confirmed %+v, stopped at %v, told at %v", e.Confirmed, change.Stopped, h.Taken)
	}

	status, out, errs := call(t, "events", "-c", p.file)
	row := regexp.MustCompile(`(?m)^   2  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  postgres-1 -> ` + change.To + `  ( +[+-]\d+\.\d{3}){4} .*\n      \w+: .*; no leader for \d\.\d{3} s, \d sessions ended, \d clients held`)
	if status != 0 || !row.MatchString(out) || !strings.Contains(out, "nobody -> postgres-1") {
		t.Errorf("%d: %s%s", status, out, errs)
	}
	if lines := strings.Split(out, "\n"); len(lines[0]) != len(lines[1]) || len(lines[1]) != len(lines[3]) {
		t.Errorf("columns:\n%s", out)
	}
	status, out, errs = call(t, "events", "-c", p.file, "2")
	for _, want := range []string{"event 2 of bk: postgres-1 -> " + change.To, "+0.000 s  doubt by ", "new clients are held", change.To + " is confirmed (epoch 2, timeline 2)", "fence: "} {
		if status != 0 || !strings.Contains(out, want) {
			t.Errorf("%d, no %q in\n%s%s", status, want, out, errs)
		}
	}
	var one balancer.LeaderEvent
	if _, out, _ := call(t, "events", "-c", p.file, "--json", "2"); json.Unmarshal([]byte(out), &one) != nil || one.Number != 2 {
		t.Errorf("%s", out)
	}
	for _, args := range [][]string{{"99"}, {"two"}, {"2", "--json"}} {
		if status, out, errs := call(t, append([]string{"events", "-c", p.file}, args...)...); status != 1 || !strings.Contains(errs, args[len(args)-1]) {
			t.Errorf("%v: %d %s%s", args, status, out, errs)
		}
	}
}

// The names of the JSON are what people's scripts know.
func TestEventNames(t *testing.T) {
	moment := &balancer.Moment{At: time.Date(2026, 1, 2, 3, 12, 4, 120e6, time.UTC), AfterMS: 1204.5}
	text, err := json.Marshal(balancer.LeaderEvent{Number: 7, Outcome: balancer.Ongoing, Fenced: moment, Notes: []balancer.Note{{Moment: *moment, Text: "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	at := `{"at":"2026-01-02T03:12:04.12Z","after_ms":1204.5`
	want := `{"number":7,"backend":"","outcome":"ongoing","old":{"server":"","epoch":0,"timeline":0},"new":{"server":"","epoch":0,"timeline":0},` +
		`"doubt":{"at":"0001-01-01T00:00:00Z","by":"","source":"","text":""},` +
		`"last_good":null,"stopped":null,"fenced":` + at + `},"claimed":null,"confirmed":null,"first_session":null,"over":null,` +
		`"no_leader_ms":0,"sessions_ended":0,"held":{"clients":0,"most":0,"longest_ms":0,"left":0,"refused_hold":0,"refused_hold_max":0},` +
		`"notes":[` + at + `,"text":"x"}],"notes_lost":0}`
	if string(text) != want {
		t.Errorf("%s, want\n%s", text, want)
	}
}

func TestEventsWhileThereIsNoLeader(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	p.until("leader of bk is now postgres-1")
	for _, n := range c.Nodes() {
		n.Crash()
	}
	p.until("bk has no leader, was postgres-1")
	if e := p.events().Events[1]; e.Outcome != balancer.Ongoing || e.NoLeaderMS <= 0 || e.Over != nil {
		t.Errorf("%+v", e)
	}
	if _, out, _ := call(t, "events", "--socket", p.socket); !strings.Contains(out, "postgres-1 -> ?") {
		t.Errorf("%s", out)
	}
}
