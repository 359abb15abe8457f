//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// trial is one fault and what became of it.
type trial struct {
	fault, detail  string
	began, end     time.Time
	gap            map[string]time.Duration // by kind of writer, and floor: the longest without a row
	attempts       map[string]int           // by kind: connections that could not be opened
	statements     map[string]int           // by kind: statements that failed
	readOnly       int
	acked          int
	loss           loss
	zombies, twice int
	wrong          []string // what must not be
}

// reckon fills in what the clients saw, and judges it.
func (c *chaos) reckon(tr *trial) {
	facts := c.clients.all()
	var acks []fact
	for _, f := range facts[c.taken:] {
		kind, _, _ := strings.Cut(f.Who, "-")
		switch {
		case f.Event == "ack":
			acks = append(acks, f)
		case f.Event != "fail":
		case f.Stage == "connect":
			tr.attempts[kind]++
		default:
			tr.statements[kind]++
		}
	}
	c.taken = len(facts)
	tr.acked = len(acks)
	tr.gaps(c.clients, "")
	tr.gaps(c.floor, "floor")
	for _, kind := range sortedKeys(tr.attempts) {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%d connections of %s could not be opened", tr.attempts[kind], kind))
	}
	tr.readOnly = c.readOnly(tr)
	var example string
	if tr.zombies, example = zombies(acks, c.w.confirmations(c.proxy)); tr.zombies > 0 {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%d rows acknowledged by a deposed leader: %s", tr.zombies, example))
	}
	if tr.loss.other > 0 {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%d rows are missing that PostgreSQL did not lose: %s", tr.loss.other, tr.loss.example))
	}
	if tr.twice, example = c.watch.twice(tr.began); tr.twice > 0 {
		tr.wrong = append(tr.wrong, "sessions on two servers: "+example)
	}
	if n := c.toDeposed(tr); n > 0 {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%d bytes of sessions to a server that was not the leader any more", n))
	}
}

// gaps notes the longest time between two rows, by kind of writer.
func (tr *trial) gaps(c *clients, name string) {
	last := map[string]time.Time{}
	for _, f := range c.all() {
		if f.Event != "ack" {
			continue
		}
		kind, _, _ := strings.Cut(f.Who, "-")
		if name != "" {
			kind = name
		}
		at := f.at()
		if was, ok := last[f.Who]; ok && at.After(tr.began) && at.Before(tr.end) {
			tr.gap[kind] = max(tr.gap[kind], at.Sub(was))
		}
		last[f.Who] = at
	}
}

// readOnly counts the statements that a replica refused; one writer shall not
// meet that for longer than a second.
func (c *chaos) readOnly(tr *trial) (n int) {
	first := map[string]time.Time{}
	lasting := map[string]bool{}
	for _, f := range c.clients.all() {
		if f.Event != "fail" || f.Code != sqlReadOnly || f.at().Before(tr.began) {
			continue
		}
		n++
		if first[f.Who].IsZero() {
			first[f.Who] = f.at()
		}
		lasting[f.Who] = f.at().Sub(first[f.Who]) > time.Second
	}
	for _, who := range sortedKeys(lasting) {
		if lasting[who] {
			tr.wrong = append(tr.wrong, who+" meets read-only errors for more than a second")
		}
	}
	return n
}

// toDeposed counts what sessions sent to a node while another was confirmed.
func (c *chaos) toDeposed(tr *trial) (bytes int) {
	leaders := c.w.confirmations(c.proxy)
	for _, k := range c.w.capture.between(tr.began, tr.end) {
		if !isData(k, c.proxy) {
			continue
		}
		i := len(leaders) - 1
		for i >= 0 && leaders[i].at.After(k.at) {
			i--
		}
		if i < 0 || leaders[i].node == k.node.addr {
			continue
		}
		if next := i + 1; next < len(leaders) && leaders[next].node == k.node.addr && leaders[next].at.Sub(k.at) < lineDelay {
			continue
		}
		bytes += k.payload
	}
	return bytes
}

// table is Markdown, for docs/failover.md.
func (c *chaos) table() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "|\t| fault\t| of\t| floor\t| keep\t| anew\t| pool\t| connects\t| statements\t| read-only\t| rows\t| lost by PostgreSQL\t| lost otherwise\t| zombies\t|")
	fmt.Fprintln(t, "| ---\t| ---\t| ---\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t|")
	var all trial
	for i, tr := range c.trials {
		fmt.Fprintf(t, "| %d\t| %s\t| %s\t| %.1f s\t| %.1f s\t| %.1f s\t| %.1f s\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t| %d\t|\n", i+1, tr.fault, tr.detail,
			tr.gap["floor"].Seconds(), tr.gap["keep"].Seconds(), tr.gap["anew"].Seconds(), tr.gap["pool"].Seconds(), total(tr.attempts), total(tr.statements),
			tr.readOnly, tr.acked, tr.loss.postgres, tr.loss.other, tr.zombies)
		all.acked += tr.acked
		all.loss.postgres += tr.loss.postgres
		all.loss.other += tr.loss.other
		all.zombies += tr.zombies
	}
	t.Flush()
	fmt.Fprintf(&b, "\n%d rows acknowledged, %d lost by PostgreSQL, %d lost otherwise, %d acknowledged by a deposed leader\n",
		all.acked, all.loss.postgres, all.loss.other, all.zombies)
	return b.String()
}

func total(by map[string]int) (n int) {
	for _, v := range by {
		n += v
	}
	return n
}
