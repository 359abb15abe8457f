package postgres

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a program that we started, and wait for.
type process struct {
	cmd   *exec.Cmd
	name  string
	out   output
	ended chan struct{} // closed when it has ended
	err   error         // how; valid after ended
}

// begin starts a command. It has a process group of its own, so that a ctrl-C
// reaches us alone.
func begin(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, name: programName(cmd), ended: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Env = environment(cmd.Environ())
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.WaitDelay = time.Second // should a child of it keep our pipes open
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// run starts a command and waits for it to succeed.
func run(ctx context.Context, cmd *exec.Cmd) error {
	p, err := begin(cmd)
	if err != nil {
		return err
	}
	return p.wait(ctx)
}

// wait returns how the process ended; if ctx ends first, so does the process.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.kill()
		return ctx.Err()
	}
	if p.err != nil {
		return fmt.Errorf("running %s: %w: %s", p.name, p.err, p.said())
	}
	return nil
}

// end sends a signal, and says whether the process ended in time.
func (p *process) end(sig syscall.Signal, patience time.Duration) bool {
	p.cmd.Process.Signal(sig) // an error means that it has ended
	select {
	case <-p.ended:
		return true
	case <-time.After(patience):
		return false
	}
}

// kill ends the process, and what it started with it, unless it has ended.
func (p *process) kill() {
	select {
	case <-p.ended:
	default:
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

func (p *process) said() string { return p.out.String() }

// between does something between two calls of the meter.
func (p *process) between(m Meter, do func() error) (from, to time.Time, err error) {
	pid := p.cmd.Process.Pid
	if m.Begin != nil {
		if err := m.Begin(pid); err != nil {
			return from, to, err
		}
	}
	from = time.Now()
	if err := do(); err != nil {
		return from, to, err
	}
	to = time.Now()
	if m.End != nil {
		err = m.End(pid)
	}
	return from, to, err
}

// sleep waits, and is an error if the process does not last as long.
func (p *process) sleep(ctx context.Context, d time.Duration) error {
	over := time.After(d)
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ended:
		return p.tooEarly()
	}
}

// until waits for something that the process does soon.
func (p *process) until(ctx context.Context, done func() bool) error {
	limit := time.Now().Add(20 * time.Second)
	for !done() {
		if err := p.sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%s does not begin: %s", p.name, p.said())
		}
	}
	return nil
}

func (p *process) tooEarly() error {
	if p.err != nil {
		return fmt.Errorf("running %s: %w: %s", p.name, p.err, p.said())
	}
	return fmt.Errorf("%s ended too early: %s", p.name, p.said())
}

// programName names the one of PostgreSQL's programs that a command comes to.
func programName(cmd *exec.Cmd) string {
	for _, arg := range cmd.Args {
		if strings.HasPrefix(arg, "/usr/lib/postgresql/") {
			return filepath.Base(arg)
		}
	}
	return filepath.Base(cmd.Path)
}

// environment is ours without what libpq and pgbench would take from it (PGHOST,
// PGSSLMODE and the like), and in the language that we read. Encryption by
// Kerberos is off: looking for its tickets is work at each connect.
func environment(ours []string) []string {
	var out []string
	for _, entry := range ours {
		if !strings.HasPrefix(entry, "PG") {
			out = append(out, entry)
		}
	}
	return append(out, "LC_ALL=C", "PGGSSENCMODE=disable", "PGCONNECT_TIMEOUT=10")
}
