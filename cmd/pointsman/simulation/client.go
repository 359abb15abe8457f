package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Style is how a client uses its connections.
type Style uint8

// The styles.
const (
	Keeps  Style = iota // one connection for all writes
	Anew                // one connection per write
	Pools               // poolSize connections, used in turn, so that each is idle most of the time
	styles              // how many styles there are
)

const (
	poolSize = 5
	pace     = 50 * time.Millisecond // a client's rest between two writes, give or take half
	patience = time.Minute           // how long it waits for a connection or an answer
)

func (s Style) String() string {
	return [...]string{"keeps its connection", "connects anew", "pool of five"}[s]
}

// StyleOf returns the style of the n-th client of a mixed lot.
func StyleOf(n int) Style { return Style(n % int(styles)) }

// Client writes one numbered row after the other to one address, as long as
// Run lasts. After an error it goes on with the next row. A connection that
// was closed while it was idle is replaced before it is used, as pools do.
type Client struct {
	Name  string
	Style Style

	addr   string
	failed func(error)

	mu    sync.Mutex
	stats ClientStats
	last  time.Time // acknowledged write; before the first, the start of Run; zero outside Run
	acked []string
}

// ClientStats is what became of a client's writes. A gap is the time from one
// acknowledged write to the next.
type ClientStats struct {
	Writes     uint64        // acknowledged
	Errors     uint64        // failed, those of ReadOnly included
	ReadOnly   uint64        // answered by a node that may not write
	Gap        time.Duration // the one that goes on
	LongestGap time.Duration // of all, Gap included
	MarkedGap  time.Duration // the longest that ended, or goes on, since Mark
}

// NewClient returns a client that will write through addr. failed is called
// on the client's goroutine with every error.
func NewClient(name string, style Style, addr string, failed func(error)) *Client {
	return &Client{Name: name, Style: style, addr: addr, failed: failed}
}

// Stats returns the figures so far.
func (c *Client) Stats() ClientStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	if !c.last.IsZero() {
		s.noteGap(time.Since(c.last))
	}
	return s
}

func (s *ClientStats) noteGap(gap time.Duration) {
	s.Gap, s.LongestGap, s.MarkedGap = gap, max(s.LongestGap, gap), max(s.MarkedGap, gap)
}

// Mark starts the measure of MarkedGap again.
func (c *Client) Mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.MarkedGap = 0
}

// TakeAcked returns the texts of the writes acknowledged since the last call.
func (c *Client) TakeAcked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.acked
	c.acked = nil
	return taken
}

// Run writes until ctx is done. The write then under way counts for nothing.
func (c *Client) Run(ctx context.Context) {
	// The dialer would take a deadline of ctx for its own, and its end for the
	// server's silence.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	c.run(own)
}

func (c *Client) run(ctx context.Context) {
	c.startStop(time.Now())
	defer func() { c.startStop(time.Time{}) }()
	sessions := make([]*session, 1)
	if c.Style == Pools {
		sessions = make([]*session, poolSize)
	}
	defer func() {
		for _, s := range sessions {
			s.close()
		}
	}()
	for n := 1; ; n++ {
		text := fmt.Sprintf("%s/%d", c.Name, n)
		err := c.write(ctx, &sessions[n%len(sessions)], text)
		if ctx.Err() != nil {
			return
		}
		c.count(text, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pace/2 + rand.N(pace)): // clients in step would all be cut in mid-write, or none
		}
	}
}

func (c *Client) startStop(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.IsZero() {
		c.stats.noteGap(time.Since(c.last))
	}
	c.last = now
}

// write sends one row over *s, opening it where there is none or a dead one.
func (c *Client) write(ctx context.Context, s **session, text string) (err error) {
	if (*s).dead() {
		(*s).close()
		if *s, err = open(ctx, c.addr); err != nil {
			return err
		}
	}
	answer, err := (*s).ask(ctx, "WRITE "+text)
	if err == nil && !strings.HasPrefix(answer, "OK") {
		err = errors.New(answer)
	}
	if err != nil || c.Style == Anew {
		(*s).close()
		*s = nil
	}
	return err
}

func (c *Client) count(text string, err error) {
	c.mu.Lock()
	if err == nil {
		now := time.Now()
		c.stats.noteGap(now.Sub(c.last))
		c.stats.Writes++
		c.last = now
		c.acked = append(c.acked, text)
	} else {
		c.stats.Errors++
		if strings.Contains(err.Error(), "read-only transaction") {
			c.stats.ReadOnly++
		}
	}
	c.mu.Unlock()
	if err != nil {
		c.failed(err)
	}
}
