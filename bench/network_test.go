package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pointsman/netlab"
)

func needsRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("network namespaces need root")
	}
	t.Skip("network namespaces need root")
}

func namespaces(t *testing.T, prefix string) []string {
	paths, err := filepath.Glob("/run/netns/" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// The parts are where they should be, work together there, and leave nothing.
func TestNamespaces(t *testing.T) {
	needsRoot(t)
	h := newHarness(t)
	n := newNetwork()
	prefix := netlab.Prefix(labKind)
	defer n.close()
	p := proxy{name: "copy", program: h.self, args: []string{"copy", "{listen}", "{target}"}}
	var err error
	if h.sites[p.name], err = n.site(p.name); err != nil {
		t.Fatal(err)
	}
	if len(namespaces(t, prefix)) != 4 { // the last is PostgreSQL's
		t.Errorf("namespaces: %v", namespaces(t, prefix))
	}
	var own, after unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		t.Fatal(err)
	}
	if _, err := h.run(t.Context(), p, workload{name: "few", kind: pingPong, sessions: 3, size: 100}, ""); err != nil {
		t.Error(err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &after); err != nil || after.Ino != own.Ino {
		t.Errorf("we are in another namespace than before: %v", err)
	}
	// The kernel's rule is there for the run, and not after it.
	dnat, err := pick("proxy", allProxies, "dnat")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(dnat[0].program); err == nil || os.Getenv("CI") == "true" {
		h.sites["dnat"] = h.sites[p.name]
		s, err := h.run(t.Context(), dnat[0], workload{name: "rule", kind: pingPong, sessions: 3, size: 100}, "")
		if err != nil || s.Ops == 0 || s.CPU != 0 {
			t.Errorf("through a rule of the kernel: %+v, %v", s.usage, err)
		}
		h.sites["dnat"].router.Inside(func() error {
			if rules, err := exec.Command(dnat[0].program, "list", "ruleset").Output(); err != nil || len(rules) > 0 {
				t.Errorf("rules that are left: %s, %v", rules, err)
			}
			return nil
		})
	}
	// What a dead run leaves: a process in a namespace.
	left, err := start(h.sites[p.name].router, h.dir, "left", "sleep", nil, "100")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
	select {
	case <-left.ended:
	case <-time.After(5 * time.Second):
		t.Error("a process outlived its namespace")
	}
	if left := namespaces(t, prefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An interrupted run in namespaces leaves none.
func TestInterruptRemovesNamespaces(t *testing.T) {
	needsRoot(t)
	interrupted(t, inNamespaces)
	if left := namespaces(t, netlab.Prefix(labKind)); len(left) > 0 {
		t.Errorf("left behind: %s", strings.Join(left, " "))
	}
}
