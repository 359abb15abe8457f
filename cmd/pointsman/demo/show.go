package demo

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"pointsman/balancer"
	"pointsman/cmd/pointsman/simulation"
)

const (
	frame = 200 * time.Millisecond // from one look to the next
	// perCell is how many frames one cell of a strip stands for: 30 cells fit
	// beside a client's figures on 80 columns, and show 12 s.
	perCell = 2
)

// show is one demonstration under way. Everything but feed belongs to the
// goroutine that runs play.
type show struct {
	o        Options
	cluster  *simulation.Cluster
	listen   netip.AddrPort
	config   string // path
	started  time.Time
	feed     *feed
	snapshot func() *balancer.Snapshot

	clients   []*seat
	reign     strip // whether some node was writable
	frames    int
	ledger    simulation.Ledger
	next      time.Time // failover; zero = none
	changes   chan outcome
	failing   sync.WaitGroup // the goroutine of a failover
	stopped   string         // the leader that stopped, while there is no new one
	failovers []Failover
	open      bool                   // not every client has written since the last of them
	before    simulation.ClientStats // of all clients, as it began
}

// seat is a client and its strip.
type seat struct {
	client *simulation.Client
	strip  strip
	seen   simulation.ClientStats // at the last sample
}

// outcome is how a failover of the cluster went.
type outcome struct {
	change simulation.Change
	err    error
}

// Failover is what one failover cost.
type Failover struct {
	From         string    `json:"from"`
	To           string    `json:"to"`
	Timeline     uint32    `json:"timeline"`
	Stopped      time.Time `json:"stopped"`        // the old leader's sessions ended
	NoLeaderMS   float64   `json:"no_leader_ms"`   // until a node took writes: nobody can do better
	LongestGapMS float64   `json:"longest_gap_ms"` // between two writes of one client
	Errors       uint64    `json:"errors"`         // of all clients, those of ReadOnly included
	ReadOnly     uint64    `json:"read_only_errors"`

	writable time.Time
}

// Summary is the whole demonstration.
type Summary struct {
	Seconds      float64 `json:"seconds"`
	Failovers    int     `json:"failovers"`
	Writes       uint64  `json:"writes"`
	Errors       uint64  `json:"errors"`
	ReadOnly     uint64  `json:"read_only_errors"`
	Lost         uint64  `json:"lost_acknowledged_writes"`
	LongestGapMS float64 `json:"longest_gap_ms"`
	NoLeaderMS   float64 `json:"longest_no_leader_ms"`
}

// beginFailover starts one, unless the last is still under way.
func (s *show) beginFailover(ctx context.Context) {
	leader := s.cluster.Leader()
	if s.stopped != "" || leader == nil {
		return
	}
	s.settle(true)
	s.stopped, s.before = leader.Name, s.total()
	for _, c := range s.clients {
		c.client.Mark()
	}
	s.feed.note("stopping", leader.Name+" stops: its sessions end")
	s.failing.Go(func() {
		change, err := s.cluster.Failover(ctx)
		s.changes <- outcome{change, err}
	})
}

// promoted takes note that the cluster has its new leader.
func (s *show) promoted(o outcome) {
	s.stopped = ""
	if o.err != nil {
		s.feed.note("stuck", "no failover: "+o.err.Error())
		return
	}
	c := o.change
	f := Failover{From: c.From, To: c.To, Timeline: c.Timeline, Stopped: c.Stopped, NoLeaderMS: ms(c.Writable.Sub(c.Stopped)), writable: c.Writable}
	s.failovers, s.open = append(s.failovers, f), true
	s.feed.note("promoted", fmt.Sprintf("%s takes writes on timeline %d, %s after %s stopped", f.To, f.Timeline, seconds(f.NoLeaderMS), f.From))
}

// settle brings the last failover's figures up to date. It closes it once
// every client has written to the new leader, or when it must end.
func (s *show) settle(mustEnd bool) {
	if !s.open {
		return
	}
	f := &s.failovers[len(s.failovers)-1]
	since, everyone := time.Since(f.writable), true
	for _, c := range s.clients {
		stats := c.client.Stats()
		f.LongestGapMS = max(f.LongestGapMS, ms(stats.MarkedGap))
		everyone = everyone && stats.Gap < since
	}
	now := s.total()
	f.Errors, f.ReadOnly = now.Errors-s.before.Errors, now.ReadOnly-s.before.ReadOnly
	if everyone || mustEnd {
		s.open = false
		s.feed.failover(*f)
	}
}

// count looks for writes that were acknowledged and lost.
func (s *show) count() {
	var acked []string
	for _, c := range s.clients {
		acked = append(acked, c.client.TakeAcked()...)
	}
	s.ledger.Add(acked, s.cluster.TakeWrites())
}

// sample adds what the last frame brought to the strips.
func (s *show) sample() {
	begin := s.frames%perCell == 0
	s.frames++
	mark := markGap
	if s.cluster.Leader() != nil {
		mark = markOK
	}
	s.reign.add(mark, begin)
	for _, c := range s.clients {
		stats := c.client.Stats()
		mark := markGap
		switch {
		case stats.Errors > c.seen.Errors:
			mark = markError
		case stats.Writes > c.seen.Writes:
			mark = markOK
		}
		c.strip.add(mark, begin)
		c.seen = stats
	}
}

// total adds up all clients; its gaps are the longest of them.
func (s *show) total() simulation.ClientStats {
	var t simulation.ClientStats
	for _, c := range s.clients {
		stats := c.client.Stats()
		t.Writes += stats.Writes
		t.Errors += stats.Errors
		t.ReadOnly += stats.ReadOnly
		t.LongestGap = max(t.LongestGap, stats.LongestGap)
	}
	return t
}

func (s *show) summary() Summary {
	t := s.total()
	sum := Summary{
		Seconds: time.Since(s.started).Seconds(), Failovers: len(s.failovers),
		Writes: t.Writes, Errors: t.Errors, ReadOnly: t.ReadOnly, Lost: s.ledger.Lost,
		LongestGapMS: ms(t.LongestGap),
	}
	for _, f := range s.failovers {
		sum.NoLeaderMS = max(sum.NoLeaderMS, f.NoLeaderMS)
	}
	return sum
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// seconds is a number of milliseconds as people read it.
func seconds(ms float64) string { return fmt.Sprintf("%.2f s", ms/1000) }
