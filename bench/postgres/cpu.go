package postgres

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// CPU returns the processor time that the server has used, with all of its
// children, since it was started. Those that have ended are known to 10 ms.
func (s *Server) CPU() (time.Duration, error) {
	pid := s.main.cmd.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, fmt.Errorf("reading the server's CPU time: %w", err)
	}
	sum, err := exactCPU(fmt.Sprint(pid))
	if err != nil {
		return 0, fmt.Errorf("reading the server's CPU time: %w", err)
	}
	for _, child := range strings.Fields(string(text)) {
		d, err := exactCPU(child)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended, and counts below
		}
		if err != nil {
			return 0, fmt.Errorf("reading the server's CPU time: %w", err)
		}
		sum += d
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the server's CPU time: %w", err)
	}
	ended, err := endedCPU(string(stat))
	return sum + ended, err
}

// exactCPU reads the CPU time of a process with one thread, as PostgreSQL's all
// are: the first field of schedstat, in nanoseconds (Documentation/scheduler/
// sched-stats.rst).
func exactCPU(pid string) (time.Duration, error) {
	text, err := os.ReadFile("/proc/" + pid + "/schedstat")
	if err != nil {
		return 0, err
	}
	var ns int64
	if _, err := fmt.Sscan(string(text), &ns); err != nil {
		return 0, fmt.Errorf("/proc/%s/schedstat is %q: %w", pid, text, err)
	}
	return time.Duration(ns), nil
}

// endedCPU reads cutime and cstime of /proc/PID/stat, in hundredths of a second
// (proc(5)). The name, in brackets, may hold anything.
func endedCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var user, system int64
	if len(fields) < 15 {
		return 0, fmt.Errorf("reading the server's CPU time: stat is %q", stat)
	}
	if _, err := fmt.Sscan(fields[13]+" "+fields[14], &user, &system); err != nil {
		return 0, fmt.Errorf("reading the server's CPU time: stat is %q: %w", stat, err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
}
