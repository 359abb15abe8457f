package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// allCalls is the name of the sum over all system calls.
const allCalls = "all"

// counted are the calls that a proxy may make under load; the rest is the
// difference to the sum.
const counted = "read write readv writev recvfrom recvmsg sendto sendmsg splice tee accept4 connect close shutdown " +
	"getsockopt setsockopt fcntl epoll_wait epoll_pwait epoll_pwait2 epoll_ctl poll ppoll futex nanosleep " +
	"clock_nanosleep clock_gettime sched_yield timer_settime tgkill rt_sigreturn getpid gettid madvise"

// countScript runs perf where the kernel's trace points can be seen: mounted
// for itself alone, so that nothing stays behind.
const countScript = `
events=/sys/kernel/tracing/events
[ -d $events ] || mount -t tracefs tracefs /sys/kernel/tracing || exit 1
list=raw_syscalls:sys_enter
for name in $3; do
	[ ! -d $events/syscalls/sys_enter_$name ] || list=$list,syscalls:sys_enter_$name
done
exec perf stat -x , -e "$list" -p "$1" -- sleep "$2"
`

// countCalls adds the number of calls of a process, by name, to sum.
func countCalls(ctx context.Context, pid int, window time.Duration, sum map[string]float64) error {
	text, err := perf(ctx, "unshare", "--mount", "sh", "-c", countScript, "sh", strconv.Itoa(pid), seconds(window), counted)
	if err != nil {
		return fmt.Errorf("counting system calls: %w", err)
	}
	return readCounts(bytes.NewReader(text), sum)
}

// readCounts reads what `perf stat -x ,` says: count, unit, event, ….
func readCounts(in io.Reader, sum map[string]float64) error {
	seen := 0
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fields := strings.Split(lines.Text(), ",")
		if len(fields) < 3 {
			continue
		}
		name, isCall := strings.CutPrefix(fields[2], "syscalls:sys_enter_")
		if fields[2] == "raw_syscalls:sys_enter" {
			name, isCall = allCalls, true
		}
		if !isCall {
			continue
		}
		n, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return fmt.Errorf("counting system calls: perf says %q", lines.Text())
		}
		seen++
		if n > 0 {
			sum[name] += n
		}
	}
	if seen == 0 || sum[allCalls] == 0 {
		return fmt.Errorf("counting system calls: perf counted none")
	}
	return nil
}

// frequency of samples, a second: a prime, so that it beats with no timer.
const frequency = 3989

// record takes samples of a process into a file. There are no hardware counters
// in most virtual machines; the clock of the CPU is everywhere.
func record(ctx context.Context, file, unwind string, pid int, window time.Duration) error {
	_, err := perf(ctx, "perf", "record", "-q", "-e", "cpu-clock", "-F", strconv.Itoa(frequency), "--call-graph", unwind,
		"-o", file, "-p", strconv.Itoa(pid), "--", "sleep", seconds(window))
	if err != nil {
		return fmt.Errorf("taking samples: %w", err)
	}
	return nil
}

// readSamples adds the samples in a file to stacks.
func readSamples(ctx context.Context, file string, s subject, stacks map[string]int) error {
	text, err := perf(ctx, "perf", "script", "-i", file, "-F", "comm,ip,sym,dso")
	if err != nil {
		return fmt.Errorf("reading samples: %w", err)
	}
	return fold(bytes.NewReader(text), s, stacks, callFinder())
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// perf runs a command, and returns what it wrote on both outputs.
func perf(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, stderr.Bytes())
	}
	return append(stdout.Bytes(), stderr.Bytes()...), nil
}
