package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namePrefix begins the name of each namespace and directory of a run; the pid
// follows, so that a later run can tell what was left behind.
const namePrefix = "pointsman-bench-"

// Each proxy has three namespaces of its own, joined by two cables (veth, with
// the kernel's defaults for offloads). n counts the proxies:
//
//	lan 10.90.n.2 ---- 10.90.n.1 router 10.91.n.1 ---- 10.91.n.2 servers
//
// PostgreSQL takes seconds to load, so all share one, which has a cable to
// each router: 10.92.n.1 there, and 10.92.n.2 at its end.
func address(network, n, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(network), byte(n), byte(host)})
}

const (
	lanNet      = 90
	serversNet  = 91
	postgresNet = 92
)

// allNets holds every address of every network.
var allNets = netip.MustParsePrefix("10.88.0.0/13")

// network makes the namespaces of a whole bench, and removes them.
type network struct {
	prefix   string
	names    []string
	ns       []netns.NsHandle
	sites    int
	postgres place
}

func newNetwork() *network {
	return &network{prefix: namePrefix + strconv.Itoa(os.Getpid()) + "-", postgres: here}
}

// site makes the three namespaces of one proxy.
func (n *network) site(proxy string) (s site, err error) {
	n.sites++
	s.front, s.back, s.postgres = address(lanNet, n.sites, 1), address(serversNet, n.sites, 2), address(postgresNet, n.sites, 2)
	if !n.postgres.ns.IsOpen() {
		if n.postgres, err = n.place("postgres"); err != nil {
			return s, err
		}
	}
	for _, p := range []struct {
		place *place
		name  string
	}{{&s.lan, "lan"}, {&s.router, "router"}, {&s.servers, "servers"}} {
		if *p.place, err = n.place(proxy + "-" + p.name); err != nil {
			return s, err
		}
	}
	for _, c := range []struct {
		host    place
		end     string // of the cable, at the host
		network int
		reaches netip.Prefix // through the router
	}{
		{s.lan, "eth0", lanNet, allNets},
		{s.servers, "eth0", serversNet, allNets},
		{n.postgres, fmt.Sprintf("eth%d", n.sites), postgresNet, netip.PrefixFrom(address(lanNet, n.sites, 0), 24)},
	} {
		host, router := address(c.network, n.sites, 2), address(c.network, n.sites, 1)
		if err := cable(c.host, c.end, host, s.router, fmt.Sprintf("net%d", c.network), router, c.reaches); err != nil {
			return s, err
		}
	}
	for _, set := range []struct {
		at        place
		key, want string
	}{
		{s.router, "net/ipv4/ip_forward", "1"},
		// Short sessions at full speed must not run out of ports: a busy host
		// is set up like this.
		{s.lan, "net/ipv4/ip_local_port_range", "1024 65535"},
		{s.router, "net/ipv4/ip_local_port_range", "1024 65535"},
		{s.lan, "net/ipv4/tcp_tw_reuse", "1"},
		{s.router, "net/ipv4/tcp_tw_reuse", "1"},
	} {
		err := set.at.inside(func() error { return os.WriteFile("/proc/sys/"+set.key, []byte(set.want), 0) })
		if err != nil {
			return s, fmt.Errorf("setting %s of %s: %w", set.key, set.at.name, err)
		}
	}
	return s, nil
}

// place makes a network namespace that `ip netns` knows by name.
func (n *network) place(name string) (place, error) {
	p := place{ns: netns.None(), name: n.prefix + name}
	err := onOwnThread(func() (err error) {
		p.ns, err = netns.NewNamed(p.name)
		return err
	})
	if err != nil {
		return p, fmt.Errorf("making namespace %s: %w", p.name, err)
	}
	n.names, n.ns = append(n.names, p.name), append(n.ns, p.ns)
	links, err := netlink.NewHandleAt(p.ns)
	if err != nil {
		return p, fmt.Errorf("opening netlink: %w", err)
	}
	defer links.Close()
	lo, err := links.LinkByName("lo")
	if err == nil {
		err = links.LinkSetUp(lo)
	}
	if err != nil {
		return p, fmt.Errorf("setting lo up: %w", err)
	}
	return p, nil
}

// close kills whatever runs in the namespaces and removes them.
func (n *network) close() error {
	for _, ns := range n.ns {
		ns.Close()
	}
	return removeNamespaces(n.names)
}

// cable joins a host to the router, through which it reaches a network beyond.
func cable(host place, hostEnd string, hostAddr netip.Addr, router place, routerEnd string, routerAddr netip.Addr, reaches netip.Prefix) error {
	links, err := netlink.NewHandleAt(router.ns)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer links.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: routerEnd}, PeerName: hostEnd, PeerNamespace: netlink.NsFd(int(host.ns))}
	if err := links.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the cable to %s: %w", host.name, err)
	}
	if err := plug(links, routerEnd, routerAddr); err != nil {
		return err
	}
	far, err := netlink.NewHandleAt(host.ns)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer far.Close()
	if err := plug(far, hostEnd, hostAddr); err != nil {
		return err
	}
	beyond := &netlink.Route{Dst: ipNet(reaches), Gw: routerAddr.AsSlice(), Congctl: congestionControl}
	if err := far.RouteAdd(beyond); err != nil {
		return fmt.Errorf("giving %s a route to %s: %w", host.name, reaches, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// congestionControl is what Linux and OpenWrt have without being asked. A
// namespace may not choose it, but its routes may.
const congestionControl = "cubic"

func plug(links *netlink.Handle, name string, addr netip.Addr) error {
	link, err := links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	own := netip.PrefixFrom(addr, 24)
	address := &netlink.Addr{IPNet: ipNet(own), Flags: unix.IFA_F_NOPREFIXROUTE}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Dst: ipNet(own.Masked()), Congctl: congestionControl}
	if err = links.AddrAdd(link, address); err == nil {
		if err = links.LinkSetUp(link); err == nil {
			err = links.RouteAdd(route)
		}
	}
	if err != nil {
		return fmt.Errorf("giving %s the address %s: %w", name, addr, err)
	}
	return nil
}

// onOwnThread runs f on a thread that is thrown away afterwards, because f
// changes the thread's namespace.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// removeNamespaces ends what runs in namespaces of ours, and removes them.
func removeNamespaces(names []string) error {
	var errs []error
	mounted := map[uint64]bool{} // by inode
	for _, name := range names {
		ns, ok, err := mountedAt(name)
		errs = append(errs, err)
		if ok {
			mounted[ns.Ino] = true
		}
	}
	for range 100 { // a process may fork while we look; 5 s are plenty for SIGKILL
		pids := pidsIn(mounted)
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, name := range names {
		_, ok, err := mountedAt(name)
		switch {
		case err != nil:
		case ok:
			err = netns.DeleteNamed(name)
		default: // never mounted: the run died in between
			err = os.Remove("/run/netns/" + name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("removing namespace %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// mountedAt returns the namespace that is mounted under a name, if one is.
func mountedAt(name string) (ns unix.Stat_t, ok bool, err error) {
	var own unix.Stat_t
	err = errors.Join(unix.Stat("/run/netns/"+name, &ns), unix.Stat("/proc/self/ns/net", &own))
	return ns, err == nil && ns.Dev == own.Dev && ns.Ino != own.Ino, err
}

// pidsIn are the processes in any of the namespaces, by their inodes.
func pidsIn(namespaces map[uint64]bool) (pids []int) {
	if len(namespaces) == 0 {
		return nil
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(dir+"/ns/net", &st) == nil && namespaces[st.Ino] {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

// sweep removes what runs that died have left behind.
func sweep() error {
	left := func(pattern string) (names []string) {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			name := filepath.Base(path)
			owner, _, _ := strings.Cut(strings.TrimPrefix(name, namePrefix), "-")
			if _, err := os.Stat("/proc/" + owner); err != nil {
				names = append(names, name)
			}
		}
		return names
	}
	errs := []error{removeNamespaces(left("/run/netns/" + namePrefix + "*"))}
	for _, name := range left(filepath.Join(os.TempDir(), namePrefix+"*")) {
		dir := filepath.Join(os.TempDir(), name)
		unix.Unmount(dir, unix.MNT_DETACH) // most are no mount, and it fails
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
