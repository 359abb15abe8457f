package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"pointsman/netlab"
)

// inspection is what is looked at in a run of its own, as it slows the proxy
// down a little: perf's events, as perf_event_open(2) has them.
type inspection string

const (
	byMode    inspection = "mode"     // how much of the CPU is in user mode
	bySyscall inspection = "syscalls" // how often each system call is made
)

// profile is what an inspection saw.
type profile struct {
	Samples  uint64            `json:"samples,omitempty"` // of the proxy's CPU, every sampleEvery of it
	InUser   uint64            `json:"samples_in_user_mode,omitempty"`
	Leaving  uint64            `json:"samples_leaving_the_kernel,omitempty"` // seen at the first instruction after a system call
	Ops      uint64            `json:"ops,omitempty"`                        // meanwhile
	Syscalls map[string]uint64 `json:"syscalls,omitempty"`
}

const (
	// sampleEvery is in nanoseconds of CPU: 4,000 samples a second.
	sampleEvery = 250_000
	// ringPages hold 16 bytes for each sample: 8 s of one thread.
	ringPages = 128
)

// From linux/perf_event.h.
const (
	recordSample  = unix.PERF_RECORD_SAMPLE
	recordLost    = unix.PERF_RECORD_LOST
	modeMask      = 7
	modeKernel    = 1
	modeUser      = 2
	ringDataBegin = 1 // page
)

// inspector has the events of one inspection, not yet begun.
type inspector interface {
	begin() error
	end(*profile) error
}

func (i inspection) open(pids []int) (inspector, error) {
	threads, err := threadsOf(pids)
	if err != nil {
		return nil, err
	}
	switch i {
	case byMode:
		return openModes(threads)
	case bySyscall:
		return openSyscalls(threads)
	}
	return nil, fmt.Errorf("no inspection %q", i)
}

func threadsOf(pids []int) ([]int, error) {
	var out []int
	for _, pid := range pids {
		paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			tid, err := strconv.Atoi(filepath.Base(path))
			if err != nil {
				return nil, err
			}
			out = append(out, tid)
		}
	}
	return out, nil
}

func perfOpen(attr *unix.PerfEventAttr, tid int) (int, error) {
	attr.Size = uint32(unsafe.Sizeof(*attr))
	attr.Bits |= unix.PerfBitDisabled
	fd, err := unix.PerfEventOpen(attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("opening a perf event of thread %d: %w", tid, err)
	}
	return fd, nil
}

func perfSwitch(fds []int, request uint) error {
	for _, fd := range fds {
		if err := unix.IoctlSetInt(fd, request, 0); err != nil {
			return fmt.Errorf("switching a perf event: %w", err)
		}
	}
	return nil
}

// modes samples each thread's clock. The kernel's own count, by its tick,
// looks only every 4 ms, and never between a wake-up by the tick and the next.
type modes struct {
	fds      []int
	rings    [][]byte
	memories []text
}

func openModes(threads []int) (*modes, error) {
	m := &modes{}
	for _, tid := range threads {
		fd, err := perfOpen(&unix.PerfEventAttr{
			Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
			Sample: sampleEvery, Sample_type: unix.PERF_SAMPLE_IP,
		}, tid)
		if errors.Is(err, unix.ESRCH) {
			continue // it ended just now
		}
		if err != nil {
			return nil, err
		}
		ring, err := unix.Mmap(fd, 0, (ringDataBegin+ringPages)*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("mapping a perf event: %w", err)
		}
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
		if err != nil {
			return nil, fmt.Errorf("looking at the program of thread %d: %w", tid, err)
		}
		m.fds, m.rings, m.memories = append(m.fds, fd), append(m.rings, ring), append(m.memories, text{memory, map[uint64]bool{}})
	}
	return m, nil
}

func (m *modes) begin() error { return perfSwitch(m.fds, unix.PERF_EVENT_IOC_ENABLE) }

func (m *modes) end(p *profile) error {
	if err := perfSwitch(m.fds, unix.PERF_EVENT_IOC_DISABLE); err != nil {
		return err
	}
	for i, ring := range m.rings {
		head := (*unix.PerfEventMmapPage)(unsafe.Pointer(&ring[0])).Data_head
		data := ring[ringDataBegin*os.Getpagesize():]
		if head > uint64(len(data)) {
			return errors.New("the ring of perf's samples was too small")
		}
		if err := countModes(data[:head], p, m.memories[i].afterSyscall); err != nil {
			return err
		}
	}
	runtime.KeepAlive(m)
	return nil
}

// text is the program of a thread, to see what it was about to do.
type text struct {
	file *os.File // /proc/TID/mem
	seen map[uint64]bool
}

// afterSyscall reports whether the instruction before addr calls the kernel
// (0F 05, "syscall" of x86-64; elsewhere it is always false).
func (t text) afterSyscall(addr uint64) bool {
	known, ok := t.seen[addr]
	if !ok {
		var before [2]byte
		n, _ := t.file.ReadAt(before[:], int64(addr-2))
		known = runtime.GOARCH == "amd64" && n == 2 && before == [2]byte{0x0f, 0x05}
		t.seen[addr] = known
	}
	return known
}

// countModes reads records: a type of 4 bytes, mode bits of 2, a length of 2,
// and in samples an address. The kernel ends a system call with interrupts off,
// so a sample that is due then comes at the very next instruction: it is the
// kernel's.
func countModes(records []byte, p *profile, afterSyscall func(addr uint64) bool) error {
	for len(records) >= 8 {
		kind := binary.NativeEndian.Uint32(records)
		mode := binary.NativeEndian.Uint16(records[4:]) & modeMask
		length := int(binary.NativeEndian.Uint16(records[6:]))
		switch {
		case length < 8 || length > len(records):
			return fmt.Errorf("a perf record of %d bytes, where %d are left", length, len(records))
		case kind == recordLost:
			return errors.New("the kernel lost samples")
		case kind == recordSample && mode == modeUser && length >= 16:
			p.Samples++
			if afterSyscall(binary.NativeEndian.Uint64(records[8:])) {
				p.Leaving++
			} else {
				p.InUser++
			}
		case kind == recordSample && mode == modeKernel:
			p.Samples++
		}
		records = records[length:]
	}
	return nil
}

// syscalls counts, by the kernel's tracepoints: nothing is stopped for it, as
// a tracer would.
type syscalls struct {
	fds   []int
	names []string // by descriptor
}

// relayCalls are the system calls that a relay may make; what else there is
// comes as "other".
var relayCalls = []string{
	"read", "write", "readv", "writev", "recvfrom", "sendto", "recvmsg", "sendmsg", "splice", "sendfile64",
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "poll", "ppoll",
	"socket", "connect", "accept", "accept4", "bind", "listen", "shutdown", "close",
	"setsockopt", "getsockopt", "getsockname", "getpeername", "fcntl", "ioctl", "pipe2",
	"futex", "sched_yield", "nanosleep", "clock_nanosleep", "timer_settime", "timerfd_settime",
	"clock_gettime", "gettimeofday", "getrusage", "tgkill", "rt_sigreturn", "rt_sigprocmask", "madvise", "mmap", "munmap",
}

const allCalls = "all"

func openSyscalls(threads []int) (*syscalls, error) {
	ids, err := tracepoints()
	if err != nil {
		return nil, err
	}
	s := &syscalls{}
	for name, id := range ids {
		for _, tid := range threads {
			fd, err := perfOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}, tid)
			if errors.Is(err, unix.ESRCH) {
				continue
			}
			if err != nil {
				return nil, err
			}
			s.fds, s.names = append(s.fds, fd), append(s.names, name)
		}
	}
	return s, nil
}

// tracepoints returns the numbers of relayCalls' tracepoints, and of that of
// all calls. They are read from a mount of tracefs that lasts only so long.
func tracepoints() (ids map[string]uint64, err error) {
	dir, err := os.MkdirTemp("", netlab.Prefix(labKind)+"tracefs-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if err := unix.Mount("nodev", dir, "tracefs", 0, ""); err != nil {
		return nil, fmt.Errorf("mounting tracefs: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	ids = map[string]uint64{}
	read := func(name, event string) error {
		text, err := os.ReadFile(filepath.Join(dir, "events", event, "id"))
		if errors.Is(err, os.ErrNotExist) {
			return nil // not in this architecture
		}
		if err != nil {
			return fmt.Errorf("looking for the tracepoint of %s: %w", name, err)
		}
		ids[name], err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return err
	}
	for _, name := range relayCalls {
		if err := read(name, "syscalls/sys_enter_"+name); err != nil {
			return nil, err
		}
	}
	if err := read(allCalls, "raw_syscalls/sys_enter"); err != nil {
		return nil, err
	}
	if ids[allCalls] == 0 {
		return nil, errors.New("this kernel has no tracepoint of system calls")
	}
	return ids, nil
}

func (s *syscalls) begin() error { return perfSwitch(s.fds, unix.PERF_EVENT_IOC_ENABLE) }

func (s *syscalls) end(p *profile) error {
	if err := perfSwitch(s.fds, unix.PERF_EVENT_IOC_DISABLE); err != nil {
		return err
	}
	p.Syscalls = map[string]uint64{}
	for i, fd := range s.fds {
		var count [8]byte
		if _, err := unix.Read(fd, count[:]); err != nil {
			return fmt.Errorf("reading a perf event: %w", err)
		}
		if n := binary.NativeEndian.Uint64(count[:]); n > 0 {
			p.Syscalls[s.names[i]] += n
		}
	}
	named := uint64(0)
	for name, n := range p.Syscalls {
		if name != allCalls {
			named += n
		}
	}
	if all := p.Syscalls[allCalls]; all > named {
		p.Syscalls["other"] = all - named
	}
	delete(p.Syscalls, allCalls)
	return nil
}
