package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one program that we started, and end.
type process struct {
	name   string
	cmd    *exec.Cmd
	stderr string // path
	ended  chan error
}

// start runs a program at a place, in a process group of its own, so that a
// ctrl-C reaches us alone, and so that it ends with us however we end.
func start(at place, dir, name, program string, env []string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), stderr: filepath.Join(dir, name+".stderr"), ended: make(chan error, 1)}
	stderr, err := os.Create(p.stderr)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer stderr.Close()
	p.cmd.Stdout, p.cmd.Stderr = stderr, stderr
	p.cmd.Env = append(os.Environ(), env...)
	// nginx passes SIGTERM on to its workers; SIGKILL would leave them.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := at.Inside(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p, nil
}

// stop ends the process, and what it started with it.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		syscall.Kill(group, syscall.SIGKILL) // whoever it left behind
	case <-time.After(2 * time.Second):
		syscall.Kill(group, syscall.SIGKILL)
		<-p.ended
	}
}

// said returns the end of what the process wrote.
func (p *process) said() string {
	text, err := os.ReadFile(p.stderr)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(len(text)-1000, 0):]))
}

// pids returns the process and its children: nginx works in its children.
func (p *process) pids() ([]int, error) {
	pid := p.cmd.Process.Pid
	out := []int{pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, fmt.Errorf("looking for the workers of %s: %w", p.name, err)
	}
	for _, field := range strings.Fields(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("looking for the workers of %s: %w", p.name, err)
		}
		out = append(out, child)
	}
	return out, nil
}
