package main

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func perfRecord(kind uint32, mode, length uint16, addr uint64) []byte {
	p := binary.NativeEndian.AppendUint32(nil, kind)
	p = binary.NativeEndian.AppendUint16(p, mode)
	p = binary.NativeEndian.AppendUint16(p, length)
	return binary.NativeEndian.AppendUint64(p, addr)
}

func TestCountModes(t *testing.T) {
	leaving := func(addr uint64) bool { return addr == 7 }
	var records []byte
	for range 3 {
		records = append(records, perfRecord(recordSample, modeKernel, 16, 1)...)
	}
	records = append(records, perfRecord(recordSample, modeUser, 16, 2)...)
	records = append(records, perfRecord(recordSample, modeUser, 16, 7)...)
	records = append(records, perfRecord(unix.PERF_RECORD_THROTTLE, modeKernel, 16, 0)...) // not a sample
	var p profile
	if err := countModes(records, &p, leaving); err != nil || p.Samples != 5 || p.InUser != 1 || p.Leaving != 1 {
		t.Errorf("counted %+v, %v", p, err)
	}
	if share, ok := p.userShare(); !ok || share != 0.2 {
		t.Errorf("the user's share is %v, %v", share, ok)
	}
	for _, bad := range [][]byte{perfRecord(recordLost, 0, 16, 0), perfRecord(recordSample, modeUser, 0, 0), perfRecord(recordSample, modeUser, 24, 0)} {
		if err := countModes(bad, &profile{}, leaving); err == nil {
			t.Errorf("% x was counted", bad)
		}
	}
}

// needsPerf skips where perf's events are not permitted to us.
func needsPerf(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// look runs a shell command while it is inspected.
func look(t *testing.T, how inspection, script string) profile {
	cmd := exec.Command("sh", "-c", script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	m := meter{start: time.Now(), proxy: []int{cmd.Process.Pid}, server: os.Getpid(), inspect: how}
	_, err := m.begin()
	needsPerf(t, err)
	// Until it has used so much CPU, however busy the machine is.
	pid := cmd.Process.Pid
	from, err := cpuClock(pid, clockExact)
	for limit := time.Now().Add(10 * time.Second); err == nil; {
		var used time.Duration
		used, err = cpuClock(pid, clockExact)
		if used-from > 150*time.Millisecond {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("it got no CPU")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.end(); err != nil {
		t.Fatal(err)
	}
	return m.profile
}

// A loop of arithmetic is all user, one of system calls is much kernel.
func TestModesOfRealPrograms(t *testing.T) {
	user := look(t, byMode, "while :; do i=$((i+1)); done")
	kernel := look(t, byMode, "exec dd if=/dev/zero of=/dev/null bs=1M")
	u, _ := user.userShare()
	k, _ := kernel.userShare()
	if user.Samples < 50 || kernel.Samples < 50 || u < 0.7 || k > 0.3 {
		t.Errorf("a loop: %+v, of /dev/zero: %+v", user, kernel)
	}
}

func TestSyscallsOfARealProgram(t *testing.T) {
	p := look(t, bySyscall, "exec dd if=/dev/zero of=/dev/null bs=16M")
	if p.Syscalls["read"] < 10 || p.Syscalls["write"] < 10 || p.Syscalls["read"] > 2*p.Syscalls["write"] {
		t.Errorf("dd made %v", p.Syscalls)
	}
	if _, ok := p.Syscalls[allCalls]; ok || p.Syscalls["other"] > p.Syscalls["read"] {
		t.Errorf("dd made %v", p.Syscalls)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "-tracefs-") {
		t.Error("tracefs is still mounted")
	}
}
