package relay

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestWordAtomics keeps 64-bit atomics out of the loops: on 32-bit MIPS each of
// them takes a lock that all threads share (Go's internal/runtime/atomic).
func TestWordAtomics(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no sources", err)
	}
	wide := regexp.MustCompile(`atomic\.\w*64`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if found := wide.FindString(line); found != "" {
				t.Errorf("%s:%d uses %s; count in the loop, and publish", file, i+1, found)
			}
		}
	}
}
