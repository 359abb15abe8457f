package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pointsman/leaktest"
)

func TestChoose(t *testing.T) {
	tests := []struct {
		addrs, current, want string
	}{
		{"10.0.0.2 10.0.0.1", "", "10.0.0.1"},
		{"10.0.0.2 10.0.0.1", "10.0.0.2", "10.0.0.2"},
		{"10.0.0.2 10.0.0.1", "10.0.0.9", "10.0.0.1"},
		{"fd00::1 10.0.0.1", "", "10.0.0.1"},
		{"fd00::1 10.0.0.1", "fd00::1", "fd00::1"},
		{"fd00::2 fd00::1", "", "fd00::1"},
		{"::ffff:10.0.0.1", "", "10.0.0.1"},
		{"::ffff:10.0.0.1 10.0.0.0", "10.0.0.1", "10.0.0.1"},
		{"9.0.0.1 10.0.0.1", "", "9.0.0.1"}, // by number, not by text
		{"0.0.0.0 :: 224.0.0.1 10.0.0.1", "", "10.0.0.1"},
		{"0.0.0.0", "", ""},
		{"", "10.0.0.1", ""},
	}
	for _, tt := range tests {
		var addrs []netip.Addr
		for a := range strings.FieldsSeq(tt.addrs) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		current, _ := netip.ParseAddr(tt.current)
		got, err := choose(addrs, current)
		want, _ := netip.ParseAddr(tt.want)
		if got != want || (err == nil) != want.IsValid() {
			t.Errorf("%q, now %q: got %v, %v; want %q", tt.addrs, tt.current, got, err, tt.want)
		}
	}
}

// news collects what a resolver tells, with the seconds since the start.
type news struct {
	mu    sync.Mutex
	lines []string
}

func (n *news) out(start time.Time) func(string, netip.Addr, error) {
	return func(host string, addr netip.Addr, err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.lines = append(n.lines, fmt.Sprintf("%.0f %s %v %v", time.Since(start).Seconds(), host, addr, err))
	}
}

func (n *news) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
}

// resolve runs a resolver for some time of a bubble.
func resolve(t *testing.T, d time.Duration, lookup func(context.Context, string) ([]netip.Addr, error), names ...string) string {
	var n news
	r := NewResolver(names, 30*time.Second, lookup, n.out(time.Now()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	time.Sleep(d)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	return n.String()
}

var (
	one = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	two = []netip.Addr{netip.MustParseAddr("10.0.0.2")}
)

func TestResolverTellsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, asked := time.Now(), 0
		got := resolve(t, 5*time.Minute, func(context.Context, string) ([]netip.Addr, error) {
			asked++
			switch at := time.Since(start); {
			case at < 70*time.Second:
				return one, nil
			case at < 2*time.Minute:
				return append(one, two...), nil // the first stays
			case at < 3*time.Minute:
				return two, nil
			case at < 4*time.Minute:
				return nil, errors.New("server misbehaving")
			}
			return two, nil
		}, "db1.lan", "db1.lan")
		if asked < 9+5 || asked > 12+8 { // every 27 to 33 s; after failures 1, 2, 4, 8, 16 s
			t.Errorf("asked %d times", asked)
		}
		lines := strings.Split(got, "\n")
		want := []string{"10.0.0.1 <nil>", "10.0.0.2 <nil>", "10.0.0.2 server misbehaving", "10.0.0.2 <nil>"}
		if len(lines) != len(want) {
			t.Fatalf("told:\n%s", got)
		}
		for i := range want {
			if !strings.HasSuffix(lines[i], "db1.lan "+want[i]) {
				t.Errorf("told %q, want %q", lines[i], want[i])
			}
		}
	})
}

// A name server that is late at boot costs a second or two, not `resolve`.
func TestResolverRetriesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		got := resolve(t, 20*time.Second, func(context.Context, string) ([]netip.Addr, error) {
			if time.Since(start) < 2*time.Second {
				return nil, errors.New("no such host")
			}
			return one, nil
		}, "db1.lan")
		if want := "0 db1.lan invalid IP no such host\n3 db1.lan 10.0.0.1 <nil>"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// A lookup that hangs ends after 5 s, and holds up no other name.
func TestResolverHungServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := resolve(t, 8*time.Second, func(ctx context.Context, host string) ([]netip.Addr, error) {
			if host == "db1.lan" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return two, nil
		}, "db1.lan", "db2.lan")
		if want := "0 db2.lan 10.0.0.2 <nil>\n5 db1.lan invalid IP context deadline exceeded"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// The system's resolver, on a name that needs no network.
func TestResolverOfTheSystem(t *testing.T) {
	leaktest.Check(t)
	told := make(chan netip.Addr, 2)
	r := NewResolver([]string{"localhost"}, time.Hour, nil, func(host string, addr netip.Addr, err error) {
		if err != nil {
			t.Error(err)
		}
		told <- addr
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	if addr := <-told; !addr.IsLoopback() {
		t.Errorf("localhost is %v", addr)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
