//go:build e2e

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var (
	chaosFlag  = flag.String("chaos", "", "the faults of TestChaos to draw from, as a,b,c; default: all")
	faultsFlag = flag.Int("faults", 8, "how many faults TestChaos draws")
	seedFlag   = flag.Uint64("seed", 0, "what TestChaos draws them by; 0 = the time of day")
)

// chaosPace makes a fault cost seconds where the usual pace costs half a minute.
// It keeps Patroni's own rule, loop_wait + 2 * retry_timeout <= ttl, and leaves
// etcd time for an election (1 to 2 s) within retry_timeout.
var chaosPace = pace{ttl: 10, loopWait: 2, retryTimeout: 4}

// chaosCrowd are the clients through pointsman.
var chaosCrowd = crowd{sleepers: 10, keep: 2, anew: 2, pool: 3}

const (
	// What the cluster is given to mend itself. Patroni 3.0 does not always: a
	// replica whose leader was deposed by an older one waits for ever, and one
	// that was demoted by two threads at once is rewound while it runs.
	alone        = 25 * time.Second
	copiedWithin = time.Minute
	// Since the cluster is healthy. Patroni may return to a leader on an older
	// timeline, if that one was frozen; pointsman believes it when no node is on
	// the higher one any more, and after 30 s in any case.
	writingWithin = 45 * time.Second
)

// chaos draws faults, and judges what became of the clients. They are started
// once, and have to live through all of it.
type chaos struct {
	w       *world
	t       *testing.T
	random  *rand.Rand
	proxy   *proxy
	clients *clients
	floor   *clients
	ledger  *ledger
	watch   *watcher
	asked   int // questions to the sleepers
	taken   int // facts of the clients that were reckoned
	fds     int // descriptors of the proxy when all was well
	trials  []*trial
}

func TestChaos(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano() / 1e6 % 1e6)
	}
	drawn, err := draw(seed, *faultsFlag, *chaosFlag)
	if err != nil {
		t.Fatal(err)
	}
	_, ctx := within(t, time.Duration(*faultsFlag+2)*time.Minute)
	fmt.Printf("%d faults of seed %d\n", len(drawn), seed)
	w := newWorld(ctx, t, setup{proxies: []string{"pointsman"}, pace: chaosPace})
	c := &chaos{w: w, t: t, random: rand.New(rand.NewPCG(seed, 1)), proxy: w.proxies[0], ledger: newLedger()}
	if err := c.start(ctx); err != nil {
		t.Fatal(err)
	}
	for i, f := range drawn {
		if !c.try(ctx, f) {
			t.Errorf("%s: it goes on no further; %d of %d faults. Again with: -seed %d -faults %d", f.name, i+1, len(drawn), seed, len(drawn))
			break
		}
	}
	c.watch.stop()
	stopClients([]*clients{c.clients, c.floor})
	fmt.Printf("\nchaos, seed %d\n%s\n", seed, c.table())
	w.leaks(ctx, t)
}

// draw makes a list of faults from packs of all of them that are shuffled.
func draw(seed uint64, n int, names string) (drawn []fault, err error) {
	pack := faults
	if names != "" {
		pack = nil
		for name := range strings.SplitSeq(names, ",") {
			found := false
			for _, f := range faults {
				if f.name == name {
					pack, found = append(pack, f), true
				}
			}
			if !found {
				err = errors.Join(err, fmt.Errorf("no fault %q", name))
			}
		}
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for err == nil && len(drawn) < n {
		for _, i := range random.Perm(len(pack)) {
			drawn = append(drawn, pack[i])
		}
	}
	return drawn[:min(n, len(drawn))], err
}

// start starts the clients, and notes how all is when it is well.
func (c *chaos) start(ctx context.Context) (err error) {
	for _, way := range c.w.ways {
		switch way.proxy {
		case nil:
			c.floor, err = c.w.startCrowd(way, "chaos", crowd{keep: 1, anew: 1})
		default:
			c.clients, err = c.w.startCrowd(way, "chaos", chaosCrowd)
		}
		if err != nil {
			return err
		}
		all := c.clients
		if all == nil {
			all = c.floor
		}
		c.t.Cleanup(func() { stopClients([]*clients{all}) })
	}
	if err := c.w.cluster.waitHealthy(ctx); err != nil {
		return err
	}
	both := []*clients{c.clients, c.floor}
	if err := waitFor(ctx, 20*time.Second, "clients at work", func() error { return errors.Join(atWork(both), writing(both, 2)) }); err != nil {
		return err
	}
	c.watch = watchSessions(c.proxy)
	c.t.Cleanup(c.watch.stop)
	c.fds, err = c.proxy.descriptors()
	return err
}

// try lets one fault happen, mends it, waits until all is well again, and
// judges. It returns whether all is well.
func (c *chaos) try(ctx context.Context, f fault) bool {
	c.w.capture.reset()
	tr := &trial{fault: f.name, began: time.Now(), gap: map[string]time.Duration{}, attempts: map[string]int{}, statements: map[string]int{}}
	c.trials = append(c.trials, tr)
	leader, err := c.w.cluster.leader()
	if err == nil {
		tr.detail, err = f.run(c, ctx, leader)
	}
	if err != nil {
		tr.wrong = append(tr.wrong, "the fault: "+err.Error())
	}
	well := c.recover(ctx, tr)
	tr.end = time.Now()
	c.reckon(tr)
	c.t.Logf("%s (%s), %.1f s: %s", tr.fault, tr.detail, tr.end.Sub(tr.began).Seconds(), strings.Join(tr.wrong, "; "))
	for _, what := range tr.wrong {
		c.t.Errorf("%s (%s): %s", tr.fault, tr.detail, what)
	}
	if len(tr.wrong) > 0 {
		m := &measurement{scenario: tr.fault, clients: []*clients{c.clients}, fault: tr.began, end: tr.end}
		for kind, n := range c.clients.kinds(tr.began) {
			c.t.Logf("%d times %s", n, kind)
		}
		c.t.Logf("seconds since the fault:\n%s", c.w.timeline(m))
	}
	return well
}

// recover mends, and waits until the cluster and all clients are well.
func (c *chaos) recover(ctx context.Context, tr *trial) bool {
	wrong := func(what string, err error) bool {
		if err != nil {
			tr.wrong = append(tr.wrong, what+": "+err.Error())
		}
		return err == nil
	}
	if !wrong("mending", c.heal()) {
		return false
	}
	if waitFor(ctx, alone, "a healthy cluster", c.w.cluster.healthy) != nil {
		copied, err := c.w.cluster.copyAnew()
		tr.detail += fmt.Sprintf(", and %v copied anew", copied)
		if !wrong("the cluster", errors.Join(err, waitFor(ctx, copiedWithin, "a healthy cluster", c.w.cluster.healthy))) {
			return false
		}
	}
	leader, err := c.w.cluster.leader()
	if !wrong("the cluster", err) ||
		!wrong("writers", waitFor(ctx, writingWithin, "writes", func() error { return writing([]*clients{c.clients}, 2) })) ||
		!wrong("idle sessions", c.askSleepers(ctx, leader)) {
		return false
	}
	tr.loss, err = c.account(leader)
	return wrong("the rows", err) && wrong("what the fault has left", c.asBefore(ctx))
}

// askSleepers has every idle session say where it leads.
func (c *chaos) askSleepers(ctx context.Context, leader *member) error {
	c.asked++
	if _, err := fmt.Fprintln(c.clients.ask, c.asked); err != nil {
		return err
	}
	return waitFor(ctx, 10*time.Second, "their answers", func() error {
		answered := map[string]bool{}
		all := c.clients.all()
		for i := len(all) - 1; i >= 0; i-- {
			f := all[i]
			if f.Event == "answer" && f.Seq < c.asked {
				break
			}
			if f.Event != "answer" {
				continue
			}
			answered[f.Who] = true
			if f.Node != leader.addr.String() || f.Recovery {
				return fmt.Errorf("%s is on %s, recovery %v; the leader is %s", f.Who, f.Node, f.Recovery, leader.name)
			}
		}
		if n := len(answered); n < chaosCrowd.sleepers {
			return fmt.Errorf("%d of %d have answered", n, chaosCrowd.sleepers)
		}
		return nil
	})
}

// account brings the ledger up to date and compares it with the leader.
func (c *chaos) account(leader *member) (loss, error) {
	c.ledger.acks = c.ledger.acks[:0]
	for _, f := range c.clients.all() {
		if f.Event == "ack" {
			c.ledger.acks = append(c.ledger.acks, f)
		}
	}
	return c.ledger.check(c.w.cluster, leader, c.clients.run)
}

// asBefore waits until sessions and descriptors are what they were.
func (c *chaos) asBefore(ctx context.Context) error {
	least := chaosCrowd.sleepers + chaosCrowd.keep
	// psycopg2's pool closes some, and each of the others may just open or end one.
	most := least + chaosCrowd.pool + 2*chaosCrowd.anew
	return waitFor(ctx, 10*time.Second, "sessions and descriptors as before", func() error {
		s, err := askSnapshot(c.proxy)
		if err != nil {
			return err
		}
		if n := s.sessions(); n < least || n > most {
			return fmt.Errorf("%d sessions, not %d to %d", n, least, most)
		}
		now, err := c.proxy.descriptors()
		if err == nil && now > c.fds+2*chaosCrowd.pool {
			err = fmt.Errorf("%d descriptors, before the first fault there were %d", now, c.fds)
		}
		return err
	})
}
