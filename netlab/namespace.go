package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is one network namespace: a host, or a router. A nil one is the
// namespace that the process was started in, for Inside alone.
type Namespace struct {
	Name  string // "" = `ip netns` does not know it
	ns    netns.NsHandle
	links *netlink.Handle
}

// Here is the namespace of the calling thread.
func Here() (n *Namespace, err error) {
	n = &Namespace{}
	if n.ns, err = netns.Get(); err != nil {
		return nil, fmt.Errorf("looking where we are: %w", err)
	}
	return n, n.open()
}

// Unnamed makes a namespace that lasts until it is closed and nobody is in it.
func Unnamed() (*Namespace, error) {
	n := &Namespace{}
	err := andBack(func() (err error) {
		n.ns, err = netns.New()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("making a namespace: %w", err)
	}
	return n, n.open()
}

// open is the end of each constructor; where it fails, nothing stays open.
func (n *Namespace) open() (err error) {
	if n.links, err = netlink.NewHandleAt(n.ns); err != nil {
		n.ns.Close()
		return fmt.Errorf("opening netlink: %w", err)
	}
	return nil
}

// Close gives the descriptors back, and may be called again.
func (n *Namespace) Close() {
	if n.ns.IsOpen() {
		n.links.Close()
		n.ns.Close()
	}
}

// Inside runs f on a thread that is in the namespace meanwhile. f must stay on
// it: what it starts with `go` runs elsewhere.
func (n *Namespace) Inside(f func() error) error {
	if n == nil {
		return f()
	}
	return andBack(func() error {
		if err := netns.Set(n.ns); err != nil {
			return fmt.Errorf("entering namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// andBack runs f, which changes the thread's namespace, and brings the thread
// back. (To throw it away would not do: the process's first thread stays, and
// stands for the whole process in /proc.)
func andBack(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("looking where we are: %w", err)
	}
	defer home.Close()
	failed := f()
	if err := netns.Set(home); err != nil {
		// The thread stays locked: nobody else shall find himself elsewhere.
		return fmt.Errorf("coming back to our own namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return failed
}

// Pids are the processes that run in the namespace.
func (n *Namespace) Pids() []int {
	var st unix.Stat_t
	if unix.Fstat(int(n.ns), &st) != nil {
		return nil
	}
	return pidsIn(map[uint64]bool{st.Ino: true})
}

// Sysctl sets a key of /proc/sys, as "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(key, value string) error {
	err := n.Inside(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("setting %s of %s: %w", key, n.Name, err)
	}
	return nil
}

// Cable joins the namespace to another by a veth pair, whose ends are down.
func (n *Namespace) Cable(end string, far *Namespace, farEnd string) error {
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: end}, PeerName: farEnd, PeerNamespace: netlink.NsFd(int(far.ns))}
	if err := n.links.LinkAdd(cable); err != nil {
		return fmt.Errorf("making the cable %s to %s of %s: %w", end, farEnd, far.Name, err)
	}
	return nil
}

// SetUp turns a device on.
func (n *Namespace) SetUp(device string) error {
	if err := n.device(device, n.links.LinkSetUp); err != nil {
		return fmt.Errorf("turning %s of %s on: %w", device, n.Name, err)
	}
	return nil
}

// SetDown turns a device off. The cable's other end loses its carrier; this one
// also its routes, which SetUp does not bring back.
func (n *Namespace) SetDown(device string) error {
	if err := n.device(device, n.links.LinkSetDown); err != nil {
		return fmt.Errorf("turning %s of %s off: %w", device, n.Name, err)
	}
	return nil
}

// device does something with the device of a name.
func (n *Namespace) device(name string, do func(netlink.Link) error) error {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return err
	}
	return do(link)
}

// Address turns a device on and gives it an address, and the route to the
// network that the address is in.
func (n *Namespace) Address(device string, addr netip.Prefix) error {
	err := n.device(device, func(link netlink.Link) error {
		if err := n.links.AddrAdd(link, &netlink.Addr{IPNet: ipNet(addr), Flags: unix.IFA_F_NOPREFIXROUTE}); err != nil {
			return err
		}
		return n.links.LinkSetUp(link)
	})
	if err != nil {
		return fmt.Errorf("giving %s of %s the address %s: %w", device, n.Name, addr, err)
	}
	if addr.IsSingleIP() {
		return nil
	}
	return n.Route(device, addr.Masked(), netip.Addr{})
}

// CongestionControl is what Linux and OpenWrt have without being asked. A
// namespace may not choose it, but its routes may, and ours do.
const CongestionControl = "cubic"

// Route sends what is for a network to the device, through via if that is
// valid; it replaces an earlier route there.
func (n *Namespace) Route(device string, to netip.Prefix, via netip.Addr) error {
	err := n.device(device, func(link netlink.Link) error {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to), Congctl: CongestionControl}
		if via.IsValid() {
			route.Gw = via.AsSlice()
		} else {
			route.Scope = netlink.SCOPE_LINK
		}
		return n.links.RouteReplace(route)
	})
	if err != nil {
		return fmt.Errorf("giving %s a route to %s: %w", n.Name, to, err)
	}
	return nil
}

// Blackhole drops what is for a network without a word, as a remote network
// does; Route ends it.
func (n *Namespace) Blackhole(to netip.Prefix) error {
	if err := n.links.RouteReplace(&netlink.Route{Dst: ipNet(to), Type: unix.RTN_BLACKHOLE}); err != nil {
		return fmt.Errorf("letting %s drop what is for %s: %w", n.Name, to, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
