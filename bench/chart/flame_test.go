package chart

import (
	"math"
	"strings"
	"testing"
)

const folded = `pointsman;main;loop;read;entry_SYSCALL_64_[k];do_syscall_64_[k];tcp_recvmsg_[k] 180
pointsman;main;loop;write;entry_SYSCALL_64_[k];do_syscall_64_[k];tcp_sendmsg_[k];tcp_write_xmit_[k];__ip_queue_xmit_[k] 420
pointsman;main;loop;write;entry_SYSCALL_64_[k];do_syscall_64_[k];tcp_sendmsg_[k];skb_copy_[k] 60
pointsman;main;loop;epoll_wait;entry_SYSCALL_64_[k];do_syscall_64_[k];schedule_[k] 139
pointsman;main;loop 200

pointsman;main;sweep 1
`

func drawFolded(t *testing.T) (*Flame, []element) {
	t.Helper()
	f := &Flame{Title: "pointsman", Note: "16 sessions; blue: user mode, orange: kernel"}
	if err := f.Add(strings.NewReader(folded)); err != nil {
		t.Fatal(err)
	}
	svg := must(t, f.SVG)
	golden(t, "flame.svg", svg)
	return f, parse(t, svg)
}

func TestFlame(t *testing.T) {
	_, all := drawFolded(t)
	find := func(name string) element {
		t.Helper()
		for _, e := range all {
			if e.name == "rect" && strings.HasPrefix(e.tip, name+": ") {
				return e
			}
		}
		t.Fatalf("no frame %s", name)
		return element{}
	}
	const whole = width - 2*margin
	for name, share := range map[string]float64{"main": 1, "write": 0.48, "tcp_sendmsg": 0.48, "schedule": 0.139} {
		if got := find(name).num(t, "width") / whole; math.Abs(got-share) > 0.001 {
			t.Errorf("%s has %v of the width, want %v", name, got, share)
		}
	}
	if tip := find("write").tip; tip != "write: 48.0 %, 480 samples" {
		t.Errorf("write says %q", tip)
	}
	main, write, send := find("main"), find("write"), find("tcp_sendmsg")
	if main.num(t, "y") <= write.num(t, "y") || write.num(t, "y") <= send.num(t, "y") {
		t.Error("callees do not stand on their callers")
	}
	if x := send.num(t, "x"); x < write.num(t, "x")-0.01 || x+send.num(t, "width") > write.num(t, "x")+write.num(t, "width")+0.01 {
		t.Error("a callee is not over its caller")
	}
	if write.attr["class"] != "user" || send.attr["class"] != "kernel" {
		t.Errorf("write is %q, tcp_sendmsg %q", write.attr["class"], send.attr["class"])
	}
	for _, e := range all {
		if e.name == "rect" && (e.num(t, "y") < 0 || e.num(t, "x") < 0) {
			t.Errorf("%q is outside", e.tip)
		}
	}
}

func TestFlameDropsNarrowFrames(t *testing.T) {
	f := &Flame{}
	if err := f.Add(strings.NewReader("a;wide 99999\na;narrow;deep;deeper 1\n")); err != nil {
		t.Fatal(err)
	}
	for _, e := range parse(t, must(t, f.SVG)) {
		if strings.Contains(e.tip, "narrow") || strings.Contains(e.tip, "deep") {
			t.Errorf("%q is drawn", e.tip)
		}
	}
	if d := f.root.depth((width - 2*margin) / 100000.0); d != 2 {
		t.Errorf("narrow frames make the picture %d rows high", d)
	}
}

func TestFlameRefuses(t *testing.T) {
	for _, text := range []string{"a;b", "a;b x", "a;b -1", "a;b 0", " 5", "7"} {
		if err := new(Flame).Add(strings.NewReader("ok 1\n" + text + "\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := new(Flame).SVG(); err == nil {
		t.Error("a flame without samples is drawn")
	}
}

func TestShorten(t *testing.T) {
	for _, test := range []struct {
		w    float64
		want string
	}{{1000, "tcp_sendmsg_locked"}, {60, "tcp_send…"}, {15, ""}, {0, ""}} {
		if got := shorten("tcp_sendmsg_locked", test.w); got != test.want {
			t.Errorf("%v pixels: %q, want %q", test.w, got, test.want)
		}
	}
}
