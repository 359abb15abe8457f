package balancer

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pointsman/healthcheck"
)

var update = flag.Bool("update", false, "write the stories' outcomes anew")

// TestStories plays the stories of testdata: each line is an answer of a
// server, or time that passes; under it, after "->", stands what the follower
// made of it, if that changed anything. The first lines set rise and fall.
//
//	a claims 5     a probe of a passed, timeline 5 (claims alone: timeline unknown)
//	a claims 5 standby  the same, with the role standby_leader
//	a refuses 5    the answer says: not primary, timeline 5 (refuses alone: timeline not told)
//	a silent       no answer, counted
//	a alive        no answer by REST, but its SQL port accepts: not counted
//	wait 30s
func TestStories(t *testing.T) { retell(t, "testdata/*.txt", play) }

// retell plays each story of the files, and wants what stands there.
func retell(t *testing.T, pattern string, play func(*testing.T, string) string) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != string(text) {
				t.Errorf("the story now reads:\n%s", got)
			}
		})
	}
}

// play returns the story with the outcomes that it has now.
func play(t *testing.T, story string) string {
	var out strings.Builder
	now := time.Unix(0, 0)
	rise, fall := 2, 3
	var f *follower
	var counters []*healthcheck.Counter
	lines := bufio.NewScanner(strings.NewReader(story))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "\t->") {
			continue
		}
		fmt.Fprintln(&out, line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		switch words[0] {
		case "rise":
			rise, _ = strconv.Atoi(words[1])
			continue
		case "fall":
			fall, _ = strconv.Atoi(words[1])
			continue
		case "servers":
			f, counters = newFollower(now, words[1:]), nil
			for range words[1:] {
				counters = append(counters, healthcheck.NewCounter(rise, fall))
			}
			continue
		}
		before := *f
		var c change
		if words[0] == "wait" {
			d, err := time.ParseDuration(words[1])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			now = now.Add(d)
			c = f.decide(now)
		} else {
			c = f.observe(now, index(t, f, words[0]), answer(t, words[1:], counters[index(t, f, words[0])]))
		}
		if outcome := tell(f, before, c); outcome != "" {
			fmt.Fprintf(&out, "\t-> %s\n", outcome)
		}
	}
	return out.String()
}

func index(t *testing.T, f *follower, name string) int {
	for i, s := range f.servers {
		if s.name == name {
			return i
		}
	}
	t.Fatalf("no server %q", name)
	return -1
}

func answer(t *testing.T, words []string, c *healthcheck.Counter) healthcheck.Report {
	var r healthcheck.Report
	if len(words) > 1 {
		n, err := strconv.Atoi(words[1])
		if err != nil {
			t.Fatal(err)
		}
		r.Timeline = uint32(n)
	}
	if len(words) > 2 && words[2] == "standby" {
		r.Role = standbyLeader
	}
	switch words[0] {
	case "claims":
		r.Class = healthcheck.Passed
	case "refuses":
		r.Class, r.Reason = healthcheck.Status, "not primary"
	case "silent", "alive":
		r.Class, r.Reason = healthcheck.Timeout, "no answer"
	default:
		t.Fatalf("a server cannot %q", words[0])
	}
	if words[0] != "alive" {
		c.Add(r.OK())
	}
	r.Up = c.Up()
	return r
}

func tell(f *follower, before follower, c change) string {
	name := func(i int) string {
		if i < 0 {
			return "nobody"
		}
		return f.servers[i].name
	}
	var parts []string
	if c.from != c.to {
		parts = append(parts, fmt.Sprintf("%s leads, was %s", name(c.to), name(c.from)))
	}
	if c.reign && c.from >= 0 {
		parts = append(parts, "sessions of "+name(c.from)+" end")
	}
	if c.accepting {
		parts = append(parts, map[bool]string{true: "newcomers connect", false: "newcomers wait"}[f.accepting])
	}
	if c.reason {
		parts = append(parts, f.reason)
	}
	if f.loud && !before.loud {
		parts = append(parts, "loudly")
	}
	return strings.Join(parts, "; ")
}
