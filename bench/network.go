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
// the kernel's defaults for offloads):
//
//	lan 10.90.1.2 ---- 10.90.1.1 router 10.90.2.1 ---- 10.90.2.2 servers
//
// A network that shares the routers' namespaces ends nowhere else, so all
// proxies have the same addresses.
var (
	lanAddr     = netip.MustParseAddr("10.90.1.2")
	frontAddr   = netip.MustParseAddr("10.90.1.1")
	behindAddr  = netip.MustParseAddr("10.90.2.1")
	serversAddr = netip.MustParseAddr("10.90.2.2")
)

// network makes the namespaces of a whole bench, and removes them.
type network struct {
	prefix string
	names  []string
	ns     []netns.NsHandle
}

func newNetwork() *network {
	return &network{prefix: namePrefix + strconv.Itoa(os.Getpid()) + "-"}
}

// site makes the three namespaces of one proxy.
func (n *network) site(proxy string) (s site, err error) {
	s.front, s.back = frontAddr, serversAddr
	for _, p := range []struct {
		place *place
		name  string
	}{{&s.lan, "lan"}, {&s.router, "router"}, {&s.servers, "servers"}} {
		if *p.place, err = n.place(proxy + "-" + p.name); err != nil {
			return s, err
		}
	}
	if err := cable(s.lan, lanAddr, s.router, frontAddr, "lan"); err != nil {
		return s, err
	}
	if err := cable(s.servers, serversAddr, s.router, behindAddr, "servers"); err != nil {
		return s, err
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

// cable joins a host to the router, where its end is called name, and makes
// the router its gateway.
func cable(host place, hostAddr netip.Addr, router place, routerAddr netip.Addr, name string) error {
	links, err := netlink.NewHandleAt(router.ns)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer links.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(host.ns))}
	if err := links.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the cable to %s: %w", host.name, err)
	}
	if err := plug(links, name, routerAddr); err != nil {
		return err
	}
	far, err := netlink.NewHandleAt(host.ns)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer far.Close()
	if err := plug(far, "eth0", hostAddr); err != nil {
		return err
	}
	gateway := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: routerAddr.AsSlice(), Congctl: congestionControl}
	if err := far.RouteAdd(gateway); err != nil {
		return fmt.Errorf("giving %s a gateway: %w", host.name, err)
	}
	return nil
}

// congestionControl is what Linux and OpenWrt have without being asked. A
// namespace may not choose it, but its routes may.
const congestionControl = "cubic"

func plug(links *netlink.Handle, name string, addr netip.Addr) error {
	link, err := links.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	subnet := netip.PrefixFrom(addr, 24).Masked()
	mask := net.CIDRMask(24, 32)
	address := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: mask}, Flags: unix.IFA_F_NOPREFIXROUTE}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Scope: unix.RT_SCOPE_LINK, Dst: &net.IPNet{IP: subnet.Addr().AsSlice(), Mask: mask}, Congctl: congestionControl}
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
	for _, dir := range left(filepath.Join(os.TempDir(), namePrefix+"*")) {
		errs = append(errs, os.RemoveAll(filepath.Join(os.TempDir(), dir)))
	}
	return errors.Join(errs...)
}
