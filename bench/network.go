package main

import (
	"fmt"
	"net/netip"

	"pointsman/netlab"
)

// labKind begins the names of what a run makes; see netlab.Prefix.
const labKind = "bench"

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
	lab      *netlab.Lab
	sites    int
	postgres place
}

func newNetwork() *network { return &network{lab: netlab.New(labKind)} }

// site makes the three namespaces of one proxy.
func (n *network) site(proxy string) (s site, err error) {
	n.sites++
	s.front, s.back, s.postgres = address(lanNet, n.sites, 1), address(serversNet, n.sites, 2), address(postgresNet, n.sites, 2)
	if n.postgres == nil {
		if n.postgres, err = n.lab.Namespace("postgres"); err != nil {
			return s, err
		}
	}
	for _, p := range []struct {
		place *place
		name  string
	}{{&s.lan, "lan"}, {&s.router, "router"}, {&s.servers, "servers"}} {
		if *p.place, err = n.lab.Namespace(proxy + "-" + p.name); err != nil {
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
		if err := set.at.Sysctl(set.key, set.want); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (n *network) close() error { return n.lab.Close() }

// cable joins a host to the router, through which it reaches a network beyond.
func cable(host place, hostEnd string, hostAddr netip.Addr, router place, routerEnd string, routerAddr netip.Addr, reaches netip.Prefix) error {
	if err := router.Cable(routerEnd, host, hostEnd); err != nil {
		return err
	}
	if err := router.Address(routerEnd, netip.PrefixFrom(routerAddr, 24)); err != nil {
		return err
	}
	if err := host.Address(hostEnd, netip.PrefixFrom(hostAddr, 24)); err != nil {
		return err
	}
	return host.Route(hostEnd, reaches, routerAddr)
}
