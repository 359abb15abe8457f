// Package leaktest fails tests that leave goroutines or descriptors behind. It
// counts those of the whole process, so it is not for parallel tests.
package leaktest

import (
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long those that are about to end may take: ended sockets and
// goroutines of the runtime's own linger on a busy machine.
var patience = 10 * time.Second

// Check fails the test if it ends with more goroutines or descriptors than
// there are now. What is cleaned up must be registered with the test later
// than this call, so that it is gone by then.
func Check(t testing.TB) {
	t.Helper()
	// The runtime's poller opens descriptors of its own at the first socket.
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		_ = l.Close()
	}
	goroutines, descriptors := runtime.NumGoroutine(), Descriptors(t)
	t.Cleanup(func() {
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			g, d := runtime.NumGoroutine(), Descriptors(t)
			if g <= goroutines && len(d) <= len(descriptors) {
				return
			}
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Errorf("leak: %d goroutines (were %d), %d descriptors (were %d)\nnow:  %s\nthen: %s\n%s", g, goroutines, len(d), len(descriptors),
					strings.Join(d, " "), strings.Join(descriptors, " "), stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
}

// Descriptors are those that the process has open, as "3=socket:[4711]".
func Descriptors(t testing.TB) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// The one that the folder itself was read with is closed by now.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+"="+target)
		}
	}
	return open
}
