//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	benchers    = 4  // clients of pgbench -C
	benchPace   = 40 // transactions a second of all of them
	benchWriter = "pgbench"
)

// startBench lets pgbench connect anew for each row. It ends when all of its
// clients have met an error, and is then started again.
func (w *world) startBench(ctx context.Context, t *testing.T, fault string) (*kind, error) {
	k := &kind{name: "pgbench -C", connections: benchers}
	for _, way := range w.ways {
		if way.proxy == nil {
			continue
		}
		c := &clients{way: way, run: way.name + "/" + fault + "/" + benchWriter}
		script := filepath.Join(w.spawn.dir, "pgbench-"+way.name+".sql")
		err := os.WriteFile(script, fmt.Appendf(nil, "INSERT INTO writes (writer, seq) VALUES ('%s', nextval('bench'));\n", c.run), 0o644)
		if err != nil {
			return nil, err
		}
		again := command{name: "pgbench-C-" + way.name, line: c.takeBench, args: []string{programs.pgbench, "-n", "-C",
			"-c", fmt.Sprint(benchers), "-R", fmt.Sprint(benchPace), "-T", "600", "-f", script, way.dsn}}
		if c.proc, err = w.spawn.start(w.net.hosts["clients"], again); err != nil {
			return nil, err
		}
		k.all = append(k.all, c)
		runs, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.keepBenching(runs, c, again)
		}()
		t.Cleanup(func() { stop(); <-ended })
	}
	return k, nil
}

// keepBenching starts pgbench anew whenever it ends, until ctx does.
func (w *world) keepBenching(ctx context.Context, c *clients, again command) {
	p := c.proc
	for {
		select {
		case <-p.done:
		case <-ctx.Done():
			p.kill()
			return
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return
		}
		var err error
		if p, err = w.spawn.start(w.net.hosts["clients"], again); err != nil {
			return
		}
	}
}

// notTheReason matches what pgbench says besides.
var notTheReason = regexp.MustCompile("aborted while establishing|could not create connection for setup|Run was aborted")

// takeBench makes facts of what pgbench complains of.
func (c *clients) takeBench(at time.Time, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := fact{Event: "fail", Who: benchWriter, At: float64(at.UnixMicro()) / 1e6, Text: line, Stage: "write"}
	f.Began = f.At
	if strings.Contains(line, "connection to server") {
		f.Stage = "connect"
	}
	if strings.Contains(line, "read-only transaction") {
		f.Code = sqlReadOnly
	}
	if strings.Contains(line, "error:") && !notTheReason.MatchString(line) {
		c.facts = append(c.facts, f)
	}
}

// benched adds the rows that pgbench wrote: it does not tell them itself.
func (w *world) benched(leader *member, kinds []*kind) error {
	for _, k := range kinds {
		if k.pool {
			continue
		}
		for _, c := range k.all {
			out, err := w.cluster.query(leader, "SELECT extract(epoch FROM at) FROM writes WHERE writer = '"+c.run+"' ORDER BY at")
			if err != nil {
				return err
			}
			c.mu.Lock()
			for line := range strings.Lines(out) {
				f := fact{Event: "ack", Who: benchWriter}
				if _, err := fmt.Sscan(line, &f.At); err != nil {
					return err
				}
				f.Began = f.At
				c.facts = append(c.facts, f)
			}
			c.mu.Unlock()
		}
	}
	return nil
}
