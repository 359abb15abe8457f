package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pointsman/cmd/pointsman/simulation"
)

// TestImport: what is imported passes `check` and runs.
func TestImport(t *testing.T) {
	files, err := filepath.Glob("../../config/haproxy/testdata/*.cfg")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		status, out, notes := call(t, "import", file)
		if status != 0 || !strings.Contains(notes, file+":") {
			t.Fatalf("%s: status %d, %s", file, status, notes)
		}
		imported := filepath.Join(t.TempDir(), "pointsman")
		if err := os.WriteFile(imported, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, said, errs := call(t, "check", "-c", imported); status != 0 || !strings.Contains(said, " is valid; ") {
			t.Errorf("%s: check says %s%s", file, said, errs)
		}
	}
}

func TestImportErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte("global\n daemon\nlisten l\n bind :1\n acl a src 10.0.0.0/8\n server s h:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := call(t, "import", file)
	if status != 1 || out != "" || !strings.Contains(errs, file+":2: note: ") || !strings.Contains(errs, "\n"+file+":5: 'acl' cannot be carried over: ") {
		t.Errorf("status %d, %q, %s", status, out, errs)
	}
	if status, _, errs := call(t, "import", file+"x"); status != 1 || !strings.HasPrefix(errs, "pointsman: reading a haproxy.cfg: open ") {
		t.Errorf("status %d, %s", status, errs)
	}
	if status, _, errs := call(t, "import"); status != 1 || !strings.Contains(errs, "import wants one file") {
		t.Errorf("status %d, %s", status, errs)
	}
}

// TestImportRuns sends sessions through what came of a haproxy.cfg, over a
// switchover of the simulated cluster behind it.
func TestImportRuns(t *testing.T) {
	c := cluster(t)
	p := prepare(t, "")
	var cfg strings.Builder
	cfg.WriteString("listen batman\n  bind " + p.listener + "\n  option httpchk\n  http-check expect status 200\n" +
		"  default-server inter 100ms fastinter 20ms fall 3 rise 2 on-marked-down shutdown-sessions\n")
	for _, n := range c.Nodes()[:2] {
		cfg.WriteString("  server " + n.Name + " " + n.SQLAddr.String() + " check port " + strconv.Itoa(int(n.RESTAddr.Port())) + "\n")
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(cfg.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := call(t, "import", file)
	if status != 0 {
		t.Fatal(errs)
	}
	// The simulation's clients do not speak PostgreSQL's protocol.
	p.write(strings.NewReplacer("/var/run/pointsman/control.sock", p.socket, "'postgresql'", "'tcp'").Replace(out))
	p.follow(program(t, 0, "run", "-c", p.file))
	p.until("listens on")
	p.until("leader of batman is now postgres-1 (timeline 1), was nobody: confirmed")
	v := p.wantNode("postgres-1")
	c.Nodes()[0].Set(func(s *simulation.State) { s.Role, s.Lock = "replica", false })
	c.Nodes()[1].Set(func(s *simulation.State) { s.Role, s.Lock, s.Timeline = "primary", true, 2 })
	p.until("leader of batman is now postgres-2 (timeline 2), was postgres-1")
	if node := v.leave(); node != "" {
		t.Errorf("the old leader's session is with %q", node)
	}
	p.wantNode("postgres-2").leave()
}

// TestImportOfTheReadme: what README.md shows is what comes out.
func TestImportOfTheReadme(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\nThis haproxy.cfg\n")
	blocks := strings.Split(section, "```\n")
	if len(blocks) < 4 {
		t.Fatal("README.md has no haproxy.cfg, or not what becomes of it")
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(blocks[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, errs := call(t, "import", file)
	if strings.TrimSpace(out) != strings.TrimSpace(blocks[3]) {
		t.Errorf("README.md shows\n%s\nwhat comes out is\n%s%s", blocks[3], out, errs)
	}
}
