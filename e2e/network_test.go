//go:build e2e

package e2e

import (
	"context"
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

// The network: one namespace per host, and one in the middle that routes. Each
// host has a single address and a single cable to the middle, so between any
// two hosts there is a routed hop, as between the router and its database
// nodes in real life. A host whose cable is pulled is then silent to the
// others; on a shared segment they would get EHOSTUNREACH from failing ARP.

// gateway is the middle's address on every cable; link-local (RFC 3927), as it
// means nothing beyond the cable.
var gateway = netip.MustParseAddr("169.254.0.1")

// namePrefix begins the name of each namespace and directory of a run; the pid
// of the run follows, so that a later run can tell what was left behind.
const namePrefix = "pointsman-e2e-"

type host struct {
	name string
	addr netip.Addr
	ns   netns.NsHandle
}

type network struct {
	prefix string
	middle netns.NsHandle
	links  *netlink.Handle // of the middle
	hosts  map[string]*host
	names  []string // of all namespaces made
}

func newNetwork(addrs map[string]netip.Addr) (_ *network, err error) {
	n := &network{prefix: namePrefix + strconv.Itoa(os.Getpid()) + "-", hosts: map[string]*host{}}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.middle, err = n.namespace("middle"); err != nil {
		return nil, err
	}
	if n.links, err = netlink.NewHandleAt(n.middle); err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	if err := addAddress(n.links, "lo", gateway); err != nil {
		return nil, err
	}
	err = inside(n.middle, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	})
	if err != nil {
		return nil, fmt.Errorf("turning forwarding on: %w", err)
	}
	for name, addr := range addrs {
		if err := n.addHost(name, addr); err != nil {
			return nil, fmt.Errorf("adding host %s: %w", name, err)
		}
	}
	return n, nil
}

// namespace makes a network namespace that `ip netns` knows by name.
func (n *network) namespace(name string) (ns netns.NsHandle, err error) {
	err = onOwnThread(func() error {
		ns, err = netns.NewNamed(n.prefix + name)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("making namespace %s: %w", name, err)
	}
	n.names = append(n.names, n.prefix+name)
	return ns, nil
}

func (n *network) addHost(name string, addr netip.Addr) error {
	ns, err := n.namespace(name)
	if err != nil {
		return err
	}
	h := &host{name: name, addr: addr, ns: ns}
	n.hosts[name] = h
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	if err := n.links.LinkAdd(cable); err != nil {
		return fmt.Errorf("making the cable: %w", err)
	}
	links, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer links.Close()
	if err := setUp(links, "lo"); err != nil {
		return err
	}
	if err := addAddress(links, "eth0", addr); err != nil {
		return err
	}
	if err := addRoute(links, "eth0", gateway, netip.Addr{}); err != nil {
		return err
	}
	if err := addRoute(links, "eth0", netip.Addr{}, gateway); err != nil {
		return err
	}
	return n.plug(h)
}

// plug connects the host, also after unplug.
func (n *network) plug(h *host) error {
	if err := setUp(n.links, h.name); err != nil {
		return err
	}
	return addRoute(n.links, h.name, h.addr, netip.Addr{})
}

// unplug pulls the host's cable, and lets the middle drop what is sent to it
// without an ICMP, as a remote network does.
func (n *network) unplug(h *host) error {
	drop := &netlink.Route{Dst: hostNet(h.addr), Type: unix.RTN_BLACKHOLE}
	if err := n.links.RouteReplace(drop); err != nil {
		return fmt.Errorf("dropping what is sent to %s: %w", h.name, err)
	}
	link, err := n.links.LinkByName(h.name)
	if err != nil {
		return fmt.Errorf("finding the cable of %s: %w", h.name, err)
	}
	if err := n.links.LinkSetDown(link); err != nil {
		return fmt.Errorf("pulling the cable of %s: %w", h.name, err)
	}
	return nil
}

// close kills whatever runs in the namespaces and removes them.
func (n *network) close() error {
	if n.links != nil {
		n.links.Close()
	}
	n.middle.Close()
	for _, h := range n.hosts {
		h.ns.Close()
	}
	return removeNamespaces(n.names)
}

// dial connects from the host h.
func (h *host) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = inside(h.ns, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp4", address)
		return err
	})
	return conn, err
}

// pids are the processes that run in the host.
func (h *host) pids() []int {
	var st unix.Stat_t
	if unix.Fstat(int(h.ns), &st) != nil {
		return nil
	}
	return pidsIn(map[uint64]bool{st.Ino: true})
}

// pidsIn are the processes in any of the namespaces, by their inodes: they are
// all on the one file system that the kernel has for namespaces.
func pidsIn(namespaces map[uint64]bool) (pids []int) {
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

// sweep removes what runs that died have left behind, and returns its names.
func sweep() (swept []string, err error) {
	left := func(pattern string) (names []string) {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			name := filepath.Base(path)
			owner, _, _ := strings.Cut(strings.TrimPrefix(name, namePrefix), "-")
			exe, err := os.Readlink("/proc/" + owner + "/exe")
			if err != nil || !strings.Contains(exe, "e2e.test") {
				names = append(names, name)
			}
		}
		return names
	}
	namespaces := left("/run/netns/" + namePrefix + "*")
	errs := []error{removeNamespaces(namespaces)}
	dirs := left(filepath.Join(os.TempDir(), namePrefix+"*"))
	for _, dir := range dirs {
		errs = append(errs, os.RemoveAll(filepath.Join(os.TempDir(), dir)))
	}
	return append(namespaces, dirs...), errors.Join(errs...)
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

// inside runs f in the network namespace ns.
func inside(ns netns.NsHandle, f func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("entering the namespace: %w", err)
		}
		return f()
	})
}

func hostNet(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

func setUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

func addAddress(h *netlink.Handle, name string, addr netip.Addr) error {
	if err := setUp(h, name); err != nil {
		return err
	}
	link, err := h.LinkByName(name)
	if err == nil {
		err = h.AddrAdd(link, &netlink.Addr{IPNet: hostNet(addr)})
	}
	if err != nil {
		return fmt.Errorf("giving %s the address %s: %w", name, addr, err)
	}
	return nil
}

// addRoute sends what is for dst (or everything, if dst is zero) to the device,
// through via if that is valid.
func addRoute(h *netlink.Handle, device string, dst, via netip.Addr) error {
	link, err := h.LinkByName(device)
	if err != nil {
		return fmt.Errorf("finding %s: %w", device, err)
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index}
	if dst.IsValid() {
		r.Dst, r.Scope = hostNet(dst), netlink.SCOPE_LINK
	} else {
		r.Dst = &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	}
	if err := h.RouteReplace(r); err != nil {
		return fmt.Errorf("routing %s through %s: %w", r.Dst, device, err)
	}
	return nil
}
