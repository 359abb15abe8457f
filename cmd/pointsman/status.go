package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"pointsman/balancer"
	"pointsman/balancer/control"
	"pointsman/config"
	"pointsman/openwrt/uci"
)

var socketFlag = &cli.StringFlag{Name: "socket", Usage: "control socket `PATH`; default: what the configuration says"}

func statusCommand(e env) *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "frontends, backends, servers, leader, epoch, sessions",
		Flags: []cli.Flag{
			configFlag,
			socketFlag,
			&cli.BoolFlag{Name: "json", Usage: "everything, as one line of JSON"},
			&cli.BoolFlag{Name: "watch", Usage: "again every second, until interrupted"},
			&cli.BoolFlag{Name: "healthy", Usage: "say nothing; exit 0 only if every leader backend has a leader"},
		},
		Action: func(c *cli.Context) error {
			path, err := socketPath(c)
			if err != nil {
				return err
			}
			for {
				s, err := control.Ask(path)
				if c.Bool("healthy") {
					return healthy(s, err)
				}
				if err != nil {
					return err
				}
				if c.Bool("watch") && !c.Bool("json") {
					fmt.Fprint(e.stdout, "\x1b[H\x1b[2J") // cursor home, clear
				}
				if err := printStatus(e.stdout, s, c.Bool("json")); err != nil || !c.Bool("watch") {
					return err
				}
				select {
				case <-time.After(time.Second):
				case <-c.Context.Done():
					return nil
				}
			}
		},
	}
}

// socketPath finds the control socket. A file that is broken now does not
// hide the daemon that runs with an older one.
func socketPath(c *cli.Context) (string, error) {
	if path := c.String("socket"); path != "" {
		return path, nil
	}
	cfg, err := uci.Load(c.String("config"))
	if err != nil {
		return config.NewGlobal().Control, nil
	}
	if cfg.Global.Control == "" {
		return "", fmt.Errorf("%s has `option control ''`: there is no socket to ask", c.String("config"))
	}
	return cfg.Global.Control, nil
}

func healthy(s *balancer.Snapshot, err error) error {
	if err != nil {
		return errors.Join(errSilent, err)
	}
	for _, b := range s.Backends {
		if b.Policy == string(config.Leader) && !b.Accepting {
			return errSilent
		}
	}
	return nil
}

func printStatus(w io.Writer, s *balancer.Snapshot, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	fmt.Fprintf(w, "pointsman %s, pid %d, up %s, %s\n", s.Version, s.PID, age(s.Taken, s.Started), s.Config)
	if s.ReloadErr != "" {
		fmt.Fprintf(w, "the file was not taken at the last reload:\n%s\n", s.ReloadErr)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range s.Frontends {
		fmt.Fprintf(t, "\nfrontend %s -> %s\n", f.Name, f.Backend)
		fmt.Fprintf(t, "  LISTENS ON\tCLIENTS\tMOST\tTOTAL\tREFUSED\tIN\tOUT\n")
		for i, b := range f.Binds {
			if i > 0 {
				fmt.Fprintf(t, "  %s\n", b.Address)
				continue
			}
			fmt.Fprintf(t, "  %s\t%d\t%d\t%d\t%d\t%s\t%s\n", b.Address, f.Current, f.Max, f.Total, f.Refused, size(f.BytesIn), size(f.BytesOut))
		}
	}
	for _, b := range s.Backends {
		printBackend(t, s, &b)
	}
	for _, d := range s.DCS {
		printDCS(t, s, &d)
	}
	return t.Flush()
}

func printBackend(t io.Writer, s *balancer.Snapshot, b *balancer.BackendStatus) {
	fmt.Fprintf(t, "\nbackend %s, policy %s: %s\n", b.Name, b.Policy, headline(s, b))
	fmt.Fprintf(t, "  SERVER\tADDRESS\tSTATE\tFOR\tROLE\tTL\tSESSIONS\tTOTAL\n")
	for _, srv := range b.Servers {
		mark := " "
		if srv.Name == b.Leader {
			mark = "*"
		}
		timeline := "-"
		if srv.Timeline != 0 {
			timeline = fmt.Sprint(srv.Timeline)
		}
		role := srv.Role
		if role == "" {
			role = "-"
		}
		fmt.Fprintf(t, "%s %s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", mark, srv.Name, srv.Address, srv.State, age(s.Taken, srv.Since), role, timeline, srv.Current, srv.Total)
	}
	for _, srv := range b.Servers {
		// A replica that says so is as it should be.
		if !srv.Up && srv.Result != "" && srv.Role == "" {
			fmt.Fprintf(t, "  %s: %s\n", srv.Name, srv.Result)
		}
	}
}

// printDCS says in two lines whether hints come, and what the key holds.
func printDCS(t io.Writer, s *balancer.Snapshot, d *balancer.DCSStatus) {
	where := "watched at " + d.Endpoint
	if d.Endpoint == "" {
		where = "NOT WATCHED"
	}
	holds := "not read yet"
	switch {
	case d.Exists:
		holds = "leader " + d.Leader
	case d.Known:
		holds = "no such key"
	}
	if !d.Changed.IsZero() {
		holds += fmt.Sprintf(", changed %s ago", age(s.Taken, d.Changed))
	}
	fmt.Fprintf(t, "\ndcs %s, %s: %s for %s, %s\n", d.Name, d.Key, where, age(s.Taken, d.Since), holds)
	if d.Error != "" {
		fmt.Fprintf(t, "  %s ago: %s\n", age(s.Taken, d.Failed), d.Error)
	}
}

// headline says in one line how a backend is.
func headline(s *balancer.Snapshot, b *balancer.BackendStatus) string {
	text := fmt.Sprintf("%d sessions", b.Current)
	if b.Policy == string(config.Leader) {
		switch {
		case b.Leader == "":
			text = fmt.Sprintf("NO LEADER for %s (%s), %s", age(s.Taken, b.Since), b.Reason, text)
		case !b.Accepting:
			text = fmt.Sprintf("leader %s IN DOUBT, epoch %d, %s", b.Leader, b.Epoch, text)
		default:
			text = fmt.Sprintf("leader %s for %s, epoch %d, %s", b.Leader, age(s.Taken, b.Since), b.Epoch, text)
		}
	}
	if b.Held > 0 {
		text += fmt.Sprintf(", %d held", b.Held)
	}
	if b.Queued > 0 {
		text += fmt.Sprintf(", %d queued", b.Queued)
	}
	return text
}

// age is how long ago since was, in its largest unit: 7s, 3m, 5h, 12d.
func age(now, since time.Time) string {
	d := now.Sub(since)
	switch {
	case since.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// size is a number of bytes with three digits: 999B, 12.3K, 4.56G.
func size(n uint64) string {
	v, units := float64(n), "BKMGTPE"
	i := 0
	for ; v >= 999.5; i++ {
		v /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%dB", n)
	}
	return fmt.Sprintf("%.3g%c", v, units[i])
}
