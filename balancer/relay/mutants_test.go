//go:build mutants

package relay

import (
	"bytes"
	"encoding/json"
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
// fail, although they pass with it. A guard that is not found is a failure too:
// its mutant must follow the program.
func TestMutants(t *testing.T) {
	all := readMutants(t)
	var whole []string
	for _, m := range all {
		if !strings.Contains(m.tests, " ") {
			whole = append(whole, m.tests)
		}
	}
	if out, err := goTest(strings.Join(whole, "|"), "."); err != nil {
		t.Fatalf("with all guards: %v\n%s", err, out)
	}
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			m.run(t)
		})
	}
}

// goTest runs tests that give up soon.
func goTest(tests, pkg string, args ...string) ([]byte, error) {
	args = append([]string{"test", "-vet=off", "-count=1", "-failfast", "-timeout=30s", "-run", tests}, append(args, pkg)...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "RELAY_PATIENCE=2s")
	return cmd.CombinedOutput()
}

// failure is a line that tells what went wrong, unless it is chatter.
var failure = regexp.MustCompile(`(?m)^\s+(\w+_test|leaktest)\.go:\d+: .*|^panic: .*|^fatal error: .*`)

var chatter = regexp.MustCompile(`: -relay.seed=|: the child: |: === RUN|:\d+: \d+ sessions, |of CPU$|found after .* limit`)

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
	if in, pattern, elsewhere := strings.Cut(tests, " "); elsewhere {
		pkg, tests = in, pattern
	}
	out, err := goTest(tests, pkg, "-overlay", overlay)
	lines := slices.DeleteFunc(failure.FindAllString(string(out), -1), func(line string) bool {
		return chatter.MatchString(line)
	})
	switch {
	case err == nil:
		t.Errorf("%s pass:\n%s", m.tests, m.broken)
	case strings.Contains(string(out), "build failed") || len(lines) == 0:
		t.Errorf("%v\n%s", err, out)
	default:
		t.Logf("%s: %s", m.file, strings.TrimSpace(lines[0]))
	}
}
