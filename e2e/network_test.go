//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"pointsman/netlab"
)

// The network: one namespace per host, and one in the middle that routes. Each
// host has a single address and a single cable to the middle, so between any
// two hosts there is a routed hop, as between the router and its database
// nodes in real life. A host whose cable is pulled is then silent to the
// others; on a shared segment they would get EHOSTUNREACH from failing ARP.

// gateway is the middle's address on every cable; link-local (RFC 3927), as it
// means nothing beyond the cable.
var gateway = netip.MustParseAddr("169.254.0.1")

// labKind begins the names of what a run makes; see netlab.Prefix.
const labKind = "e2e"

type host struct {
	*netlab.Namespace
	name string
	addr netip.Addr
}

type network struct {
	lab    *netlab.Lab
	middle *netlab.Namespace
	hosts  map[string]*host
}

func newNetwork(addrs map[string]netip.Addr) (_ *network, err error) {
	n := &network{lab: netlab.New(labKind), hosts: map[string]*host{}}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.middle, err = n.lab.Namespace("middle"); err != nil {
		return nil, err
	}
	if err := n.middle.Address("lo", only(gateway)); err != nil {
		return nil, err
	}
	if err := n.middle.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return nil, err
	}
	for name, addr := range addrs {
		if err := n.addHost(name, addr); err != nil {
			return nil, fmt.Errorf("adding host %s: %w", name, err)
		}
	}
	return n, nil
}

func (n *network) addHost(name string, addr netip.Addr) error {
	ns, err := n.lab.Namespace(name)
	if err != nil {
		return err
	}
	h := &host{Namespace: ns, name: name, addr: addr}
	n.hosts[name] = h
	if err := n.middle.Cable(name, ns, "eth0"); err != nil {
		return err
	}
	if err := h.Address("eth0", only(addr)); err != nil {
		return err
	}
	if err := h.Route("eth0", only(gateway), netip.Addr{}); err != nil {
		return err
	}
	if err := h.Route("eth0", everywhere, gateway); err != nil {
		return err
	}
	return n.plug(h)
}

// everywhere is what a default route leads to.
var everywhere = netip.MustParsePrefix("0.0.0.0/0")

// only is the network of a single address.
func only(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// plug connects the host, also after unplug.
func (n *network) plug(h *host) error {
	if err := n.middle.SetUp(h.name); err != nil {
		return err
	}
	return n.middle.Route(h.name, only(h.addr), netip.Addr{})
}

// unplug pulls the host's cable, and lets the middle drop what is sent to it
// without an ICMP, as a remote network does.
func (n *network) unplug(h *host) error {
	if err := n.middle.Blackhole(only(h.addr)); err != nil {
		return err
	}
	return n.middle.SetDown(h.name)
}

// close kills whatever runs in the namespaces and removes them.
func (n *network) close() error { return n.lab.Close() }

// dial connects from the host h.
func (h *host) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = h.Inside(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "tcp4", address)
		return err
	})
	return conn, err
}

// pids are the processes that run in the host.
func (h *host) pids() []int { return h.Pids() }
