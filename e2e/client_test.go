//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// fact is one line of client.py, or of a program in clients.
type fact struct {
	Event    string  // ack, fail, idle, ended, answer
	Who      string  // keep, anew, pool, idle, sleeper; the second of a kind is keep-2
	Began    float64 // of an ack or fail: when the statement, or the connect, began
	At       float64 // when it was known
	Seq      int     // of a row; of an answer: of the question
	Node     string  // of an ack or answer: the address of the node that gave it
	TLI      uint32  // of an ack: the timeline that the node wrote
	LSN      uint64  // of an ack: how far it had written, just before the row's commit
	Recovery bool    // of an answer: the node is a replica
	Stage    string  // of a fail: connect or write
	Code     string  // of a fail: SQLSTATE; "" = none was received
	Text     string  // of a fail: libpq's message
	Number   int     // of idle: sessions that were opened
	Revision int64   // of kine's clients: see clients/objects
}

func (f *fact) at() time.Time    { return moment(f.At) }
func (f *fact) began() time.Time { return moment(f.Began) }

func moment(seconds float64) time.Time { return time.UnixMicro(int64(seconds * 1e6)) }

// sqlReadOnly is PostgreSQL's read_only_sql_transaction (errcodes.txt).
const sqlReadOnly = "25006"

// clients are a writer that keeps its connection, one that connects anew for
// each row, and idle sessions, all of them on one way.
type clients struct {
	way   *way
	run   string // begins the writers' names in the table
	crowd crowd
	ask   *os.File // a line asks every sleeper; nil without
	proc  *process
	mu    sync.Mutex
	facts []fact
}

const idleSessions = 20

// crowd is how many clients of each kind there are on one way.
type crowd struct {
	idle, sleepers, keep, anew, pool int
}

// writers are their names.
func (n crowd) writers() (names []string) {
	for kind, number := range map[string]int{"keep": n.keep, "anew": n.anew, "pool": n.pool} {
		for i := range number {
			name := kind
			if i > 0 {
				name = fmt.Sprintf("%s-%d", kind, i+1)
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// startClients starts clients on every way and waits until all are at work;
// with quiet they have no writers.
func (w *world) startClients(ctx context.Context, scenario string, quiet bool) ([]*clients, error) {
	n := crowd{idle: idleSessions, keep: 1, anew: 1}
	if quiet {
		n.keep, n.anew = 0, 0
	}
	var all []*clients
	for _, way := range w.ways {
		c, err := w.startCrowd(way, scenario, n)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, waitFor(ctx, 20*time.Second, "clients at work", func() error { return atWork(all) })
}

// startCrowd starts the clients of one way.
func (w *world) startCrowd(way *way, scenario string, n crowd) (*clients, error) {
	script, err := filepath.Abs("client.py")
	if err != nil {
		return nil, err
	}
	c := &clients{way: way, run: way.name + "/" + scenario, crowd: n}
	args := []string{programs.python, script, "--dsn", way.dsn, "--run", c.run}
	for _, o := range []struct {
		name   string
		number int
	}{{"idle", n.idle}, {"sleepers", n.sleepers}, {"keep", n.keep}, {"anew", n.anew}, {"pool", n.pool}} {
		args = append(args, "--"+o.name, fmt.Sprint(o.number))
	}
	var stdin io.Reader
	if n.sleepers > 0 {
		var read *os.File
		if read, c.ask, err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("making a pipe: %w", err)
		}
		defer read.Close()
		stdin = read
	}
	c.proc, err = w.spawn.start(w.net.hosts["clients"], command{name: "client-" + way.name, args: args, stdin: stdin, line: c.take})
	return c, err
}

// atWork is nil when all clients have begun.
func atWork(all []*clients) error {
	for _, c := range all {
		for _, who := range c.crowd.writers() {
			if c.count("ack", who) < 10 {
				return fmt.Errorf("%s does not write through %s yet", who, c.way.name)
			}
		}
		if c.crowd.idle > 0 && c.count("idle", "idle") == 0 || c.count("idle", "") < c.crowd.sleepers {
			return fmt.Errorf("the idle sessions through %s are not all open", c.way.name)
		}
	}
	return nil
}

func (c *clients) take(_ time.Time, line string) {
	var f fact
	if json.Unmarshal([]byte(line), &f) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.facts = append(c.facts, f)
}

func (c *clients) count(event, who string) (n int) {
	for _, f := range c.all() {
		if f.Event == event && (who == "" || f.Who == who) {
			n++
		}
	}
	return n
}

func (c *clients) all() []fact {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts[:len(c.facts):len(c.facts)]
}

func stopClients(all []*clients) {
	for _, c := range all {
		c.proc.kill()
		if c.ask != nil {
			c.ask.Close()
		}
	}
}

// writing is nil when all writers have written in each of the last seconds,
// and have met no error in them.
func (c *clients) writing(seconds int) error {
	now, all := time.Now(), c.all()
	acked := map[string][]bool{}
	for i := len(all) - 1; i >= 0; i-- {
		f := all[i]
		age := int(now.Sub(f.at()) / time.Second)
		if age > seconds { // by a second, as the clients' threads do not tell in order
			break
		}
		if age == seconds || age < 0 {
			continue
		}
		switch f.Event {
		case "fail":
			return fmt.Errorf("%s/%s fails: %s", c.way.name, f.Who, f.Text)
		case "ack":
			if acked[f.Who] == nil {
				acked[f.Who] = make([]bool, seconds)
			}
			acked[f.Who][age] = true
		}
	}
	for _, who := range c.crowd.writers() {
		if acked[who] == nil || slices.Contains(acked[who], false) {
			return fmt.Errorf("%s/%s does not write", c.way.name, who)
		}
	}
	return nil
}

// outcome is what one way's clients saw from the fault to the end.
type outcome struct {
	gap        map[string]time.Duration // by writer: the longest time between two rows
	open       map[string]bool          // the gap was still open at the end
	connects   int                      // connections that could not be opened, from the fault on
	statements int                      // statements that failed on a connection that was open
	readOnly   int                      // of those, the ones that a replica refused
	errors     int                      // of any kind
	lost       int                      // connections that the keeping writer lost
	idleEnded  int                      // idle sessions that ended
	idleLast   time.Duration            // when the last of them did, since the fault
	firstWrite map[string]time.Duration // by writer: the first row after the longest gap, since the fault
}

func (c *clients) outcome(fault, end time.Time) outcome {
	o := outcome{gap: map[string]time.Duration{}, open: map[string]bool{}, firstWrite: map[string]time.Duration{}}
	last := map[string]time.Time{}
	longest := func(who string, to time.Time) bool {
		from, ok := last[who]
		if !ok || to.Sub(from) <= o.gap[who] || to.Before(fault) {
			return false
		}
		o.gap[who] = to.Sub(from)
		return true
	}
	for _, f := range c.all() {
		at := f.at()
		if at.After(end) {
			continue
		}
		switch {
		case f.Event == "ack":
			if longest(f.Who, at) {
				o.firstWrite[f.Who] = at.Sub(fault)
			}
			last[f.Who] = at
		case at.Before(fault):
		case f.Event == "ended":
			o.idleEnded++
			o.idleLast = at.Sub(fault)
		case f.Event == "fail":
			o.fail(f)
		}
	}
	for _, who := range c.crowd.writers() {
		o.open[who] = longest(who, end)
	}
	return o
}

func (o *outcome) fail(f fact) {
	o.errors++
	if f.Stage == "connect" {
		o.connects++
	} else {
		o.statements++
	}
	switch {
	case f.Code == sqlReadOnly:
		o.readOnly++
	case f.Stage == "write" && f.Who == "keep":
		o.lost++
	}
}

// acked are the rows that were acknowledged, as "writer|seq".
func (c *clients) acked() map[string]bool {
	rows := map[string]bool{}
	for _, f := range c.all() {
		if f.Event == "ack" {
			rows[fmt.Sprintf("%s/%s|%d", c.run, f.Who, f.Seq)] = true
		}
	}
	return rows
}

// missing counts the acknowledged rows that the leader does not have. The
// clients must have been stopped.
func (w *world) missing(leader *member, all []*clients) (map[string]int, error) {
	out, err := w.cluster.query(leader, "SELECT writer, seq FROM writes")
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for row := range strings.Lines(out) {
		have[strings.TrimSpace(row)] = true
	}
	missing := map[string]int{}
	for _, c := range all {
		for row := range c.acked() {
			if !have[row] {
				missing[c.way.name]++
			}
		}
	}
	return missing, nil
}

// kinds counts the failures after the fault by their message, for people.
func (c *clients) kinds(fault time.Time) map[string]int {
	kinds := map[string]int{}
	for _, f := range c.all() {
		if f.Event == "fail" && f.at().After(fault) {
			text := f.Text
			if i := strings.LastIndex(text, "failed: "); i >= 0 { // after the address
				text = text[i+len("failed: "):]
			}
			kinds[f.Who+" "+f.Stage+": "+text[:min(len(text), 100)]]++
		}
	}
	return kinds
}
