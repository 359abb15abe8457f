package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const samples = "haproxy \n" +
	"\tffffffff8162cfdb ___slab_alloc ([kernel.kallsyms])\n" +
	"\tffffffff8200e45b tcp_sendmsg ([kernel.kallsyms])\n" +
	"\tffffffff81e2eb30 __x64_sys_sendto ([kernel.kallsyms])\n" +
	"\t          10aba4 __libc_send (inlined)\n" +
	"\t          10aba4 __libc_send (/lib/libc.so.6)\n" +
	"\t          210e56 [unknown] (/usr/sbin/haproxy)\n" +
	"\t          1f3af0 [unknown] (/usr/sbin/haproxy)\n" +
	"\t          1a4e5b run_poll_loop (/usr/sbin/haproxy)\n" +
	"\t          1098eb clone3 (/lib/libc.so.6)\n" +
	"\n" +
	"haproxy \n" + // between the kernel and libc
	"\t          10aba4 __libc_send (inlined)\n" +
	"\t          10aba4 __libc_send (/lib/libc.so.6)\n" +
	"\t          1a4e5b run_poll_loop (/usr/sbin/haproxy)\n" +
	"\n" +
	"haproxy \n" + // libc was called back: it waits for no call
	"\t          210e56 work (/usr/sbin/haproxy)\n" +
	"\t          10aba4 __libc_send (/lib/libc.so.6)\n" +
	"\n" +
	"pool worker 7 \n" +
	"\t          23cf75 pointsman/balancer/relay.(*loop).copySome (/tmp/a b/pointsman)\n" +
	"\t           9cdaa pointsman/balancer/relay.run[go.shape.int;x] (/tmp/a b/pointsman)\n" +
	"\t00007f0000001000 start (/tmp/a b/pointsman)\n" +
	"\t               0 [unknown] ([unknown])\n"

// after is 10aba4 of libc, and nothing else, that follows a system call.
func after(object string, offset uint64) bool {
	return object == "/lib/libc.so.6" && offset == 0x10aba4
}

func TestFold(t *testing.T) {
	stacks := map[string]int{}
	for range 2 {
		if err := fold(strings.NewReader(samples), subject{key: "p", trunk: "run_poll_loop"}, stacks, after); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]int{
		"p;run_poll_loop;[haproxy];__libc_send;__x64_sys_sendto_[k];tcp_sendmsg_[k];___slab_alloc_[k]": 2,
		"p;run_poll_loop;__libc_send;return_from_system_call_[k]":                                      2,
		"p;__libc_send;work": 2,
		"p;[unknown];start;relay.run[go.shape.int,x];relay.(*loop).copySome": 2,
	}
	if !maps.Equal(stacks, want) {
		t.Errorf("got  %v\nwant %v", stacks, want)
	}
	for _, text := range []string{"a\n\tffff\n", "a\n\twhat x (y)\n"} {
		if err := fold(strings.NewReader(text), subject{}, stacks, after); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestCallFinder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte{0x90, 0x0f, 0x05, 0x90, 0x0f}, 0o600); err != nil {
		t.Fatal(err)
	}
	find := callFinder()
	for range 2 {
		for offset := range uint64(8) {
			if got := find(path, offset); got != (offset == 3 && runtime.GOARCH == "amd64") {
				t.Errorf("at %d: %v", offset, got)
			}
		}
		if find("[vdso]", 3) {
			t.Error("a file that is not there holds a call")
		}
	}
}

func TestJudge(t *testing.T) {
	const send = "p;loop;send;entry_SYSCALL_64_after_hwframe_[k];do_syscall_64_[k];__x64_sys_sendto_[k];__sys_sendto_[k];tcp_sendmsg_[k]"
	const softirq = send + ";ip_output_[k];__dev_queue_xmit_[k];handle_softirqs_[k];net_rx_action_[k];tcp_v4_rcv_[k]"
	for stack, want := range map[string]string{
		"p;loop;dispatch":   inUser,
		"p;[vdso]":          inUser,
		"p;send;" + leaving: entry,
		"p;loop;entry_SYSCALL_64_after_hwframe_[k]":                                          entry,
		"p;loop;entry_SYSCALL_64_after_hwframe_[k];do_syscall_64_[k];__x64_sys_recvfrom_[k]": entry,
		send:    "TCP, send",
		softirq: "TCP, network to socket (softirq)",
		softirq + ";sock_def_readable_[k];ep_poll_callback_[k]":                                                                    "waking the next process",
		"p;read;do_syscall_64_[k];__x64_sys_recvfrom_[k];tcp_recvmsg_[k]":                                                          "TCP, receive",
		"p;read;invoke_syscall_[k];__arm64_sys_recvfrom_[k];tcp_recvmsg_[k]":                                                       "TCP, receive",
		"p;do_syscall_64_[k];__x64_sys_epoll_pwait_[k];do_epoll_wait_[k]":                                                          "epoll",
		"p;do_syscall_64_[k];__x64_sys_epoll_pwait_[k];do_epoll_wait_[k];schedule_hrtimeout_range_[k];schedule_[k];__schedule_[k]": "sleeping, and switching to others",
		"p;loop;dispatch;asm_sysvec_apic_timer_interrupt_[k];irq_exit_rcu_[k];net_rx_action_[k]":                                   "interrupts",
		"p;do_syscall_64_[k];__x64_sys_clock_gettime_[k];posix_get_[k]":                                                            "clock and timers",
		"p;do_syscall_64_[k];__x64_sys_getpid_[k];x_[k]":                                                                           residue,
	} {
		if got := judge(stack); got != want {
			t.Errorf("%s is %q, want %q", stack, got, want)
		}
	}
}

func TestTitles(t *testing.T) {
	seen := map[string]bool{}
	for _, title := range titles() {
		if seen[title] {
			t.Errorf("%q is shown twice", title)
		}
		seen[title] = true
	}
	for _, p := range purposes {
		if !seen[p.title] {
			t.Errorf("%q is not shown", p.title)
		}
	}
}

const counts = `228045,,raw_syscalls:sys_enter,2004212345,100.00,,
17380,,syscalls:sys_enter_epoll_wait,2004212345,100.00,,
100000,,syscalls:sys_enter_recvfrom,2004212345,100.00,,
100000,,syscalls:sys_enter_sendto,2004212345,100.00,,
0,,syscalls:sys_enter_write,2004212345,100.00,,
`

func TestReadCounts(t *testing.T) {
	sum := map[string]float64{}
	for range 2 {
		if err := readCounts(strings.NewReader("# a word\n"+counts), sum); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]float64{allCalls: 456090, "epoll_wait": 34760, "recvfrom": 200000, "sendto": 200000}
	if !maps.Equal(sum, want) {
		t.Errorf("got %v, want %v", sum, want)
	}
	for _, text := range []string{"", "no numbers\n", "<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n", "0,,raw_syscalls:sys_enter,0,100.00,,\n"} {
		if err := readCounts(strings.NewReader(text), map[string]float64{}); err == nil {
			t.Errorf("%q was read as counts", text)
		}
	}
}

func fixture(t *testing.T) []result {
	t.Helper()
	one := result{
		subject: subject{key: "haproxy", title: "HAProxy"},
		rounds:  []round{{1, 3, 100000, 0.2}, {1, 2, 100000, 0.04}, {2, 2, 200000, 0.03}}, // 30, 20, 10 us
		sampled: []round{{1, 3, 90000, 0}},
		calls:   map[string]float64{},
		stacks:  map[string]int{"haproxy;loop": 1, "haproxy;loop;do_syscall_64_[k];__x64_sys_sendto_[k];tcp_sendmsg_[k]": 3},
	}
	if err := readCounts(strings.NewReader(counts), one.calls); err != nil {
		t.Fatal(err)
	}
	two := one
	two.subject = subject{key: "pointsman", title: "pointsman"}
	two.calls = map[string]float64{allCalls: 110, "write": 50, "read": 50, "futex": 0.1}
	return []result{one, two}
}

func TestTables(t *testing.T) {
	results := fixture(t)
	o, both := options{size: 100, sessions: 16}, []*result{&results[0], &results[1]}
	calls := strings.Join([]string{
		"| system calls for each message and direction (100 B, 16 sessions) | HAProxy | pointsman |",
		"| --- | ---: | ---: |",
		"| `read` | 0.00 | 1.00 |",
		"| `recvfrom` | 1.00 | 0.00 |",
		"| `sendto` | 1.00 | 0.00 |",
		"| `write` | 0.00 | 1.00 |",
		"| `epoll_wait` | 0.17 | 0.00 |",
		"| others | 0.11 | 0.20 |",
		"| **all** | 2.28 | 2.20 |", "",
	}, "\n")
	if got := callTable(o, both); got != calls {
		t.Errorf("got\n%s\nwant\n%s", got, calls)
	}
	times := timeTable(o, both)
	for _, line := range []string{
		"| " + inUser + " | 5.00 (25 %) | 5.00 (25 %) |",
		"| TCP, send | 15.00 (75 %) | 15.00 (75 %) |",
		"| TCP, receive | 0.00 (0 %) | 0.00 (0 %) |",
		"| **all** | **20.00** | **20.00** |",
		"| round trips a second | 100000 | 100000 |",
		"| the same while samples are taken | 90000 | 90000 |",
		"| CPU of the machine that other programs used, % | 4 | 4 |",
		"| samples | 4 | 4 |",
	} {
		if !strings.Contains(times, line+"\n") {
			t.Errorf("%q is missing in\n%s", line, times)
		}
	}
}

func TestFlame(t *testing.T) {
	r := fixture(t)[0]
	svg, err := r.flame(options{size: 100, sessions: 16})
	if err != nil || !strings.Contains(string(svg), "tcp_sendmsg: 75.0 %, 3 samples") {
		t.Errorf("%v: %s", err, svg)
	}
	r.stacks = nil
	if _, err := r.flame(options{}); err == nil {
		t.Error("no samples made a picture")
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"x"}, {"-rounds", "0"}, {"-length", "10ms"}, {"-size", "1"}, {"-sessions", "0"}, {"-none"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	if o, err := parse(nil, io.Discard); err != nil || o.sessions != 16 || o.size != 100 {
		t.Errorf("the defaults are %+v, %v", o, err)
	}
}
