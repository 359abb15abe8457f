package leaktest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// watched is a test whose end and failures are in our hands.
type watched struct {
	testing.TB
	cleanups []func()
	errors   string
}

func (w *watched) Cleanup(f func())                  { w.cleanups = append(w.cleanups, f) }
func (w *watched) Errorf(format string, args ...any) { w.errors += fmt.Sprintf(format, args...) }

func (w *watched) end() {
	for i := len(w.cleanups) - 1; i >= 0; i-- {
		w.cleanups[i]()
	}
}

func TestCheck(t *testing.T) {
	before := patience
	t.Cleanup(func() { patience = before })
	hang := make(chan struct{})
	var file *os.File
	tests := []struct {
		name string
		do   func(*watched)
		want string // in the failure; "" = none
	}{
		{"nothing", func(*watched) {}, ""},
		{"a goroutine", func(*watched) { go func() { <-hang }() }, "TestCheck.func"}, // its stack
		{"a goroutine that ends in time", func(*watched) { go func() { time.Sleep(5 * time.Millisecond) }() }, ""},
		{"a descriptor", func(*watched) { file, _ = os.Open("/dev/zero") }, "=/dev/zero"},
		{"a descriptor that is closed at the end", func(w *watched) {
			file, _ := os.Open("/dev/zero")
			w.Cleanup(func() { file.Close() })
		}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if patience = before; test.want != "" {
				patience = 20 * time.Millisecond
			}
			w := &watched{TB: t}
			Check(w)
			test.do(w)
			w.end()
			if test.want == "" && w.errors != "" || !strings.Contains(w.errors, test.want) {
				t.Errorf("it says %q, want %q", w.errors, test.want)
			}
		})
	}
	close(hang)
	file.Close()
}
