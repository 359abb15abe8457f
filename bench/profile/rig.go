package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// subject is a proxy that is profiled.
type subject struct {
	key    string
	title  string
	config string   // with {listen}, {target} and {dir}
	args   []string // with {config}
	unwind string   // how perf finds the callers in user mode
	trunk  string   // a function that all threads under load have in common; stacks begin there
}

var subjects = []subject{
	// Distributions build it without frame pointers.
	{"haproxy", "HAProxy", haproxyConfig, []string{"-db", "-f", "{config}"}, "dwarf,8192", "run_poll_loop"},
	{"pointsman", "pointsman", pointsmanConfig, []string{"run", "-c", "{config}"}, "fp", "relay.(*loop).run"},
}

const haproxyConfig = `
global
	nbthread 2
	maxconn 6000
defaults
	mode tcp
	maxconn 6000
	timeout connect 3s
	timeout client 1h
	timeout server 1h
frontend ft
	bind {listen}
	default_backend bk
backend bk
	server s {target}
`

const pointsmanConfig = `
config global 'global'
	option control '{dir}/control.sock'
	option loops '2'

config frontend 'ft'
	list bind '{listen}'
	option default_backend 'bk'

config backend 'bk'
	option policy 'first'
	option check 'none'

config server 's'
	option backend 'bk'
	option address '{target}'
`

// rig holds the programs.
type rig struct {
	options
	dir      string
	bench    string            // the benchmark's program, for its client and server
	programs map[string]string // of the subjects, by key
}

func newRig(ctx context.Context, o options) (*rig, error) {
	for _, program := range []string{"perf", "haproxy", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%s is needed: %w", program, err)
		}
	}
	dir, err := os.MkdirTemp("", "pointsman-profile-")
	if err != nil {
		return nil, err
	}
	r := &rig{options: o, dir: dir, bench: filepath.Join(dir, "bench"), programs: map[string]string{"haproxy": "haproxy", "pointsman": o.pointsman}}
	err = build(ctx, r.bench, "./bench")
	if err == nil && o.pointsman == "" {
		// With its symbols, which the shipped program does without.
		r.programs["pointsman"] = filepath.Join(dir, "pointsman")
		err = build(ctx, r.programs["pointsman"], "./cmd/pointsman")
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func build(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, text)
	}
	return nil
}

func (r *rig) close() { os.RemoveAll(r.dir) }

// start runs a program that ends with us, in a process group of its own. The
// function that it returns ends it.
func start(env []string, program string, args ...string) (*exec.Cmd, func(), error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting %s: %w", program, err)
	}
	return cmd, func() {
		cmd.Process.Signal(syscall.SIGTERM)
		hard := time.AfterFunc(2*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		hard.Stop()
	}, nil
}

// profile takes one round of one subject: undisturbed, with its calls counted,
// and with samples taken, and adds what it found to sum.
func (r *rig) profile(ctx context.Context, s subject, sum *result) error {
	server, listen, err := addresses()
	if err != nil {
		return err
	}
	echo, stopEcho, err := start(nil, r.bench, "echo", server)
	if err != nil {
		return err
	}
	defer stopEcho()
	config := filepath.Join(r.dir, s.key+".config")
	fill := strings.NewReplacer("{listen}", listen, "{target}", server, "{dir}", r.dir, "{config}", config)
	if err := os.WriteFile(config, []byte(fill.Replace(s.config)), 0o600); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	args := make([]string, len(s.args))
	for i, arg := range s.args {
		args[i] = fill.Replace(arg)
	}
	proxy, stopProxy, err := start([]string{"GOMAXPROCS=2"}, r.programs[s.key], args...)
	if err != nil {
		return err
	}
	defer stopProxy()
	if err := ready(ctx, listen); err != nil {
		return err
	}

	work := load{r, listen, proxy.Process.Pid, echo.Process.Pid}
	for tries := 0; ; tries++ {
		plain, err := work.run(ctx, nil)
		if err != nil {
			return err
		}
		if plain.Others <= disturbed || tries == 3 {
			sum.rounds = append(sum.rounds, plain)
			break
		}
	}
	if _, err := work.run(ctx, func() error { return countCalls(ctx, proxy.Process.Pid, r.window(), sum.calls) }); err != nil {
		return err
	}
	data := filepath.Join(r.dir, s.key+".perf")
	sampled, err := work.run(ctx, func() error { return record(ctx, data, s.unwind, proxy.Process.Pid, r.window()) })
	if err != nil {
		return err
	}
	sum.sampled = append(sum.sampled, sampled)
	return readSamples(ctx, data, s, sum.stacks)
}

// disturbed is the share of the machine that other programs may use before a
// measurement is thought to be theirs too.
const disturbed = 0.15

const (
	warmUp = 300 * time.Millisecond
	// edge is what perf needs to begin and to end, within the load.
	edge = 400 * time.Millisecond
)

// window is how long perf looks: well within the load.
func (r *rig) window() time.Duration { return r.length - edge }

// addresses returns two free ones of loopback.
func addresses() (server, listen string, err error) {
	var out [2]string
	for i := range out {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("looking for a free port: %w", err)
		}
		defer l.Close()
		out[i] = l.Addr().String()
	}
	return out[0], out[1], nil
}

// ready waits until a byte comes back through the proxy.
func ready(ctx context.Context, addr string) error {
	probe := func() error {
		conn, err := net.Dial("tcp4", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write([]byte{1}); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	for limit := time.Now().Add(5 * time.Second); ; {
		err := probe()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			return fmt.Errorf("waiting for the proxy: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// load is the benchmark's client, as often as it is run.
type load struct {
	*rig
	target        string
	proxy, server int // process ids
}

// round is what the client measured.
type round struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu_seconds"` // of the proxy
	Ops     float64 `json:"ops"`         // round trips
	Others  float64 `json:"other_share"` // of the machine, that other programs used
}

// run loads the proxy, and calls meanwhile, if there is one, while it is busy.
func (l load) run(ctx context.Context, meanwhile func() error) (round, error) {
	length := l.length
	if meanwhile != nil {
		length += warmUp
	}
	job, err := json.Marshal(map[string]any{
		"kind": "ping-pong", "target": l.target, "size": l.size, "sessions": l.sessions,
		"warm": warmUp, "measure": length, "settle": 0, "proxy": []int{l.proxy}, "server": l.server,
	})
	if err != nil {
		return round{}, err
	}
	cmd := exec.CommandContext(ctx, l.bench, "load", string(job))
	cmd.Env = append(os.Environ(), "GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return round{}, fmt.Errorf("starting the client: %w", err)
	}
	var failed error
	if meanwhile != nil {
		time.Sleep(warmUp) // until the load flows
		failed = meanwhile()
	}
	if err := cmd.Wait(); err != nil {
		return round{}, errors.Join(failed, fmt.Errorf("the client: %w: %s", err, stderr.Bytes()))
	}
	var out round
	if err := json.Unmarshal(stdout.Bytes(), &out); err != nil {
		return out, fmt.Errorf("reading what the client measured: %w", err)
	}
	if out.Ops == 0 {
		return out, errors.New("the client saw no reply")
	}
	return out, failed
}
