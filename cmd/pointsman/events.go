package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"pointsman/balancer"
	"pointsman/balancer/control"
)

func eventsCommand(e env) *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "what befell the leaders: changes, doubts, rivals; with a number, one of them whole",
		ArgsUsage: "[NUMBER]",
		Flags: []cli.Flag{
			configFlag,
			socketFlag,
			&cli.BoolFlag{Name: "json", Usage: "as one line of JSON"},
		},
		Action: func(c *cli.Context) error {
			path, err := socketPath(c)
			if err != nil {
				return err
			}
			h, err := control.AskEvents(path)
			if err != nil {
				return err
			}
			if c.NArg() == 0 {
				return printEvents(e.stdout, h, c.Bool("json"))
			}
			event, err := findEvent(h, c.Args().Slice())
			if err != nil {
				return err
			}
			return printEvent(e.stdout, event, c.Bool("json"))
		},
	}
}

func findEvent(h *balancer.History, args []string) (balancer.LeaderEvent, error) {
	none := balancer.LeaderEvent{}
	n, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil || len(args) > 1 {
		return none, fmt.Errorf("events takes one number and options before it: '%s'", args[len(args)-1])
	}
	for _, e := range h.Events {
		if e.Number == uint32(n) {
			return e, nil
		}
	}
	if len(h.Events) == 0 {
		return none, fmt.Errorf("no event %d: there was none yet", n)
	}
	return none, fmt.Errorf("no event %d: there are those of `pointsman events`, up to %d", n, h.Events[len(h.Events)-1].Number)
}

// printEvents shows two lines for each event, the newest last.
func printEvents(w io.Writer, h *balancer.History, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(h)
	}
	wide, several := len("LEADER"), false
	for _, e := range h.Events {
		wide = max(wide, len(leaders(e)))
		several = several || e.Backend != h.Events[0].Backend
	}
	fmt.Fprintf(w, "%4s  %-23s  %-*s  %8s %8s %8s %9s %8s\n", "#", "FIRST DOUBT", wide, "LEADER", "STOPPED", "FENCED", "CLAIMED", "CONFIRMED", "SESSION")
	for _, e := range h.Events {
		fmt.Fprintf(w, "%4d  %-23s  %-*s  %8s %8s %8s %9s %8s\n", e.Number, e.Doubt.At.Local().Format("2006-01-02 15:04:05.000"), wide, leaders(e),
			phase(e.Stopped), phase(e.Fenced), phase(e.Claimed), phase(e.Confirmed), phase(e.FirstSession))
		backend := ""
		if several {
			backend = e.Backend + ": "
		}
		fmt.Fprintf(w, "      %s%s; %s\n", backend, e.Doubt, cost(e))
	}
	return nil
}

// printEvent shows one event as a timeline.
func printEvent(w io.Writer, e balancer.LeaderEvent, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(e)
	}
	fmt.Fprintf(w, "event %d of %s: %s\n\n", e.Number, e.Backend, leaders(e))
	for _, n := range e.Timeline() {
		fmt.Fprintf(w, "%s  %+10.3f s  %s\n", n.At.Local().Format("2006-01-02 15:04:05.000"), n.AfterMS/1000, n.Text)
	}
	if e.NotesLost > 0 {
		fmt.Fprintf(w, "%d more texts were not kept\n", e.NotesLost)
	}
	fmt.Fprintf(w, "\n%s\n", cost(e))
	if h := e.Held; h.Late+h.Full > 0 {
		fmt.Fprintf(w, "refused: %d because `hold` was over, %d because `hold_max` clients were held\n", h.Late, h.Full)
	}
	return nil
}

// leaders says who led before and who after.
func leaders(e balancer.LeaderEvent) string {
	old := e.Old.Server
	if old == "" {
		old = "nobody"
	}
	switch e.Outcome {
	case balancer.LeaderChanged:
		return old + " -> " + e.New.Server
	case balancer.LeaderReturned:
		return old + " -> " + e.New.Server + ", anew"
	case balancer.VouchedAgain:
		return old + " in doubt"
	case balancer.ClaimsSettled:
		return old + " not alone"
	case balancer.Abandoned:
		return old + ", then removed"
	}
	if e.Stopped == nil {
		return old + " not alone, now"
	}
	return old + " -> ?"
}

// phase is when a phase was reached, in seconds since the doubt.
func phase(m *balancer.Moment) string {
	if m == nil {
		return "-"
	}
	return fmt.Sprintf("%+.3f", m.AfterMS/1000)
}

// cost says what an event meant to clients.
func cost(e balancer.LeaderEvent) string {
	h := e.Held
	text := fmt.Sprintf("no leader for %.3f s, %d sessions ended, %d clients held", e.NoLeaderMS/1000, e.SessionsEnded, h.Clients)
	if h.Clients > 0 {
		text += fmt.Sprintf(" (%d at once, longest %.3f s, %d gave up)", h.Most, h.LongestMS/1000, h.Left)
	}
	return text + fmt.Sprintf(", %d refused", h.Late+h.Full)
}
