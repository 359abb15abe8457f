package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"pointsman/bench/chart"
)

// leaving stands for the kernel's last steps of a system call. It ends with
// interrupts off, so a sample that is due then comes at the very next
// instruction, and looks like the program's own.
const leaving = "return_from_system_call" + chart.KernelMark

// fold reads what `perf script -F comm,ip,sym,dso` says, and adds its samples
// to stacks, as `program;outermost;…;innermost`: a line with the thread's name,
// then a line for each function, innermost first, then an empty one.
// afterSyscall tells whether the instruction before an offset in a file is a
// system call.
func fold(in io.Reader, s subject, stacks map[string]int, afterSyscall func(object string, offset uint64) bool) error {
	var stack []string // innermost first
	var sampled uint64 // address of the innermost
	end := func() {
		if len(stack) == 0 {
			return
		}
		slices.Reverse(stack)
		from := max(slices.Index(stack, s.trunk), 0)
		stacks[s.key+";"+strings.Join(stack[from:], ";")]++
		stack = stack[:0]
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == "":
			end()
		case line[0] == '\t':
			f, ok := readFunction(line)
			if !ok {
				return fmt.Errorf("reading samples: perf says %q", line)
			}
			if len(stack) == 0 {
				sampled = f.offset
			}
			// What is inlined, or an alias, has the address of what it is in.
			if f.offset == sampled && len(stack) <= 1 && !f.kernel && afterSyscall(f.object, f.offset) {
				stack = append([]string{leaving}, stack...)
			}
			// Functions without a name are one block; an alias is no call.
			if len(stack) == 0 || stack[len(stack)-1] != f.name {
				stack = append(stack, f.name)
			}
		}
	}
	end()
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading samples: %w", err)
	}
	return nil
}

// callFinder returns an afterSyscall that looks into the files; only x86-64's
// instruction is known.
func callFinder() func(object string, offset uint64) bool {
	type place struct {
		object string
		offset uint64
	}
	seen := map[place]bool{}
	return func(object string, offset uint64) bool {
		at := place{object, offset}
		found, known := seen[at]
		if !known {
			if file, err := os.Open(object); err == nil {
				var before [2]byte
				n, _ := file.ReadAt(before[:], int64(offset)-2)
				file.Close()
				found = runtime.GOARCH == "amd64" && n == 2 && before == [2]byte{0x0f, 0x05}
			}
			seen[at] = found
		}
		return found
	}
}

// code is one line of a sample.
type code struct {
	name   string
	object string // file that it is in
	offset uint64 // there; in the kernel an address
	kernel bool
}

// readFunction reads `	ffffffff8200e45b tcp_sendmsg ([kernel.kallsyms])`.
func readFunction(line string) (code, bool) {
	address, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
	at := strings.LastIndex(rest, " (")
	if !ok || at < 0 {
		return code{}, false
	}
	offset, err := strconv.ParseUint(address, 16, 64)
	if err != nil {
		return code{}, false
	}
	// The kernel has the upper half of the addresses.
	f := code{name: rest[:at], object: strings.Trim(rest[at+2:], "()"), offset: offset, kernel: offset>>63 == 1}
	if f.name == "[unknown]" {
		f.name = "[" + strings.Trim(f.object[strings.LastIndexByte(f.object, '/')+1:], "[]") + "]"
		return f, true
	}
	// Go's import paths are long: relay.(*loop).pump is enough.
	if path, _, _ := strings.Cut(f.name, "("); strings.Contains(path, "/") {
		f.name = f.name[strings.LastIndexByte(path, '/')+1:]
	}
	f.name = strings.ReplaceAll(f.name, ";", ",")
	if f.kernel {
		f.name += chart.KernelMark
	}
	return f, true
}

// purpose is something that CPU is spent on.
type purpose struct {
	title string
	match *regexp.Regexp // of any function in the kernel's part of a stack
}

const (
	inUser  = "its own code, in user mode"
	entry   = "entering and leaving the kernel"
	residue = "other calls"
)

// purposes are tried in this order; the first that matches has the sample. Each
// one's functions are called within those of the later ones: a wake-up happens
// while a segment is delivered, and that, on loopback, while another is sent.
var purposes = []purpose{
	{"interrupts", regexp.MustCompile(`^(asm_sysvec_|asm_common_interrupt|irq_exit)`)},
	{"waking the next process", regexp.MustCompile(`^(sock_def_readable|sock_def_write_space|sk_stream_write_space|ep_poll_callback|try_to_wake_up|wake_up_q|futex_wake)`)},
	{"sleeping, and switching to others", regexp.MustCompile(`^(schedule|__schedule|__cond_resched|preempt_schedule)`)},
	{"TCP, network to socket (softirq)", regexp.MustCompile(`^(net_rx_action|__napi_poll|process_backlog)`)},
	{"TCP, send", regexp.MustCompile(`_sys_(sendto|sendmsg|write|writev|splice)$`)},
	{"TCP, receive", regexp.MustCompile(`_sys_(recvfrom|recvmsg|read|readv)$`)},
	{"epoll", regexp.MustCompile(`_sys_epoll_`)},
	{"clock and timers", regexp.MustCompile(`_sys_(clock_|timer|nanosleep)`)},
}

// shell are functions between user mode and a system call's own code.
var shell = regexp.MustCompile(`^(entry_SYSCALL|do_syscall_64|syscall_|el0|exit_to_user|entry_|srso_|return_from_system_call|x64_sys_call|__x64_sys_\w+$|__arm64_sys_\w+$)`)

// titles are all purposes in the order in which they are shown.
func titles() []string {
	out := []string{inUser, entry, "TCP, send", "TCP, network to socket (softirq)", "TCP, receive", "waking the next process", "epoll", "sleeping, and switching to others"}
	for _, p := range purposes {
		if !slices.Contains(out, p.title) {
			out = append(out, p.title)
		}
	}
	return append(out, residue)
}

// judge says what a stack was good for.
func judge(stack string) string {
	names := strings.Split(stack, ";")
	var kernel []string
	for _, name := range names {
		if bare, ok := strings.CutSuffix(name, chart.KernelMark); ok {
			kernel = append(kernel, bare)
		}
	}
	if len(kernel) == 0 || !strings.HasSuffix(names[len(names)-1], chart.KernelMark) {
		return inUser
	}
	if !slices.ContainsFunc(kernel, func(name string) bool { return !shell.MatchString(name) }) {
		return entry
	}
	for _, p := range purposes {
		if slices.ContainsFunc(kernel, p.match.MatchString) {
			return p.title
		}
	}
	return residue
}
