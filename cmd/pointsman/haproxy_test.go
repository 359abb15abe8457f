package main

import (
	"flag"
	"fmt"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"pointsman/bench/page"
	"pointsman/cmd/pointsman/simulation"
)

var update = flag.Bool("update", false, "write what was measured into docs/leader.md")

// TestBesideHAProxy lets leaders fail in ways that are no death, with HAProxy
// and the daemon in front of the same nodes at the same time, both at the pace
// of the configuration that the daemon replaces: inter 3s, fall 3, rise 2.
// All scenes play at once, for ten seconds.
func TestBesideHAProxy(t *testing.T) {
	long(t)
	if _, err := exec.LookPath("haproxy"); err != nil {
		lack(t, "haproxy (package haproxy)")
	}
	var scenes []*scene
	for range 4 {
		scenes = append(scenes, newScene(t))
	}
	for _, s := range scenes {
		s.settle()
	}
	refusing, claiming := scenes[0], scenes[1:]
	timelines := []struct {
		what     string
		timeline uint32 // of the second claimant; the leader's is 1
		wrong    string
	}{{"an equal", 1, "postgres-2"}, {"no", 0, "postgres-2"}, {"a higher", 2, "postgres-1"}}

	before := refusing.residents(20)
	leader := refusing.cluster.Nodes()[0]
	leader.Set(func(s *simulation.State) { s.Lock = false }) // a hiccup of etcd; nobody else takes it
	for i, s := range claiming {
		s.cluster.Nodes()[1].Set(func(s *simulation.State) { s.Role, s.Timeline, s.Lock = "primary", timelines[i].timeline, true })
	}
	began := time.Now()
	visit(began.Add(5*time.Second), scenes...)
	leader.Set(func(s *simulation.State) { s.Lock = true })
	vouched := time.Now()
	visit(began.Add(10*time.Second), claiming...)

	h, p := refusing.doubt(0, began, vouched, before), refusing.doubt(1, began, vouched, before)
	if p.ended > 0 || p.served > 0 || p.failed > 0 || p.visitors == 0 {
		t.Errorf("pointsman: %+v; want no session ended, and newcomers held", p)
	}
	table := fmt.Sprintf(`| | HAProxy %s | pointsman |
| --- | --- | --- |
| the leader lives and answers 503 for 5 s, no rival: of its 20 sessions, ended | %d | %d |
| of the newcomers of the last second, served by it all the same | %d of %d | %d of %d |
| newcomers that failed; the longest that one was held | %d; %.1f s | %d; %.1f s |
`, haproxyVersion(t), h.ended, p.ended, h.served, h.visitors, p.served, p.visitors,
		h.failed, h.longest.Seconds(), p.failed, p.longest.Seconds())
	for i, s := range claiming {
		theirs, of := s.on(0, timelines[i].wrong)
		ours, ofOurs := s.on(1, timelines[i].wrong)
		if ours > 0 || ofOurs == 0 {
			t.Errorf("pointsman, %s timeline: %d of %d sessions are on %s", timelines[i].what, ours, ofOurs, timelines[i].wrong)
		}
		if theirs == 0 {
			t.Errorf("HAProxy, %s timeline: none of %d sessions is on %s; is the fault one?", timelines[i].what, of, timelines[i].wrong)
		}
		table += fmt.Sprintf("| two answer 200 for 10 s, the second one with %s timeline: sessions on the wrong one then | %d of %d | %d of %d |\n",
			timelines[i].what, theirs, of, ours, ofOurs)
	}
	t.Logf("\n%s", table)
	if *update && !t.Failed() {
		if err := page.Refresh("../../docs/leader.md", map[string]string{"leader:haproxy": table}); err != nil {
			t.Error(err)
		}
	}
}

func haproxyVersion(t *testing.T) string {
	out, err := exec.Command("haproxy", "-v").Output()
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(string(out))
}

// doubt is what became of those who met a leader in doubt.
type doubt struct {
	ended    int // sessions of before
	visitors int // who came when every check had seen it
	served   int // of them, by the leader in doubt
	failed   int
	longest  time.Duration // that one waited
}

func (s *scene) doubt(proxy int, began, vouched time.Time, before [2][]*visitor) (d doubt) {
	const seen = 4 * time.Second // inter, and a second for a loaded machine
	for _, v := range s.visitors[proxy] {
		v.wait()
		if v.err != nil {
			d.failed++
		}
		if v.came.Sub(began) > seen {
			d.visitors++
			if v.err == nil && v.served.Before(vouched) {
				d.served++
			}
		}
		d.longest = max(d.longest, v.served.Sub(v.came))
		v.leave()
	}
	for _, v := range before[proxy] {
		if v.leave() == "" {
			d.ended++
		}
	}
	return d
}

// on counts the sessions that are still there, and those of them that are on
// the node.
func (s *scene) on(proxy int, node string) (n, all int) {
	for _, v := range s.visitors[proxy] {
		switch v.leave() {
		case "":
			continue
		case node:
			n++
		}
		all++
	}
	return n, all
}
