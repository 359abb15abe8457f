//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fault is one way in which things go wrong. Its function makes it happen,
// waits as long as it lasts, and may leave the mending to heal. What it returns
// is for people.
type fault struct {
	name string
	run  func(*chaos, context.Context, *member) (string, error)
}

// faults are all of them; each gets the present leader.
var faults = []fault{
	{"switchover", (*chaos).switchover},
	{"postgres-killed", (*chaos).postgresKilled},
	{"patroni-killed", (*chaos).patroniKilled},
	{"patroni-killed-past-ttl", (*chaos).patroniKilledPastTTL},
	{"node-killed", (*chaos).nodeKilled},
	{"replica-killed", (*chaos).replicaKilled},
	{"etcd-member-killed", (*chaos).etcdMemberKilled},
	{"etcd-killed", (*chaos).etcdKilled},
	{"link-down", (*chaos).linkDown},
	{"link-down-past-ttl", (*chaos).linkDownPastTTL},
	{"loses-what-it-sends", (*chaos).losesWhatItSends},
	{"loses-what-it-gets", (*chaos).losesWhatItGets},
	{"router-loses-one-way", (*chaos).routerLosesOneWay},
	{"rest-slow", (*chaos).restSlow},
	{"rest-frozen", (*chaos).restFrozen},
	{"rest-frozen-past-ttl", (*chaos).restFrozenPastTTL},
	{"node-paused", (*chaos).nodePaused},
	{"node-paused-past-ttl", (*chaos).nodePausedPastTTL},
}

// heal ends all that a fault may have left.
func (c *chaos) heal() error {
	errs := []error{c.lose("")}
	for _, m := range append(c.w.cluster.nodes, c.w.cluster.etcd...) {
		for _, pid := range m.pids() {
			syscall.Kill(pid, syscall.SIGCONT)
		}
		errs = append(errs, c.w.net.plug(m.host))
	}
	for _, m := range c.w.cluster.etcd {
		if m.proc.ended() {
			errs = append(errs, c.w.cluster.startEtcd(m))
		}
	}
	for _, m := range c.w.cluster.nodes {
		if m.proc.ended() {
			errs = append(errs, c.w.cluster.startPatroni(m))
		}
	}
	return errors.Join(errs...)
}

// seconds is a random time between two numbers of seconds.
func (c *chaos) seconds(from, to float64) time.Duration {
	return time.Duration((from + c.random.Float64()*(to-from)) * float64(time.Second)).Round(10 * time.Millisecond)
}

// deposed waits until another node leads: Patroni needs its ttl, and a while.
func (c *chaos) deposed(ctx context.Context, old *member) error {
	return waitFor(ctx, 45*time.Second, "another leader than "+old.name, func() error {
		for _, m := range c.w.cluster.nodes {
			if m == old {
				continue
			}
			out, err := c.w.cluster.query(m, "SELECT pg_is_in_recovery()")
			if err == nil && strings.TrimSpace(out) == "f" {
				return nil
			}
		}
		return errors.New("there is none")
	})
}

func (c *chaos) switchover(_ context.Context, leader *member) (string, error) {
	next := c.w.cluster.nodes[c.random.IntN(len(c.w.cluster.nodes))]
	if next == leader {
		next = c.w.cluster.follower(leader)
	}
	return leader.name + " to " + next.name, c.w.cluster.switchover(leader, next)
}

// postgresKilled: the postmaster dies, its children notice, Patroni starts it again.
func (c *chaos) postgresKilled(_ context.Context, leader *member) (string, error) {
	text, err := os.ReadFile(filepath.Join(leader.dir, "data", "postmaster.pid"))
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return "", err
	}
	return leader.name, syscall.Kill(pid, syscall.SIGKILL)
}

func (c *chaos) patroniKilled(ctx context.Context, leader *member) (string, error) {
	d := c.seconds(0.5, 3)
	return fmt.Sprintf("%s for %v", leader.name, d), errors.Join(leader.proc.kill(), pause(ctx, d))
}

// patroniKilledPastTTL leaves two primaries: nobody demotes the old one's
// PostgreSQL when another is promoted.
func (c *chaos) patroniKilledPastTTL(ctx context.Context, leader *member) (string, error) {
	if err := leader.proc.kill(); err != nil {
		return "", err
	}
	return c.twoPrimaries(ctx, leader)
}

// twoPrimaries lets a deposed leader live on beside the new one for a while.
func (c *chaos) twoPrimaries(ctx context.Context, old *member) (string, error) {
	err := c.deposed(ctx, old)
	d := c.seconds(0.5, 3)
	if err == nil {
		err = pause(ctx, d)
	}
	return fmt.Sprintf("%s, and %v more", old.name, d), err
}

func (c *chaos) nodeKilled(ctx context.Context, leader *member) (string, error) {
	if err := c.w.cluster.killNode(leader); err != nil {
		return "", err
	}
	return leader.name, c.deposed(ctx, leader)
}

func (c *chaos) replicaKilled(ctx context.Context, leader *member) (string, error) {
	replica := c.w.cluster.follower(leader)
	d := c.seconds(0.5, 3)
	return fmt.Sprintf("%s for %v", replica.name, d), errors.Join(c.w.cluster.killNode(replica), pause(ctx, d))
}

func (c *chaos) etcdMemberKilled(ctx context.Context, _ *member) (string, error) {
	m := c.w.cluster.etcd[c.random.IntN(len(c.w.cluster.etcd))]
	d := c.seconds(0.5, 4)
	return fmt.Sprintf("%s for %v", m.name, d), errors.Join(m.proc.kill(), pause(ctx, d))
}

// etcdKilled: all members at once. Patroni demotes its leader when that lasts.
func (c *chaos) etcdKilled(ctx context.Context, _ *member) (string, error) {
	var errs []error
	for _, m := range c.w.cluster.etcd {
		errs = append(errs, m.proc.kill())
	}
	d := c.seconds(1, 12)
	return fmt.Sprintf("for %v", d), errors.Join(append(errs, pause(ctx, d))...)
}

func (c *chaos) linkDown(ctx context.Context, leader *member) (string, error) {
	d := c.seconds(0.5, 4)
	return fmt.Sprintf("%s for %v", leader.name, d), errors.Join(c.w.net.unplug(leader.host), pause(ctx, d))
}

func (c *chaos) linkDownPastTTL(ctx context.Context, leader *member) (string, error) {
	if err := c.w.net.unplug(leader.host); err != nil {
		return "", err
	}
	return leader.name, c.deposed(ctx, leader)
}

func (c *chaos) losesWhatItSends(ctx context.Context, leader *member) (string, error) {
	if err := c.lose("ip saddr " + leader.addr.String()); err != nil {
		return "", err
	}
	return leader.name, c.deposed(ctx, leader)
}

func (c *chaos) losesWhatItGets(ctx context.Context, leader *member) (string, error) {
	if err := c.lose("ip daddr " + leader.addr.String()); err != nil {
		return "", err
	}
	return leader.name, c.deposed(ctx, leader)
}

// routerLosesOneWay: the cluster is well, but between the leader and us packets
// are lost in one direction. Nobody else can lead.
func (c *chaos) routerLosesOneWay(ctx context.Context, leader *member) (string, error) {
	from, to := leader.host, c.proxy.host
	if c.random.IntN(2) == 0 {
		from, to = to, from
	}
	d := c.seconds(0.5, 8)
	err := c.lose(fmt.Sprintf("ip saddr %s ip daddr %s", from.addr, to.addr))
	return fmt.Sprintf("from %s to %s for %v", from.name, to.name, d), errors.Join(err, pause(ctx, d))
}

// lose lets the middle drop what matches; "" = nothing more.
func (c *chaos) lose(match string) error {
	rules := "add table ip faults\nflush table ip faults\n"
	if match != "" {
		rules += "add chain ip faults forward { type filter hook forward priority 0; }\nadd rule ip faults forward " + match + " drop\n"
	}
	_, err := c.w.spawn.run(&host{Namespace: c.w.net.middle, name: "middle"},
		command{name: "nft", args: []string{programs.nft, "-f", "-"}, stdin: strings.NewReader(rules)})
	return err
}

// restSlow: Patroni is stopped most of the time, so its answers take up to half
// a second. Its own work takes longer, too, but is done in time.
func (c *chaos) restSlow(ctx context.Context, leader *member) (string, error) {
	d := c.seconds(4, 7)
	for end := time.Now().Add(d); time.Now().Before(end); {
		err := errors.Join(leader.proc.signal(syscall.SIGSTOP), pause(ctx, 500*time.Millisecond),
			leader.proc.signal(syscall.SIGCONT), pause(ctx, 100*time.Millisecond))
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s for %v", leader.name, d), nil
}

func (c *chaos) restFrozen(ctx context.Context, leader *member) (string, error) {
	d := c.seconds(0.5, 4)
	return fmt.Sprintf("%s for %v", leader.name, d), errors.Join(leader.proc.signal(syscall.SIGSTOP), pause(ctx, d))
}

// restFrozenPastTTL: as when Patroni is killed, but its sockets stay open, and
// when it goes on it still holds itself for the leader.
func (c *chaos) restFrozenPastTTL(ctx context.Context, leader *member) (string, error) {
	if err := leader.proc.signal(syscall.SIGSTOP); err != nil {
		return "", err
	}
	return c.twoPrimaries(ctx, leader)
}

func (c *chaos) nodePaused(ctx context.Context, leader *member) (string, error) {
	d := c.seconds(0.5, 4)
	return fmt.Sprintf("%s for %v", leader.name, d), errors.Join(stopNode(leader), pause(ctx, d))
}

// nodePausedPastTTL: a virtual machine that was suspended, and goes on with
// statements in its sockets that it had not yet read.
func (c *chaos) nodePausedPastTTL(ctx context.Context, leader *member) (string, error) {
	if err := stopNode(leader); err != nil {
		return "", err
	}
	return c.twoPrimaries(ctx, leader)
}

// stopNode stops every process of the node. Twice, for one that forked meanwhile.
func stopNode(m *member) error {
	for range 2 {
		for _, pid := range m.pids() {
			syscall.Kill(pid, syscall.SIGSTOP)
		}
	}
	return nil
}
