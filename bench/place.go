package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"pointsman/netlab"
)

// place is a network namespace in which processes run.
type place = *netlab.Namespace

// here is the namespace that we were started in.
var here place

// site is where one proxy is measured: the load comes from the LAN, the proxy
// runs on the router, and the servers are behind it.
type site struct {
	lan, router, servers place
	// Addresses of the router towards the LAN, of the servers and of
	// PostgreSQL; zero on loopback, where each run has some of its own.
	front, back, postgres netip.Addr
}

// portsOfServers is how many ports a run may use at its servers' address:
// half of them for servers, half for their REST API.
const portsOfServers = 2 * maxServers

// addresses returns where the proxy of run n listens, and the first port of
// its servers. No two runs share them: a run shall not find the other's
// sessions in TIME_WAIT.
func (s site) addresses(n int) (listen, target netip.AddrPort, err error) {
	if s.front.IsValid() {
		return netip.AddrPortFrom(s.front, uint16(20_000+n%10_000)),
			netip.AddrPortFrom(s.back, uint16(2000+n%250*portsOfServers)), nil
	}
	if target, err = freeAddress(2 * n); err != nil {
		return
	}
	listen, err = freeAddress(2*n + 1)
	return
}

// freeAddress returns an address of loopback that nobody listens on. Every n
// has a host of its own, so that the ports of one run are free in the next.
func freeAddress(n int) (netip.AddrPort, error) {
	host := netip.AddrFrom4([4]byte{127, byte(64 + os.Getpid()%128), byte(n / 250), byte(1 + n%250)})
	l, err := net.Listen("tcp4", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("looking for a free port: %w", err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	// The servers' ports are the next ones.
	return netip.AddrPortFrom(host, uint16(port)), nil
}

// beyond returns the address n ports further.
func beyond(a netip.AddrPort, n int) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(n))
}
