package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// meter tells what the parts of a measurement have used of the machine. The
// client reads it, at the very edges of what it counts.
type meter struct {
	start  time.Time
	proxy  []int // process ids
	server int

	inspect   inspection // besides; "" = nothing
	inspector inspector
	profile   profile
}

// begin takes the reading at which the measurement begins.
func (m *meter) begin() (reading, error) {
	if m.inspect != "" {
		var err error
		if m.inspector, err = m.inspect.open(m.proxy); err != nil {
			return reading{}, err
		}
		if err := m.inspector.begin(); err != nil {
			return reading{}, err
		}
	}
	return m.read()
}

// end takes the one at which it ends.
func (m *meter) end() (reading, error) {
	r, err := m.read()
	if err == nil && m.inspector != nil {
		err = m.inspector.end(&m.profile)
	}
	return r, err
}

// reading is one look at the meter: CPU times since each process began.
type reading struct {
	at            time.Duration
	proxy         time.Duration // all threads of all processes, exact
	ticks, inUser time.Duration // of the proxy, as the tick sees it: all, and in user mode
	server        time.Duration
	client        time.Duration
	idle, stolen  time.Duration // of all cores together
}

// The CPU clocks of any process, as linux/posix-timers_types.h numbers them.
// clockExact counts nanoseconds. User and kernel are told apart only by the
// kernel's tick (every 4 ms at 250 Hz), so a short run knows the split roughly.
const (
	clockTicks = 0
	clockUser  = 1
	clockExact = 2
)

// cpuClock returns the CPU time of a process, its ended threads included.
func cpuClock(pid, which int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|which), &ts); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

func (m *meter) read() (reading, error) {
	r := reading{at: time.Since(m.start)}
	var failed error
	add := func(sum *time.Duration, pid, which int) {
		d, err := cpuClock(pid, which)
		if err != nil {
			failed = err
		}
		*sum += d
	}
	for _, pid := range m.proxy {
		add(&r.proxy, pid, clockExact)
		add(&r.ticks, pid, clockTicks)
		add(&r.inUser, pid, clockUser)
	}
	add(&r.server, m.server, clockExact)
	add(&r.client, os.Getpid(), clockExact)
	if failed != nil {
		return r, failed
	}
	var err error
	r.idle, r.stolen, err = machineTimes()
	return r, err
}

// usage is what happened between two readings.
type usage struct {
	Seconds    float64 `json:"seconds"`
	CPU        float64 `json:"cpu_seconds"`         // of the proxy
	UserShare  float64 `json:"user_share"`          // of CPU, 0 to 1, as the kernel's tick saw it
	Machine    float64 `json:"machine_cpu_seconds"` // of all that ran: proxy, kernel, client, server and others
	Server     float64 `json:"server_cpu_seconds"`
	Client     float64 `json:"client_cpu_seconds"`
	OtherShare float64 `json:"other_share"`    // of the machine, 0 to 1, that other programs used
	Stolen     float64 `json:"stolen_seconds"` // that other machines of a hypervisor used instead
}

func (r reading) since(from reading) usage {
	took := r.at - from.at
	u := usage{
		Seconds: took.Seconds(),
		CPU:     (r.proxy - from.proxy).Seconds(),
		Server:  (r.server - from.server).Seconds(),
		Client:  (r.client - from.client).Seconds(),
	}
	if ticks := r.ticks - from.ticks; ticks > 0 {
		u.UserShare = float64(r.inUser-from.inUser) / float64(ticks)
	}
	machine := took.Seconds() * float64(runtime.NumCPU())
	u.Stolen = (r.stolen - from.stolen).Seconds()
	u.Machine = max(machine-(r.idle-from.idle).Seconds()-u.Stolen, 0)
	other := u.Machine - u.CPU - u.Server - u.Client
	u.OtherShare = max(other/machine, 0)
	return u
}

// machineTimes are the time that all cores together had nothing to do, and that
// which a hypervisor gave to others.
func machineTimes() (idle, stolen time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, fmt.Errorf("reading the machine's idle time: %w", err)
	}
	// cpu user nice system idle iowait irq softirq steal …, in hundredths of a
	// second (USER_HZ).
	line, _, _ := strings.Cut(string(text), "\n")
	columns := strings.Fields(line)
	if len(columns) < 9 {
		return 0, 0, fmt.Errorf("reading the machine's idle time: /proc/stat begins with %q", line)
	}
	var times [9]time.Duration
	for i := range times[1:] {
		n, err := strconv.ParseInt(columns[i+1], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading the machine's idle time: %w", err)
		}
		times[i+1] = time.Duration(n) * 10 * time.Millisecond
	}
	return times[4] + times[5], times[8], nil
}

// memory is one look at what sessions cost, in bytes.
type memory struct {
	resident uint64 // of the proxy, program text included
	private  uint64 // its own data; what is shared by forks counts once
	slab     uint64 // the kernel's, of the whole machine
}

func (m *meter) memory() (memory, error) {
	var out memory
	for _, pid := range m.proxy {
		// smaps_rollup walks the pages; the sums in status lag behind by up to
		// 32 pages a core.
		kib, err := fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return out, err
		}
		out.resident += kib["Rss"] << 10
		out.private += (kib["Pss_Anon"] + kib["Pss_Shmem"]) << 10
	}
	kib, err := fields("/proc/meminfo")
	out.slab = kib["Slab"] << 10
	return out, err
}

// fields reads a file of lines `Name:  123 kB`.
func fields(path string) (map[string]uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading memory use: %w", err)
	}
	out := map[string]uint64{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if value := strings.Fields(rest); len(value) > 0 {
			out[name], _ = strconv.ParseUint(value[0], 10, 64)
		}
	}
	return out, nil
}
