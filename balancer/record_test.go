package balancer

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pointsman/balancer/relay"
	"pointsman/healthcheck"
)

// TestRecordStories plays the stories of testdata/record, in which each line
// begins with how long after the one before it is. Answers are as in
// TestStories; besides there are
//
//	+5ms hint a reset a session     (dcs instead of hint: from etcd, a is left out)
//	+0s client held|placed|left|late|full, placed after how long
//	+1ms session                    the leader's first
//	+1s tick                        time alone
//	+0s sessions 20                 the leader has so many
//	+0s reload
//
// What the log says stands below a line, and at the end all that is recorded.
func TestRecordStories(t *testing.T) { retell(t, "testdata/record/*.txt", record) }

// tale is a story of the record under way: a follower, its recorder, and what
// the owner would do between them.
type tale struct {
	t        *testing.T
	now      time.Time
	f        *follower
	r        *recorder
	h        history
	w        waiting
	counters []*healthcheck.Counter
	epoch    uint32
	sessions int
}

func record(t *testing.T, story string) string {
	var out strings.Builder
	s := &tale{t: t, now: time.Date(2026, 1, 2, 3, 12, 0, 0, time.UTC)}
	lines := bufio.NewScanner(strings.NewReader(story))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "\t") {
			continue
		}
		fmt.Fprintln(&out, line)
		words := strings.Fields(line)
		switch {
		case len(words) == 0, strings.HasPrefix(line, "#"):
		case words[0] == "servers":
			s.f, s.r = newFollower(s.now, words[1:]), newRecorder(s.now, "bk", &s.h, tally{})
			for range words[1:] {
				s.counters = append(s.counters, healthcheck.NewCounter(2, 3))
			}
		default:
			d, err := time.ParseDuration(words[0])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			s.now = s.now.Add(d)
			e := s.play(words[1:])
			if e != nil {
				s.w.tally(true)
			}
			if e != nil && e.changed() {
				fmt.Fprintf(&out, "\tlog: %s\n", e.line())
			}
		}
	}
	for _, e := range s.h.tell(s.now).Events {
		held, _ := json.Marshal(e.Held)
		fmt.Fprintf(&out, "\t%d %s -> %s: %s, no leader for %vms, held %s\n", e.Number, e.Old.Server, e.New.Server, e.Outcome, e.NoLeaderMS, held)
		for _, n := range e.Timeline() {
			fmt.Fprintf(&out, "\t\t%s %+.0fms %s\n", n.At.UTC().Format("15:04:05.000"), n.AfterMS, n.Text)
		}
	}
	return out.String()
}

func (s *tale) tally() tally { return s.w.tally(s.r.idle()) }

// play carries out one line, and returns what it finished.
func (s *tale) play(words []string) *event {
	switch words[0] {
	case "hint":
		s.r.hear(s.now, hint{bySession, words[1], strings.Join(words[2:], " ")})
		return nil
	case "dcs":
		s.r.hear(s.now, hint{byDCS, "etcd", strings.Join(words[1:], " ")})
		return nil
	case "session":
		return s.r.session(s.now, s.epoch, s.tally())
	case "sessions":
		s.sessions, _ = strconv.Atoi(words[1])
		return nil
	case "client":
		s.client(words[1:])
		return nil
	case "reload":
		s.r.reloaded(s.now)
		return s.led(s.f.decide(s.now))
	case "tick":
		return s.led(s.f.decide(s.now))
	}
	i := index(s.t, s.f, words[0])
	a := answer(s.t, words[1:], s.counters[i])
	s.r.answer(s.now, words[0], a.OK(), a.Reason)
	return s.led(s.f.observe(s.now, i, a))
}

// led does what the owner does when the follower's answer is known.
func (s *tale) led(c change) *event {
	var fenced time.Time
	ended := 0
	if c.reign {
		if c.from >= 0 {
			fenced, ended, s.sessions = s.now.Add(time.Millisecond), s.sessions, 0
		}
		if c.to >= 0 {
			s.epoch++
		}
	}
	l := leading{accepting: s.f.accepting, loud: s.f.loud, reason: s.f.reason}
	if i := s.f.past.leader; i >= 0 {
		l.leader, l.epoch, l.timeline = s.f.servers[i].name, s.epoch, s.f.reign
	}
	return s.r.look(s.now, l, fenced, ended, s.tally())
}

func (s *tale) client(words []string) {
	const most = 3
	switch words[0] {
	case "held", "full":
		if s.w.take(most, false) != (words[0] == "held") {
			s.t.Fatalf("at most %d are held", most)
		}
		return
	case "placed":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.w.lasted(d)
	case "left":
		s.w.ended(relay.ClientAborted, time.Minute)
	case "late":
		s.w.ended(relay.ServerTimeout, time.Minute)
	default:
		s.t.Fatalf("a client cannot be %q", words[0])
	}
	s.w.held.Add(-1)
}
