//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// spawner starts processes in namespaces. All are forked by one thread that
// lives as long as the run: Linux sends a child its parent-death signal when
// the forking *thread* ends (prctl(2), PR_SET_PDEATHSIG), so the children of a
// killed run die with it, and none dies before.
type spawner struct {
	jobs chan func()
	dir  string // where the processes' output goes
}

func newSpawner(dir string) *spawner {
	s := &spawner{jobs: make(chan func()), dir: dir}
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

// close ends the thread, and with it every process that still runs.
func (s *spawner) close() { close(s.jobs) }

// process is one that we started.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // valid after done
}

// command is what to start, and how.
type command struct {
	name  string // of the process; its output goes to NAME.log
	args  []string
	user  string                       // "" = root
	env   []string                     // in addition to ours
	line  func(at time.Time, s string) // also gets every line of output
	stdin io.Reader
}

func (s *spawner) start(h *host, c command) (*process, error) {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.user != "" {
		cred, err := credential(c.user)
		if err != nil {
			return nil, err
		}
		attr.Credential = cred
		// PostgreSQL's System V segments die with this namespace.
		attr.Cloneflags = syscall.CLONE_NEWIPC
	}
	log, err := os.OpenFile(filepath.Join(s.dir, c.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", c.name, err)
	}
	p := &process{name: c.name, cmd: exec.Command(c.args[0], c.args[1:]...), done: make(chan struct{})}
	p.cmd.SysProcAttr, p.cmd.Dir, p.cmd.Stdin = attr, "/", c.stdin
	p.cmd.Env = append(os.Environ(), c.env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	var copied sync.WaitGroup
	var write *os.File
	if c.line != nil {
		var read *os.File
		if read, write, err = os.Pipe(); err != nil {
			log.Close()
			return nil, fmt.Errorf("making a pipe: %w", err)
		}
		p.cmd.Stdout, p.cmd.Stderr = write, write
		copied.Go(func() { copyLines(read, log, c.line) })
	}
	started := make(chan error)
	s.jobs <- func() { started <- h.Inside(p.cmd.Start) }
	err = <-started
	if write != nil {
		write.Close()
	}
	if err != nil {
		copied.Wait()
		log.Close()
		return nil, fmt.Errorf("starting %s: %w", c.name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		copied.Wait()
		log.Close()
		close(p.done)
	}()
	return p, nil
}

func copyLines(from *os.File, log io.Writer, line func(time.Time, string)) {
	defer from.Close()
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line(time.Now(), lines.Text())
		fmt.Fprintln(log, lines.Text())
	}
}

// signal reaches the process alone; a process that has ended is no error.
func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s to %s: %w", sig, p.name, err)
	}
	return nil
}

// kill ends the process alone and waits for its end.
func (p *process) kill() error {
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return err
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

// run starts a command, waits for it and returns its output.
func (s *spawner) run(h *host, c command) (string, error) {
	var mu sync.Mutex
	var out []byte
	line := c.line
	c.line = func(at time.Time, text string) {
		mu.Lock()
		defer mu.Unlock()
		out = append(append(out, text...), '\n')
		if line != nil {
			line(at, text)
		}
	}
	p, err := s.start(h, c)
	if err != nil {
		return "", err
	}
	<-p.done
	if p.err != nil {
		return string(out), fmt.Errorf("running %s: %w: %s", c.name, p.err, out)
	}
	return string(out), nil
}
