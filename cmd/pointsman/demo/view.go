package demo

import (
	"fmt"
	"net"
	"strings"
	"time"

	"pointsman/balancer"
	"pointsman/cmd/pointsman/simulation"
)

// view is all that one frame shows: a value, so that a test can look at it.
type view struct {
	now       time.Time
	started   time.Time
	listen    string
	config    string
	next      time.Time // failover; zero = none
	stopped   string    // the leader that stopped, while there is no new one
	backend   balancer.BackendStatus
	nodes     map[string]string // what the simulated nodes are in truth
	reign     strip
	clients   []clientRow
	total     simulation.ClientStats
	lost      uint64
	failovers []Failover
	events    []Event
}

type clientRow struct {
	style string
	stats simulation.ClientStats
	strip strip
}

// view collects what there is to see now.
func (s *show) view() view {
	v := view{
		now: time.Now(), started: s.started, listen: s.listen.String(), config: s.config,
		next: s.next, stopped: s.stopped, nodes: map[string]string{},
		reign: s.reign, total: s.total(), lost: s.ledger.Lost, failovers: s.failovers,
	}
	if snapshot := s.snapshot(); snapshot != nil && len(snapshot.Backends) > 0 {
		v.backend = snapshot.Backends[0]
	}
	for _, n := range s.cluster.Nodes() {
		v.nodes[n.Name] = truth(n.State())
	}
	for _, c := range s.clients {
		v.clients = append(v.clients, clientRow{c.client.Style.String(), c.client.Stats(), c.strip})
	}
	return v
}

func truth(s simulation.State) string {
	switch {
	case s.Postgres != "running":
		return s.Postgres
	case s.Lock && s.Role == "replica":
		return "promoting"
	}
	return s.Role
}

// canvas is a frame in the making.
type canvas struct {
	paint
	width int
	lines []string
}

func (c *canvas) row(cells ...cell) { c.lines = append(c.lines, c.line(c.width, cells...)) }

func (c *canvas) header(text string) {
	c.row(cell{text + strings.Repeat(" ", max(0, c.width-len(text))), underlined})
}

// leastRows is how many failovers and how many lines of the log have a place
// on the smallest terminal; clients beyond the first make room for them.
const leastRows = 3

// render returns the view as height lines of at most width columns.
func (v view) render(width, height int, p paint) []string {
	c := &canvas{paint: p, width: width}
	v.head(c)
	v.servers(c)
	const fixed = 5 // headers of clients, failovers and log, the cluster's strip, the hint
	room := height - len(c.lines) - fixed
	clients := max(1, min(len(v.clients), room-2*leastRows))
	failovers := max(leastRows, min(len(v.failovers)+1, (room-clients)/3))
	v.clientTable(c, clients)
	v.failoverTable(c, failovers)
	v.log(c, max(0, room-clients-failovers))
	v.hint(c)
	return c.lines[:min(len(c.lines), height)]
}

// head tells who leads, and what became of the writes in all.
func (v view) head(c *canvas) {
	left := fmt.Sprintf(" pointsman demo  %s", v.now.Sub(v.started).Truncate(time.Second))
	right := ""
	switch {
	case v.stopped != "":
		right = v.stopped + " has stopped "
	case !v.next.IsZero():
		right = fmt.Sprintf("next failover in %.0f s ", max(0, v.next.Sub(v.now).Seconds()))
	}
	c.row(cell{left + strings.Repeat(" ", max(2, c.width-len(left)-len(right))) + right, reverse})

	b := v.backend
	since := seconds(ms(v.now.Sub(b.Since)))
	switch {
	case b.Leader == "":
		c.row(cell{" NO LEADER", alarm}, cell{" for " + since, bold}, cell{"  " + b.Reason, faint})
	case !b.Accepting:
		c.row(cell{" " + b.Leader + " IN DOUBT", notice}, cell{fmt.Sprintf("  epoch %d", b.Epoch), bold}, cell{"  " + b.Reason, faint})
	default:
		c.row(cell{" " + b.Leader + " leads", good}, cell{fmt.Sprintf("  epoch %d  timeline %d  for %s", b.Epoch, b.Timeline, since), bold}, cell{"  " + b.Reason, faint})
	}
	c.row(
		figure(" held clients", uint64(b.Held), notice), figure("  sessions", uint64(b.Current), plain),
		figure("  writes", v.total.Writes, plain), figure("  errors", v.total.Errors, notice),
		figure("  read-only", v.total.ReadOnly, alarm), figure("  lost", v.lost, alarm))
}

// figure is a name and a number, in its style unless it is 0.
func figure(name string, n uint64, s style) cell {
	if n == 0 {
		s = plain
	}
	return cell{fmt.Sprintf("%s %d", name, n), s}
}

// servers shows the daemon's view of the servers beside the truth.
func (v view) servers(c *canvas) {
	c.header("  SERVER     IS        SEEN AS  ROLE    TL SESS  LAST CHECK")
	for _, s := range v.backend.Servers {
		mark, look := " ", plain
		if s.Name == v.backend.Leader {
			mark, look = ">", good
		}
		is := v.nodes[s.Name]
		isLook := map[string]style{"stopped": alarm, "promoting": notice}[is]
		timeline := "-"
		if s.Timeline != 0 {
			timeline = fmt.Sprint(s.Timeline)
		}
		c.row(cell{fmt.Sprintf("%s %-10s ", mark, s.Name), look}, cell{fmt.Sprintf("%-9s ", is), isLook},
			cell{fmt.Sprintf("%-8s ", s.State), look}, cell{fmt.Sprintf("%-7s %2s %4d  ", s.Role, timeline, s.Current), plain}, cell{s.Result, faint})
	}
}

// clientTable shows the cluster's strip, and rows lines of clients below it.
func (v view) clientTable(c *canvas, rows int) {
	const before = 53 // columns left of the strips
	cells := max(1, min(stripMax, c.width-before-1))
	lasts := time.Duration(cells*perCell) * frame
	c.header(fmt.Sprintf("  %-25s%7s%8s%9s  THE LAST %.0f s", "CLIENT", "WRITES", "ERRORS", "GAP MAX", lasts.Seconds()))
	c.row(append([]cell{{fmt.Sprintf("%-*s", before, "  the cluster itself can be written to"), faint}}, c.strip(v.reign, cells)...)...)
	for i, client := range v.clients {
		if rest := len(v.clients) - i; i == rows-1 && rest > 1 {
			c.row(cell{fmt.Sprintf("  … and %d more clients", rest), faint})
			return
		}
		s := client.stats
		errors := cell{fmt.Sprintf("%8d", s.Errors), plain}
		if s.Errors > 0 {
			errors.style = notice
		}
		if s.ReadOnly > 0 {
			errors.style = alarm
		}
		c.row(append([]cell{
			{fmt.Sprintf("  %-3d %-21s%7d", i+1, client.style, s.Writes), plain}, errors,
			{fmt.Sprintf("%9s  ", seconds(ms(s.LongestGap))), plain},
		}, c.strip(client.strip, cells)...)...)
	}
}

// failoverTable shows the last failovers in rows lines, the newest first.
func (v view) failoverTable(c *canvas, rows int) {
	c.header(fmt.Sprintf("  %-36s%8s%11s%14s%8s", "FAILOVER", "TIMELINE", "NO LEADER", "CLIENTS' GAP", "ERRORS"))
	end := len(c.lines) + rows
	if v.stopped != "" {
		c.row(cell{"  now       " + v.stopped + " -> ?", notice})
	}
	for i := len(v.failovers) - 1; i >= 0 && len(c.lines) < end; i-- {
		f := v.failovers[i]
		c.row(cell{fmt.Sprintf("  %s  %-26s%8d%11s%14s%8d", f.Stopped.Format("15:04:05"), f.From+" -> "+f.To,
			f.Timeline, seconds(f.NoLeaderMS), seconds(f.LongestGapMS), f.Errors), plain})
	}
	for len(c.lines) < end {
		c.row()
	}
}

// log shows the newest events in rows lines, the newest last. Failovers have
// a table of their own.
func (v view) log(c *canvas, rows int) {
	c.header("  LOG")
	var lines []cell
	for _, e := range v.events {
		if e.Event == "failover" {
			continue
		}
		text := e.Text
		if e.Event == "client_error" {
			text = e.Client + ": " + text
		}
		for _, line := range wrap("  "+e.Time.Format("15:04:05")+"  "+text, c.width, "            ") {
			lines = append(lines, cell{line, e.style()})
		}
	}
	lines = lines[max(0, len(lines)-rows):]
	for i := range rows {
		if i < len(lines) {
			c.row(lines[i])
		} else {
			c.row()
		}
	}
}

func (e Event) style() style {
	switch {
	case e.Event == "client_error":
		return red
	case e.Event == "log" && strings.HasPrefix(e.Text, "warn"), e.Event == "stuck":
		return yellow
	case e.Event == "log" && strings.HasPrefix(e.Text, "error"):
		return alarm
	case e.Event == "log":
		return plain
	}
	return bold
}

// hint tells what a visitor can do.
func (v view) hint(c *canvas) {
	host, port, _ := net.SplitHostPort(v.listen)
	text := fmt.Sprintf(" try: nc %s %s  and type WHO, or WRITE x.  ctrl-C ends.", host, port)
	if status := "  or: pointsman status -c " + v.config; len(text)+len(status) < c.width {
		text += status
	}
	c.row(cell{text + strings.Repeat(" ", max(0, c.width-len(text))), reverse})
}
