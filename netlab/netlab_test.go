package netlab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pointsman/leaktest"
)

// kind is of this package's own tests: no run of others shall sweep theirs.
const kind = "netlab"

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("network namespaces need root")
	}
	t.Skip("network namespaces need root")
}

// leftAt returns the namespaces that are there under a prefix.
func leftAt(t *testing.T, prefix string) []string {
	t.Helper()
	paths, err := filepath.Glob("/run/netns/" + prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Two hosts and a router between them: they hear each other, also after the
// cable of one was pulled and plugged in again, and nothing of it is left.
func TestLab(t *testing.T) {
	needsRoot(t)
	leaktest.Check(t)
	l := New(kind)
	t.Cleanup(func() { must(t, l.Close()) })
	router, err := l.Namespace("router")
	must(t, err, router.Sysctl("net/ipv4/ip_forward", "1"))
	join := func(name string, network byte) (*Namespace, netip.Addr) {
		host, err := l.Namespace(name)
		must(t, err)
		own, gateway := netip.AddrFrom4([4]byte{192, 0, network, 2}), netip.AddrFrom4([4]byte{192, 0, network, 1})
		must(t,
			router.Cable(name, host, "eth0"),
			router.Address(name, netip.PrefixFrom(gateway, 24)),
			host.Address("eth0", netip.PrefixFrom(own, 24)),
			host.Route("eth0", netip.MustParsePrefix("0.0.0.0/0"), gateway))
		return host, own
	}
	client, _ := join("client", 2)
	server, addr := join("server", 3)

	var listener net.Listener
	must(t, server.Inside(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	}))
	defer listener.Close()
	// A device that was turned on may drop its first packets, and TCP repeats a
	// SYN after one second, and again after two (RFC 6298, 2).
	const patience = 10 * time.Second
	hear := func(patience time.Duration) error {
		return client.Inside(func() error {
			conn, err := net.DialTimeout("tcp4", listener.Addr().String(), patience)
			if err == nil {
				conn.Close()
			}
			return err
		})
	}
	must(t, hear(patience))
	only := netip.PrefixFrom(addr, 32)
	must(t, router.Blackhole(only), router.SetDown("server"))
	if err := hear(100 * time.Millisecond); err == nil {
		t.Error("the pulled cable carries")
	}
	must(t, router.SetUp("server"), router.Route("server", only, netip.Addr{}), hear(patience))
	routes, err := client.links.RouteList(nil, netlink.FAMILY_V4)
	must(t, err)
	if len(routes) != 2 || routes[0].Congctl != CongestionControl || routes[1].Congctl != CongestionControl {
		t.Errorf("routes %v", routes)
	}

	// While this process is with a host, it is none of those that run there.
	must(t, server.Inside(func() error {
		if pids := server.Pids(); len(pids) > 0 {
			t.Errorf("processes %v", pids)
		}
		return nil
	}))
	must(t, listener.Close(), l.Close())
	if left := leftAt(t, Prefix(kind)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Inside comes back, whatever f says; and here is nowhere else.
func TestInside(t *testing.T) {
	needsRoot(t)
	inode := func() (uint64, error) {
		var st unix.Stat_t
		err := unix.Stat("/proc/thread-self/ns/net", &st)
		return st.Ino, err
	}
	home, err := inode()
	must(t, err)
	other, err := Unnamed()
	must(t, err)
	t.Cleanup(other.Close)
	if other.Name != "" {
		t.Errorf("it is called %q", other.Name)
	}
	var here *Namespace
	for _, c := range []struct {
		n    *Namespace
		away bool
	}{{here, false}, {other, true}} {
		err := c.n.Inside(func() error {
			at, err := inode()
			if away := at != home; err != nil || away != c.away {
				t.Errorf("away: %v, want %v; %v", away, c.away, err)
			}
			return io.ErrUnexpectedEOF
		})
		if err != io.ErrUnexpectedEOF {
			t.Errorf("f's error became %v", err)
		}
		if at, err := inode(); err != nil || at != home {
			t.Errorf("we are in another namespace than before: %v", err)
		}
	}
	other.Close()
	if err := other.Inside(func() error { return nil }); err == nil {
		t.Error("a closed namespace was entered")
	}
}

// What runs in a namespace is found, and dies with it.
func TestCloseKills(t *testing.T) {
	needsRoot(t)
	l := New(kind)
	t.Cleanup(func() { must(t, l.Close()) })
	n, err := l.Namespace("busy")
	must(t, err)
	sleeper := exec.Command("sleep", "100")
	must(t, n.Inside(sleeper.Start))
	if pids := n.Pids(); !slices.Equal(pids, []int{sleeper.Process.Pid}) {
		t.Errorf("processes %v, want %d", pids, sleeper.Process.Pid)
	}
	ended := make(chan error)
	go func() { ended <- sleeper.Wait() }()
	must(t, l.Close())
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("a process outlived its namespace")
		must(t, sleeper.Process.Kill())
		<-ended
	}
}

// What runs that died have left is removed; what belongs to the living stays.
func TestSweep(t *testing.T) {
	needsRoot(t)
	gone := exec.Command("true")
	must(t, gone.Run())
	dead, living := &Lab{prefix: prefix(kind) + strconv.Itoa(gone.Process.Pid) + "-"}, New(kind)
	for _, l := range []*Lab{dead, living} {
		_, err := l.Namespace("x")
		must(t, err)
		t.Cleanup(func() {
			if len(leftAt(t, l.prefix)) > 0 {
				must(t, l.Close())
			}
		})
	}
	dir := filepath.Join(os.TempDir(), dead.prefix+"dir")
	must(t, os.Mkdir(dir, 0o700))
	t.Cleanup(func() { os.RemoveAll(dir) })
	swept, err := Sweep(kind)
	must(t, err)
	for _, name := range []string{dead.prefix + "x", dead.prefix + "dir"} {
		if !slices.Contains(swept, name) {
			t.Errorf("%s is not in %v", name, swept)
		}
	}
	if left := leftAt(t, dead.prefix); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("left behind: %s", dir)
	}
	if len(leftAt(t, living.prefix)) != 1 {
		t.Error("a namespace of a living run was removed")
	}
}

// An error names the host and the device.
func TestErrorsName(t *testing.T) {
	needsRoot(t)
	l := New(kind)
	t.Cleanup(func() { must(t, l.Close()) })
	n, err := l.Namespace("host")
	must(t, err)
	network := netip.MustParsePrefix("192.0.2.1/24")
	for what, err := range map[string]error{
		"up":      n.SetUp("eth9"),
		"down":    n.SetDown("eth9"),
		"address": n.Address("eth9", network),
		"route":   n.Route("eth9", network, netip.Addr{}),
		"cable":   n.Cable("lo", n, "lo"),
		"sysctl":  n.Sysctl("net/ipv4/none", "1"),
		"again":   func() error { _, err := l.Namespace("host"); return err }(),
	} {
		if !strings.Contains(fmt.Sprint(err), n.Name) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
