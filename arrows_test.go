// Package pointsman_test keeps the house in order: which package may import
// which, and where third parties may live. The arrows go one way,
//
//	cmd -> balancer/control -> balancer -> {healthcheck, balancer/relay, balancer/pgwire} -> config
//	cmd -> {openwrt/uci, config/haproxy} -> config
//	cmd -> bpf
//
// and may be followed more than one step.
package pointsman_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "pointsman"

// arrows says, for every package, which others of ours it may import.
var arrows = map[string][]string{
	// Wiring: it may import all that is not a leaf of its own.
	"cmd/pointsman": {
		"balancer", "balancer/control", "balancer/relay", "bpf", "config", "config/haproxy", "healthcheck",
		"openwrt", "openwrt/uci", "cmd/pointsman/demo", "cmd/pointsman/simulation",
	},
	"cmd/pointsman/demo":       {"balancer", "cmd/pointsman/simulation"}, // shows snapshots; gets the daemon as a function
	"cmd/pointsman/simulation": {},                                       // plays the nodes of the demo; the daemon must not know

	"balancer/control": {"balancer", "config"},
	"balancer":         {"balancer/pgwire", "balancer/relay", "config", "healthcheck"},
	"healthcheck":      {"config"},
	"balancer/relay":   {"balancer/pgwire", "config"}, // it asks pgwire itself: a function call, no interface
	"balancer/pgwire":  {},
	"openwrt/uci":      {}, // UCI's syntax; see fileArrows for the rest
	"config/haproxy":   {"config"},
	"config":           {},
	"bpf":              {},

	"openwrt":           {},
	"openwrt/ipk":       {},
	"openwrt/mkpackage": {"openwrt", "openwrt/ipk"},

	// Leaves: they know the program from outside.
	"e2e":            {"netlab", "openwrt"},
	"bench":          {"bench/chart", "bench/page", "bench/postgres", "netlab"},
	"bench/chart":    {}, // draws what it is given
	"bench/page":     {}, // knows marks, and not what stands between them
	"bench/postgres": {}, // real servers and clients
	"bench/profile":  {"bench/chart", "bench/page"},
	"netlab":         {}, // hosts and cables; knows nothing of what runs there
	"leaktest":       {},
	".":              {},
}

// fileArrows are those that single files may take besides.
var fileArrows = map[string][]string{
	"openwrt/uci/load.go":   {"config"}, // from sections to the configuration
	"openwrt/uci/encode.go": {"config"}, // and back
}

// testArrows are those that only test files may take besides.
var testArrows = map[string][]string{
	"balancer":                 {"leaktest"},
	"balancer/control":         {"leaktest"},
	"balancer/relay":           {"leaktest", "netlab"},
	"cmd/pointsman":            {"bench/page", "leaktest"}, // bench/page: figures for docs/leader.md
	"cmd/pointsman/demo":       {"leaktest"},
	"config/haproxy":           {"openwrt", "openwrt/uci"}, // what comes out is read as the daemon does
	"cmd/pointsman/simulation": {"leaktest"},
	"healthcheck":              {"leaktest"},
	"netlab":                   {"leaktest"},
	"openwrt":                  {"openwrt/uci"},       // reads the shipped configuration as the daemon does
	"openwrt/uci":              {"config", "openwrt"}, // openwrt: the configuration that is shipped
}

// rooms says which folders, or single files, may import a module of others.
var rooms = map[string][]string{
	"github.com/cilium/ebpf":   {"bpf"},
	"github.com/urfave/cli/v2": {"cmd/pointsman"},
	// The check client and the status server.
	"github.com/valyala/fasthttp": {"healthcheck", "balancer/control"},
	// Network namespaces of tests.
	"github.com/vishvananda/netlink": {"netlab"},
	"github.com/vishvananda/netns":   {"netlab"},
	"github.com/xrash/smetrics":      {"config"},
	"golang.org/x/sys":               {"balancer/relay", "cmd/pointsman/demo", "cmd/pointsman/simulation", "e2e", "bench", "netlab"},
}

func TestArrows(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bin" || base == "dist") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); name != "." && err == nil {
				return fs.SkipDir // a module of its own: nothing of it can be imported here
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		files++
		// Imports alone, whatever the build tags: no file escapes.
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if complaint := judge(filepath.ToSlash(name), imported); complaint != "" {
				t.Errorf("%s imports %s: %s", name, imported, complaint)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d files were seen", files)
	}
}

// judge says what is wrong with an import, or nothing.
func judge(file, imported string) string {
	dir, test := path.Dir(file), strings.HasSuffix(file, "_test.go")
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		allowed, known := arrows[dir]
		switch {
		case !known:
			return "the package has no arrows yet; give it some in arrows_test.go"
		case slices.Contains(allowed, ours), slices.Contains(fileArrows[file], ours):
			return ""
		case test && (ours == dir || slices.Contains(testArrows[dir], ours)):
			return ""
		}
		return "no arrow goes there"
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		if imported == "C" {
			return "the program is built without cgo"
		}
		return "" // the standard library
	}
	for lib, allowed := range rooms {
		if imported != lib && !strings.HasPrefix(imported, lib+"/") {
			continue
		}
		if slices.Contains(allowed, dir) || slices.Contains(allowed, file) {
			return ""
		}
		return "it lives in " + strings.Join(allowed, ", ")
	}
	return "no such guest is known; give it a room in arrows_test.go"
}

func TestJudge(t *testing.T) {
	tests := []struct {
		file, imported string
		fine           bool
	}{
		{"balancer/owner.go", "pointsman/balancer/relay", true},
		{"balancer/relay/loop.go", "pointsman/balancer", false},
		{"config/config.go", "pointsman/openwrt/uci", false},
		{"openwrt/uci/parse.go", "pointsman/config", false},
		{"openwrt/uci/load.go", "pointsman/config", true},
		{"openwrt/uci/load.go", "pointsman/openwrt", false},
		{"openwrt/uci/parse_test.go", "pointsman/openwrt", true},
		{"config/config_test.go", "pointsman/config", true},
		{"new/new.go", "pointsman/config", false},
		{"config/config.go", "net/netip", true},
		{"config/config.go", "C", false},
		{"balancer/relay/loop.go", "golang.org/x/sys/unix", true},
		{"config/config.go", "golang.org/x/sys/unix", false},
		{"cmd/pointsman/run.go", "github.com/urfave/cli/v2", true},
		{"balancer/owner.go", "github.com/urfave/cli/v2", false},
		{"balancer/relay/namespace_test.go", "pointsman/netlab", true},
		{"balancer/relay/vanish_test.go", "github.com/vishvananda/netns", false},
		{"netlab/namespace.go", "github.com/vishvananda/netns", true},
		{"balancer/relay/loop.go", "github.com/vishvananda/netlink", false},
		{"config/config.go", "example.org/other", false},
	}
	for _, test := range tests {
		if complaint := judge(test.file, test.imported); (complaint == "") != test.fine {
			t.Errorf("%s imports %s: %q", test.file, test.imported, complaint)
		}
	}
}
