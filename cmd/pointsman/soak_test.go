package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// soakSessions is how many sessions TestSoak takes.
func soakSessions() int64 {
	if n, err := strconv.ParseInt(os.Getenv("SOAK_SESSIONS"), 10, 64); err == nil {
		return n
	}
	return 2000
}

// holdings is what a process has.
type holdings struct {
	sockets, pipes, others int // descriptors
	threads                int
	rss, anonymous         int // KiB
}

func (h holdings) String() string {
	return fmt.Sprintf("%d sockets, %d pipes, %d other descriptors, %d threads, %d KiB resident, %d of them anonymous",
		h.sockets, h.pipes, h.others, h.threads, h.rss, h.anonymous)
}

func holdingsOf(t *testing.T, pid int) (h holdings) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	fds, err := filepath.Glob(dir + "/fd/*")
	if err != nil || len(fds) == 0 {
		t.Fatalf("no descriptors of %d: %v", pid, err)
	}
	for _, fd := range fds {
		switch target, _ := os.Readlink(fd); {
		case strings.HasPrefix(target, "socket:"):
			h.sockets++
		case strings.HasPrefix(target, "pipe:"):
			h.pipes++
		default:
			h.others++
		}
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		switch name {
		case "Threads":
			h.threads = n
		case "VmRSS":
			h.rss = n
		case "RssAnon":
			h.anonymous = n
		}
	}
	return h
}

// soaked is a daemon and its load.
type soaked struct {
	*process
	load *soakLoad
	pid  int
}

func newSoaked(t *testing.T, large bool) *soaked {
	load := newSoakLoad(t, large)
	p := prepare(t, "")
	p.write(p.uci(load.uci(), "option policy 'roundrobin'\n\toption check 'none'"))
	load.target = p.listener
	cmd := program(t, 0, "run", "-c", p.file)
	p.launch(cmd)
	return &soaked{p, load, cmd.Process.Pid}
}

// atRest waits until no session is left, nor more descriptors than the limit's,
// and returns what is.
func (s *soaked) atRest(limit holdings) (h holdings) {
	s.t.Helper()
	for range 300 {
		s.status() // each costs some 50 KB, so the heap is as large as it gets between collections
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		current := s.status().Frontends[0].Current
		if h = holdingsOf(s.t, s.pid); current == 0 && h.sockets <= limit.sockets && h.pipes <= limit.pipes {
			return h
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d sessions are left; %v", current, h)
		}
	}
}

// goroutines ends the daemon with the dump of all its goroutines, and counts
// those that Go's runtime did not start for itself.
func (s *soaked) goroutines() (n int) {
	s.t.Helper()
	if err := syscall.Kill(s.pid, syscall.SIGQUIT); err != nil {
		s.t.Fatal(err)
	}
	status := <-s.ended
	s.ended <- status
	defer s.out.forget()
	for line := range strings.Lines(s.out.String()) {
		if strings.HasPrefix(line, "created by ") && !strings.HasPrefix(line, "created by runtime.") {
			n++
		}
	}
	return n
}

// TestSoak puts many short sessions, which end in every way that there is,
// through a daemon in a process of its own: SOAK_SESSIONS of them. It must end
// with what it had after the first 10,000 or the first half of them.
func TestSoak(t *testing.T) {
	long(t)
	all := soakSessions()
	s := newSoaked(t, all > 10_000)
	fresh := holdingsOf(t, s.pid)
	begin := time.Now()
	warm := min(10_000, all/2)
	s.load.run(warm)
	pooling := fresh
	pooling.pipes = 1 << 20 // the relay keeps its own for a while
	first := s.atRest(pooling)
	first.pipes = fresh.pipes
	tell := func(h holdings) {
		t.Logf("%d sessions in %v: %v", s.load.next.Load(), time.Since(begin).Round(time.Second), h)
	}
	tell(first)
	for done := warm; done < all && !t.Failed(); tell(holdingsOf(t, s.pid)) {
		for end := min(done+100_000, all); done < end && !t.Failed(); time.Sleep(50 * time.Millisecond) {
			done = min(done+10_000, end)
			s.load.run(done)
		}
	}
	last := s.atRest(fresh)
	tell(last)
	compare(t, first, last)
	s.counted(all)

	// A daemon that had a few sessions has the goroutines that it should.
	few := newSoaked(t, false)
	few.load.run(100)
	few.atRest(fresh)
	if n, want := s.goroutines(), few.goroutines(); n > want || want < 3 {
		t.Errorf("%d goroutines; after 100 sessions there were %d", n, want)
	}
}

// compare wants the last holdings to be the first.
func compare(t *testing.T, first, last holdings) {
	t.Helper()
	// Go starts another thread now and then, when one is busy in the kernel,
	// and the heap breathes by a little.
	const threads, memory = 2, 4 << 10
	if last.sockets > first.sockets || last.pipes > first.pipes || last.others > first.others ||
		last.threads > first.threads+threads || last.rss > first.rss+memory || last.anonymous > first.anonymous+memory {
		t.Errorf("it began with %v\nand ended with %v", first, last)
	}
}

// counted compares the daemon's counters with what clients and servers saw.
func (s *soaked) counted(all int64) {
	s.t.Helper()
	f := s.status().Frontends[0]
	in, out := int64(f.BytesIn), int64(f.BytesOut)
	if int64(f.Total) != all || in > s.load.sent.Load() || in < s.load.in.Load() || out < s.load.got.Load() {
		s.t.Errorf("counted %d sessions, %d bytes in, %d out; %d sessions: clients sent %d, got %d, servers got %d",
			f.Total, in, out, all, s.load.sent.Load(), s.load.got.Load(), s.load.in.Load())
	}
}
