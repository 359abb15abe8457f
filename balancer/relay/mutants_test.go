//go:build mutants

package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutant is the program with one guard broken, and the tests that must fail.
type mutant struct {
	name, file, tests string
	guard, broken     string // what is in the file, once, and what takes its place
}

// readMutants reads testdata/mutants.txt; the file itself tells its form.
func readMutants(t *testing.T) (all []mutant) {
	t.Helper()
	text, err := os.ReadFile("testdata/mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	for n, line := range strings.Split(string(text), "\n") {
		m := &mutant{}
		if len(all) > 0 {
			m = &all[len(all)-1]
		}
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || line[0] == '#':
		case word == "mutant":
			all = append(all, mutant{name: rest})
		case word == "file":
			m.file = rest
		case word == "tests":
			m.tests = rest
		case line[0] == '-':
			m.guard += line[1:] + "\n"
		case line[0] == '+':
			m.broken += line[1:] + "\n"
		default:
			t.Fatalf("line %d: %q", n+1, line)
		}
	}
	return all
}

// TestMutants breaks each guard in turn, and wants the tests named with it to
// fail. A guard that is not found is a failure too: its mutant must follow the
// program.
func TestMutants(t *testing.T) {
	for _, m := range readMutants(t) {
		t.Run(m.name, func(t *testing.T) { m.run(t) })
	}
}

var failure = regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: .*|^panic: .*|^fatal error: .*`)

func (m *mutant) run(t *testing.T) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(source, []byte(m.guard)); n != 1 {
		t.Fatalf("%s has this guard %d times:\n%s", m.file, n, m.guard)
	}
	dir := t.TempDir()
	broken := filepath.Join(dir, filepath.Base(m.file))
	overlay := filepath.Join(dir, "overlay.json")
	original, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: broken}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{broken: bytes.Replace(source, []byte(m.guard), []byte(m.broken), 1), overlay: replace} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pkg, tests := ".", m.tests
	if strings.HasPrefix(tests, "./") || strings.HasPrefix(tests, "../") {
		pkg, tests, _ = strings.Cut(tests, " ")
	}
	cmd := exec.Command("go", "test", "-overlay", overlay, "-vet=off", "-count=1", "-failfast", "-timeout=30s", "-run", tests, pkg)
	cmd.Env = append(os.Environ(), "RELAY_PATIENCE=2s")
	out, err := cmd.CombinedOutput()
	lines := failure.FindAllString(string(out), -1)
	// What a leak or a hang shows first says least: stacks, other sessions' ends.
	slices.SortStableFunc(lines, func(a, b string) int { return len(strings.Fields(a))/40 - len(strings.Fields(b))/40 })
	switch {
	case err == nil:
		t.Errorf("%s pass:\n%s", m.tests, m.broken)
	case strings.Contains(string(out), "build failed") || len(lines) == 0:
		t.Errorf("%v\n%s", err, out)
	default:
		t.Log(fmt.Sprintf("%s: %s", m.file, strings.TrimSpace(lines[0])))
	}
}
