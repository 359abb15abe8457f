//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ledger keeps account of all rows that were acknowledged to clients.
//
// PostgreSQL itself loses rows here: replication is asynchronous, and a row that
// a dying leader acknowledged may not have reached the one that is promoted. That
// is told from PostgreSQL's own words. Each acknowledgement carries the timeline T
// and the position L in its log that the server had reached just before the row's
// commit; the new leader's history file tells at which position F its line forked
// from T. With L >= F the commit is behind the fork, and PostgreSQL has lost it.
// With L < F the commit may still be behind the fork, but only if it was among the
// last: a statement that was sent after the acknowledgement, to the same server on
// the same timeline, has an L beyond the commit. If that one is not beyond F, the
// row was before the fork and must be there.
type ledger struct {
	acks   []fact
	lost   map[string]bool   // by row: PostgreSQL has lost it, as was found before
	owners map[uint32]string // by timeline: who wrote it, as far as it is known
}

func newLedger() *ledger {
	return &ledger{lost: map[string]bool{}, owners: map[uint32]string{}}
}

// loss is what one look at the leader found.
type loss struct {
	postgres int    // rows that PostgreSQL has lost since the last look
	other    int    // rows that are missing for no such reason
	example  string // of the latter
}

func rowName(writer string, seq int) string { return fmt.Sprintf("%s|%d", writer, seq) }

// check compares with the leader, which all clients' rows must have reached.
func (l *ledger) check(c *cluster, leader *member, run string) (loss, error) {
	have, err := c.islands(leader, run)
	if err != nil {
		return loss{}, err
	}
	now, forks, err := c.history(leader)
	if err != nil {
		return loss{}, err
	}
	l.owners[now] = leader.addr.String()
	var found loss
	present := map[reign]bool{}
	var missing []int
	for i, f := range l.acks {
		name := rowName(f.Who, f.Seq)
		switch {
		case have.contains(f.Who, f.Seq):
			present[reign{f.TLI, f.Node}] = true
		case !l.lost[name]:
			missing = append(missing, i)
		}
	}
	for _, i := range missing {
		f := l.acks[i]
		if why := l.surviving(f, now, forks, present); why != "" {
			found.other++
			found.example = fmt.Sprintf("%s, acknowledged by %s at %s: %s", rowName(f.Who, f.Seq), f.Node, f.at().Format("15:04:05.000"), why)
		} else {
			found.postgres++
		}
		l.lost[rowName(f.Who, f.Seq)] = true
	}
	return found, nil
}

// reign is one server's time as primary. Two may use the same timeline's number,
// if one died before anybody heard of its promotion.
type reign struct {
	tli  uint32
	node string
}

// surviving says why the row should be there; "" = PostgreSQL lost it, or may have.
func (l *ledger) surviving(f fact, now uint32, forks map[uint32]uint64, present map[reign]bool) string {
	owner, known := l.owners[f.TLI]
	if known && owner != f.Node || !known && !present[reign{f.TLI, f.Node}] {
		return "" // of a line that nobody followed
	}
	if f.TLI == now {
		return fmt.Sprintf("timeline %d is the leader's own", now)
	}
	fork, ok := forks[f.TLI]
	if !ok || f.LSN >= fork {
		return ""
	}
	for _, later := range l.acks {
		if later.TLI == f.TLI && later.Node == f.Node && later.Began > f.At && later.LSN <= fork {
			return fmt.Sprintf("its commit was before %X, and timeline %d forked at %X", later.LSN, f.TLI, fork)
		}
	}
	return ""
}

// rows are those that are there, as ranges by writer: few where few are missing.
type rows map[string][][2]int

func (r rows) contains(writer string, seq int) bool {
	for _, part := range r[writer] {
		if part[0] <= seq && seq <= part[1] {
			return true
		}
	}
	return false
}

// islands returns the rows of a run's writers, whose names it shortens to who.
func (c *cluster) islands(leader *member, run string) (rows, error) {
	out, err := c.query(leader, fmt.Sprintf(`SELECT writer, min(seq), max(seq) FROM (
		SELECT writer, seq, seq - row_number() OVER (PARTITION BY writer ORDER BY seq) AS island
		FROM writes WHERE starts_with(writer, '%s/')) AS w GROUP BY writer, island`, run))
	if err != nil {
		return nil, err
	}
	r := rows{}
	for line := range strings.Lines(out) {
		parts := strings.Split(strings.TrimSpace(line), "|")
		if len(parts) != 3 {
			return nil, fmt.Errorf("rows of %s: %q", leader.name, line)
		}
		writer := strings.TrimPrefix(parts[0], run+"/")
		from, err1 := strconv.Atoi(parts[1])
		to, err2 := strconv.Atoi(parts[2])
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("rows of %s: %q", leader.name, line)
		}
		r[writer] = append(r[writer], [2]int{from, to})
	}
	return r, nil
}

// history returns the leader's timeline, and where it forked from each before.
func (c *cluster) history(leader *member) (now uint32, forks map[uint32]uint64, err error) {
	const tli = "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
	out, err := c.query(leader, "SELECT ('x' || "+tli+")::bit(32)::int; SELECT pg_read_file('pg_wal/' || "+tli+" || '.history', 0, 100000, true)")
	if err != nil {
		return 0, nil, err
	}
	forks = map[uint32]uint64{}
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case len(words) == 1 && now == 0:
			n, err := strconv.ParseUint(words[0], 10, 32)
			if err != nil {
				return 0, nil, fmt.Errorf("timeline of %s: %w", leader.name, err)
			}
			now = uint32(n)
		case len(words) >= 2: // timeline, position, reason
			n, err := strconv.ParseUint(words[0], 10, 32)
			high, low, ok := strings.Cut(words[1], "/")
			h, err1 := strconv.ParseUint(high, 16, 32)
			l, err2 := strconv.ParseUint(low, 16, 32)
			if err != nil || err1 != nil || err2 != nil || !ok {
				return 0, nil, fmt.Errorf("history of %s: %q", leader.name, line)
			}
			forks[uint32(n)] = h<<32 | l
		}
	}
	return now, forks, nil
}

// confirmation is pointsman's word that a node leads.
type confirmation struct {
	at   time.Time
	node netip.Addr
}

var confirmedName = regexp.MustCompile(`leader of \S+ is now (\S+)`)

// confirmations are those of the whole run, in order.
func (w *world) confirmations(p *proxy) (list []confirmation) {
	for _, l := range p.log(time.Time{}, time.Now()) {
		if name := confirmedName.FindStringSubmatch(l.text); name != nil {
			list = append(list, confirmation{l.at, w.net.hosts[name[1]].addr})
		}
	}
	return list
}

const (
	// The line is read a little after the fence, and a row may be sent to the
	// new leader in between.
	lineDelay = 500 * time.Millisecond
	// An acknowledgement that was in the client's socket before the fence is
	// read by a busy client a little after it.
	readDelay = 250 * time.Millisecond
)

// zombies counts the rows that a deposed leader acknowledged: one that was sent
// when another had been confirmed, or that was acknowledged after that.
func zombies(acks []fact, leaders []confirmation) (n int, example string) {
	for _, f := range acks {
		for _, at := range []time.Time{f.began(), f.at().Add(-readDelay)} {
			i := len(leaders) - 1
			for i >= 0 && leaders[i].at.After(at) {
				i--
			}
			if i < 0 || at.Before(f.began()) || leaders[i].node.String() == f.Node {
				continue
			}
			if next := i + 1; next < len(leaders) && leaders[next].node.String() == f.Node && leaders[next].at.Sub(at) < lineDelay {
				continue
			}
			n++
			example = fmt.Sprintf("%s, sent at %s and acknowledged at %s by %s, while %s led since %s", rowName(f.Who, f.Seq),
				f.began().Format("15:04:05.000"), f.at().Format("15:04:05.000"), f.Node, leaders[i].node, leaders[i].at.Format("15:04:05.000"))
			break
		}
	}
	return n, example
}
