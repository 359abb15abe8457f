//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

var (
	hintsFlag   = flag.String("hints", "switchover,node-killed,host-silent", "the faults of TestHints")
	repeatsFlag = flag.Int("repeats", 5, "how often TestHints lets each happen")
)

// hinted are daemons that meet the same faults at the same time, and differ in
// what can give them a hint: their clients, and whether they watch etcd.
var hinted = []struct {
	name  string
	crowd crowd
	what  string
}{
	{"pointsman-polls", crowd{}, "nothing: no sessions, no etcd"},
	{"pointsman-etcd", crowd{}, "etcd: `config dcs`, no sessions"},
	{"pointsman-idle", crowd{sleepers: 10}, "ten idle sessions"},
	{"pointsman-busy", crowd{keep: 2, anew: 1}, "three writers, one of which connects anew"},
	{"pointsman-all", crowd{sleepers: 10, keep: 2, anew: 1}, "all of these"},
}

// noticing is what one daemon made of one fault.
type noticing struct {
	doubt     time.Duration // since the fault: the leader was in doubt
	ended     time.Duration // since the fault: the old leader's sessions were ended
	confirmed time.Duration // since the new leader accepted writes: it was confirmed
	by        string        // what told it first
}

// history is the part of the daemon's own record that is needed here.
type history struct {
	Events []struct {
		Outcome string
		New     struct{ Server string }
		Doubt   struct {
			At   time.Time
			By   string
			Text string
		}
		Fenced, Confirmed *struct{ At time.Time }
	}
}

// TestHints measures how many milliseconds each kind of hint saves. It limits
// nothing: TestEndToEnd does.
func TestHints(t *testing.T) {
	names := strings.Split(*hintsFlag, ",")
	_, ctx := within(t, time.Duration(len(names)**repeatsFlag+2)*time.Minute)
	s := setup{pace: chaosPace}
	for _, h := range hinted {
		s.proxies = append(s.proxies, h.name)
	}
	w := newWorld(ctx, t, s)
	var all []*clients
	for i, h := range hinted {
		if h.crowd == (crowd{}) {
			continue
		}
		c, err := w.startCrowd(w.ways[i], "hints", h.crowd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stopClients([]*clients{c}) })
		all = append(all, c)
	}
	for _, name := range names {
		seen := map[string][]noticing{}
		for range *repeatsFlag {
			if err := w.hintedFault(ctx, t, name, all, seen); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Printf("\n%s, %d times; milliseconds, median (least to most)\n%s\n", name, *repeatsFlag, noticings(seen))
	}
}

// hintedFault lets one fault happen, and notes what each daemon made of it.
func (w *world) hintedFault(ctx context.Context, t *testing.T, name string, all []*clients, seen map[string][]noticing) error {
	err := w.cluster.waitHealthy(ctx)
	if err == nil {
		err = waitFor(ctx, 20*time.Second, "clients at work", func() error { return errors.Join(atWork(all), writing(all, 2)) })
	}
	// Transitions have to be over, and the checks at any phase of inter.
	if err == nil {
		err = pause(ctx, 4*time.Second+rand.N(3*time.Second))
	}
	if err != nil {
		return err
	}
	old, err := w.cluster.leader()
	if err != nil {
		return err
	}
	began := time.Now()
	fault := began
	switch name {
	case "switchover":
		err = w.cluster.switchover(old, w.cluster.follower(old))
	case "node-killed":
		err = w.cluster.killNode(old)
	case "host-silent":
		err = w.net.unplug(old.host)
	default:
		err = fmt.Errorf("no fault %q", name)
	}
	if err != nil {
		return err
	}
	var next *member
	err = waitFor(ctx, 45*time.Second, "another leader", func() error {
		now, err := w.cluster.leader()
		if err == nil && now == old {
			err = fmt.Errorf("still %s", now.name)
		}
		next = now
		return err
	})
	if err == nil {
		err = pause(ctx, 7*time.Second) // for one that polls, twice inter and rise
	}
	if err != nil {
		return err
	}
	if name == "switchover" { // what it begins with is up to Patroni
		if fault, err = w.logged(old, `received fast shutdown request`, fault); err != nil {
			return err
		}
	}
	writable, err := w.logged(next, `database system is ready to accept connections`, fault)
	if err != nil {
		return err
	}
	for _, p := range w.proxies {
		n, err := p.noticed(next, began, fault, writable)
		if err != nil {
			t.Error(err)
			continue
		}
		seen[p.name] = append(seen[p.name], n)
		t.Logf("%s, %s: in doubt after %v by %s, sessions ended after %v, confirmed %v after it was writable",
			name, p.name, n.doubt, n.by, n.ended, n.confirmed)
	}
	return errors.Join(w.net.plug(old.host), w.backAgain(old))
}

func (w *world) backAgain(m *member) error {
	if !m.proc.ended() {
		return nil
	}
	return w.cluster.startPatroni(m)
}

// noticed reads the daemon's record of what happened since began.
func (p *proxy) noticed(next *member, began, fault, writable time.Time) (n noticing, err error) {
	var h history
	if err := p.ask("show pointsman events json", &h); err != nil {
		return n, err
	}
	first := true
	for _, e := range h.Events {
		if e.Confirmed != nil && e.Confirmed.At.Before(fault) {
			continue
		}
		if first && e.Doubt.At.After(began) {
			n.doubt, n.by, first = e.Doubt.At.Sub(fault), e.Doubt.By, false
		}
		if e.Fenced != nil && n.ended == 0 && e.Fenced.At.After(fault) {
			n.ended = e.Fenced.At.Sub(fault)
		}
		if e.New.Server == next.name && e.Confirmed != nil {
			n.confirmed = e.Confirmed.At.Sub(writable)
		}
	}
	if first || n.confirmed == 0 {
		err = fmt.Errorf("%s has not noticed that %s leads: %+v", p.name, next.name, h)
	}
	return n, err
}

// logged is when a node's log had a line, at the earliest at from.
func (w *world) logged(node *member, line string, from time.Time) (time.Time, error) {
	file, err := os.Open(filepath.Join(w.spawn.dir, node.name+".log"))
	if err != nil {
		return time.Time{}, err
	}
	defer file.Close()
	wanted := regexp.MustCompile(line)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if !wanted.MatchString(lines.Text()) {
			continue
		}
		if at, _, ok := stamped(lines.Text()); ok && !at.Before(from.Truncate(time.Millisecond)) {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s has not logged %q", node.name, line)
}

// noticings is a table, in Markdown for docs/failover.md, of what each daemon made of one kind of fault.
func noticings(seen map[string][]noticing) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "| hints by\t| leader in doubt\t| its sessions ended\t| new one confirmed\t| told by\t|")
	fmt.Fprintln(t, "| ---\t| ---\t| ---\t| ---\t| ---\t|")
	spread := func(list []noticing, of func(noticing) time.Duration) string {
		var ms []float64
		for _, n := range list {
			ms = append(ms, float64(of(n))/1e6)
		}
		return fmt.Sprintf("%.0f (%.0f to %.0f)", median(ms), slices.Min(ms), slices.Max(ms))
	}
	for _, h := range hinted {
		list := seen[h.name]
		if len(list) == 0 {
			continue
		}
		by := map[string]int{}
		for _, n := range list {
			by[n.by]++
		}
		var told []string
		for _, who := range sortedKeys(by) {
			told = append(told, fmt.Sprintf("%s (%d)", who, by[who]))
		}
		fmt.Fprintf(t, "| %s\t| %s\t| %s\t| %s\t| %s\t|\n", h.what,
			spread(list, func(n noticing) time.Duration { return n.doubt }),
			spread(list, func(n noticing) time.Duration { return n.ended }),
			spread(list, func(n noticing) time.Duration { return n.confirmed }), strings.Join(told, ", "))
	}
	t.Flush()
	return b.String()
}
