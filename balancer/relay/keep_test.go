package relay

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// keptPorts returns the local and remote ports of the sockets whose keepalive
// timer runs.
func keptPorts(t *testing.T) map[[2]uint16]bool {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	kept := map[[2]uint16]bool{}
	for line := range strings.Lines(string(table)) {
		var slot, local, remote, state, tx, rx, timer uint64
		var ports [2]uint16
		// 2 is the keepalive timer: proc(5), and get_tcp4_sock in net/ipv4/tcp_ipv4.c.
		if n, _ := fmt.Sscanf(line, "%d: %x:%x %x:%x %x %x:%x %x:", &slot, &local, &ports[0], &remote, &ports[1], &state, &tx, &rx, &timer); n == 9 && timer == 2 {
			kept[ports] = true
		}
	}
	return kept
}

// Keepalive is switched on when a session is not a short one, on both sides,
// and for a client that waits.
func TestKeepaliveComesLater(t *testing.T) {
	for _, after := range []time.Duration{time.Hour, 10 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			r := newRig(t, func(s *setup) { s.tune.keepAfter = after })
			front := netip.MustParseAddrPort(r.addr).Port()
			ours := func(c net.Conn) [2]uint16 { return [2]uint16{front, portOf(c.LocalAddr())} }
			held := r.dial()
			eventually(t, "keepalive for a held client", func() bool { return keptPorts(t)[ours(held)] })
			_ = held.Close()
			r.desk.ended(t, 1)

			l, conns := accepted(t)
			r.desk.setRoute(to(l, 0, 1))
			c := r.dial()
			server := await(t, "the server's side", conns)
			ping2(t, c, server)
			back := [2]uint16{portOf(server.RemoteAddr()), portOf(server.LocalAddr())}
			if after == time.Hour {
				if kept := keptPorts(t); kept[ours(c)] || kept[back] {
					t.Error("keepalive from the start")
				}
				return
			}
			eventually(t, "keepalive to client and server", func() bool { kept := keptPorts(t); return kept[ours(c)] && kept[back] })
		})
	}
}

func portOf(a net.Addr) uint16 { return a.(*net.TCPAddr).AddrPort().Port() }
