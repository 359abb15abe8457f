package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"pointsman/bench/chart"
)

// fold reads what `perf script -F comm,ip,sym,dso` says, and adds its samples
// to stacks, as `program;outermost;…;innermost`: a line with the thread's name,
// then a line for each function, innermost first, then an empty one.
func fold(in io.Reader, s subject, stacks map[string]int) error {
	var stack []string // innermost first
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
		line := lines.Text()
		switch {
		case line == "":
			end()
		case line[0] == '\t':
			name, ok := function(line)
			if !ok {
				return fmt.Errorf("reading samples: perf says %q", line)
			}
			// Functions without a name are one block; an alias is no call.
			if len(stack) == 0 || stack[len(stack)-1] != name {
				stack = append(stack, name)
			}
		}
	}
	end()
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading samples: %w", err)
	}
	return nil
}

// function reads `	ffffffff8200e45b tcp_sendmsg ([kernel.kallsyms])`.
func function(line string) (string, bool) {
	address, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
	at := strings.LastIndex(rest, " (")
	if !ok || at < 0 {
		return "", false
	}
	name, object := rest[:at], strings.Trim(rest[at+2:], "()[]")
	if object == "inlined" { // before it stands the object, or nothing
		if at := strings.LastIndex(name, " ("); at >= 0 {
			name, object = name[:at], strings.Trim(name[at+2:], "()[]")
		}
	}
	if name == "[unknown]" {
		return "[" + object[strings.LastIndexByte(object, '/')+1:] + "]", true
	}
	// Go's import paths are long: relay.(*loop).pump is enough.
	if path, _, _ := strings.Cut(name, "("); strings.Contains(path, "/") {
		name = name[strings.LastIndexByte(path, '/')+1:]
	}
	name = strings.ReplaceAll(name, ";", ",")
	// The kernel has the upper half of the addresses.
	if len(address) == 16 && address[0] >= '8' {
		name += chart.KernelMark
	}
	return name, true
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
var shell = regexp.MustCompile(`^(entry_SYSCALL|do_syscall_64|syscall_|el0|exit_to_user|entry_|srso_|x64_sys_call|__x64_sys_\w+$|__arm64_sys_\w+$)`)

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
