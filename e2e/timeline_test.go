//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"
)

// moments is what happened in a scenario, for whoever asks why a limit was missed.
type moments struct {
	list []logLine
}

func (m *moments) add(at time.Time, format string, args ...any) {
	m.list = append(m.list, logLine{at, fmt.Sprintf(format, args...)})
}

// text shows the list with times since the fault.
func (m *moments) text(fault time.Time) string {
	sort.SliceStable(m.list, func(i, j int) bool { return m.list[i].at.Before(m.list[j].at) })
	var b strings.Builder
	for _, l := range m.list {
		fmt.Fprintf(&b, "%+9.3f  %s\n", l.at.Sub(fault).Seconds(), l.text)
	}
	return b.String()
}

// timeline gathers what the packets, the logs and the clients tell.
func (w *world) timeline(m *measurement) string {
	var all moments
	packets := w.capture.between(m.fault.Add(-5*time.Second), m.end)
	for _, p := range w.proxies {
		probes(&all, p, packets)
		served(&all, p, packets, m.fault)
		for _, l := range p.log(m.fault.Add(-time.Second), m.end) {
			all.add(l.at, "%-9s log: %s", p.name, l.text)
		}
	}
	for _, node := range w.cluster.nodes {
		w.nodeLog(&all, node, m.fault.Add(-time.Second), m.end)
	}
	for _, c := range m.clients {
		o := m.outcomes[c.way.name]
		for who, first := range o.firstWrite {
			if o.open[who] || o.gap[who] < time.Second {
				continue
			}
			all.add(m.fault.Add(first), "%-9s %s writes again, gap %.3f s", c.way.name, who, o.gap[who].Seconds())
		}
		if o.idleEnded > 0 {
			all.add(m.fault.Add(o.idleLast), "%-9s the last of %d idle sessions ended", c.way.name, o.idleEnded)
		}
	}
	return all.text(m.fault)
}

// probes tells each change in what a node's REST API answered to a proxy.
func probes(all *moments, p *proxy, packets []packet) {
	type probe struct {
		node     *member
		at, till time.Time
		result   string
	}
	open := map[netip.AddrPort]*probe{}
	var list []*probe
	for _, k := range packets {
		if k.port != restPort || k.peer.Addr() != p.host.addr {
			continue
		}
		current := open[k.peer]
		switch {
		case k.toNode && k.flags&flagSYN != 0:
			if current == nil || current.node != k.node || current.result != "is silent" {
				current = &probe{node: k.node, at: k.at, till: k.at, result: "is silent"}
				open[k.peer] = current
				list = append(list, current)
			}
		case current == nil || current.result != "is silent":
		case !k.toNode && k.status != 0:
			current.result, current.till = fmt.Sprint("answers ", k.status), k.at
		case !k.toNode && k.flags&flagRST != 0:
			current.result, current.till = "refuses", k.at
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].at.Before(list[j].at) })
	last := map[*member]string{}
	for _, b := range list {
		if last[b.node] != b.result {
			all.add(b.till, "%-9s probe: %s %s (asked %.0f ms before)", p.name, b.node.name, b.result, float64(b.till.Sub(b.at).Microseconds())/1e3)
		}
		last[b.node] = b.result
	}
}

// served tells when a proxy sent data to the SQL port of a node, where it had
// sent none for a while.
func served(all *moments, p *proxy, packets []packet, fault time.Time) {
	last := map[*member]time.Time{}
	for _, k := range packets {
		if !isData(k, p) {
			continue
		}
		if was, ok := last[k.node]; (!ok || k.at.Sub(was) > time.Second) && k.at.After(fault) {
			all.add(k.at, "%-9s data goes to %s", p.name, k.node.name)
		}
		last[k.node] = k.at
	}
	for node, at := range last {
		all.add(at, "%-9s data goes to %s no more", p.name, node.name)
	}
}

// isData reports whether the packet carries bytes of a session to a node.
func isData(k packet, p *proxy) bool {
	return k.toNode && k.port == sqlPort && k.payload > 0 && k.peer.Addr() == p.host.addr
}

// PostgreSQL's and Patroni's lines that tell of a change of leader.
var (
	turns    = regexp.MustCompile(`received (promote|fast shutdown|immediate shutdown) request|database system is (ready|shut down)|archive recovery complete|terminating any|promot|demot|released|switchover|manual failover|Cleaning up failover|pg_rewind|no action`)
	dull     = regexp.MustCompile(`no action|checkpoint|STATEMENT|ERROR`)
	logStamp = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[.,](\d{3})`)
)

func (w *world) nodeLog(all *moments, node *member, from, to time.Time) {
	file, err := os.Open(filepath.Join(w.spawn.dir, node.name+".log"))
	if err != nil {
		return
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if !turns.MatchString(line) || dull.MatchString(line) {
			continue
		}
		if at, text, ok := stamped(line); ok && !at.Before(from) && !at.After(to) {
			all.add(at, "%-9s log: %s", node.name, text[:min(len(text), 160)])
		}
	}
}

// stamped takes the time, in UTC, from a line of PostgreSQL's or Patroni's log.
func stamped(line string) (at time.Time, rest string, ok bool) {
	stamp := logStamp.FindStringSubmatch(line)
	if stamp == nil {
		return at, "", false
	}
	at, err := time.Parse("2006-01-02 15:04:05.000", stamp[1]+"."+stamp[2])
	return at, strings.TrimLeft(line[len(stamp[0]):], " UTC"), err == nil
}
