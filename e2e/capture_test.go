//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// packet is one TCP segment that passed the cable of a node, to or from its
// SQL or REST port.
type packet struct {
	at      time.Time
	node    *member
	toNode  bool
	peer    netip.AddrPort // the other end
	port    uint16         // the node's: 5432 or 8008
	flags   byte
	payload int
	status  int // of an HTTP answer; 0 = none
}

const (
	flagSYN = 0x02 // RFC 9293, 3.1
	flagRST = 0x04
)

// capture sees every packet on the cables of the nodes, in the middle.
type capture struct {
	fds  []int
	mu   sync.Mutex
	seen []packet
	done sync.WaitGroup
}

func newCapture(n *network, nodes []*member) (*capture, error) {
	c := &capture{}
	for _, m := range nodes {
		var fd int
		err := n.middle.Inside(func() (err error) {
			fd, err = openTap(m.name)
			return err
		})
		if err != nil {
			c.close()
			return nil, fmt.Errorf("listening on the cable of %s: %w", m.name, err)
		}
		c.fds = append(c.fds, fd)
		c.done.Go(func() { c.read(fd, m) })
	}
	return c, nil
}

func openTap(device string) (fd int, err error) {
	const all = uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8 // in network byte order
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	var link int
	ifr, err := unix.NewIfreq(device)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
		link = int(ifr.Uint32())
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}
	if err == nil {
		// A short wait, so that close is noticed.
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link})
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

func (c *capture) read(fd int, m *member) {
	data, oob := make([]byte, 256), make([]byte, 128)
	for {
		n, oobn, _, from, err := unix.Recvmsg(fd, data, oob, unix.MSG_TRUNC)
		switch err {
		case nil:
		case unix.EAGAIN, unix.EINTR, unix.ENETDOWN: // the last: the cable was pulled
			c.mu.Lock()
			closed := c.fds == nil
			c.mu.Unlock()
			if closed {
				unix.Close(fd)
				return
			}
			continue
		default:
			return
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		p, ok := parse(data[:min(n, len(data))], n, link.Pkttype == unix.PACKET_OUTGOING)
		if !ok {
			continue
		}
		p.at, p.node = timestamp(oob[:oobn]), m
		c.mu.Lock()
		c.seen = append(c.seen, p)
		c.mu.Unlock()
	}
}

// parse takes an IPv4 packet of which data is the beginning, and length the
// whole. Segments that are not about the node's two ports are left out.
func parse(data []byte, length int, toNode bool) (p packet, ok bool) {
	if len(data) < 20 || data[0]>>4 != 4 || data[9] != unix.IPPROTO_TCP {
		return p, false
	}
	length = min(length, int(binary.BigEndian.Uint16(data[2:])))
	head := int(data[0]&15) * 4
	if len(data) < head+20 {
		return p, false
	}
	tcp := data[head:]
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[12:16])), binary.BigEndian.Uint16(tcp))
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte(data[16:20])), binary.BigEndian.Uint16(tcp[2:]))
	local, peer := src, dst
	if toNode {
		local, peer = dst, src
	}
	if local.Port() != sqlPort && local.Port() != restPort {
		return p, false
	}
	tcpHead := int(tcp[12]>>4) * 4
	p = packet{toNode: toNode, peer: peer, port: local.Port(), flags: tcp[13], payload: length - head - tcpHead}
	if p.port == restPort && !toNode && len(tcp) >= tcpHead+12 && string(tcp[tcpHead:tcpHead+5]) == "HTTP/" {
		code := tcp[tcpHead+9:] // after "HTTP/1.0 "
		p.status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	}
	return p, true
}

// timestamp is when the kernel saw the packet.
func timestamp(oob []byte) time.Time {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// between returns what passed between two moments, in the order of time per node.
func (c *capture) between(from, to time.Time) (list []packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.seen {
		if !p.at.Before(from) && !p.at.After(to) {
			list = append(list, p)
		}
	}
	return list
}

// reset forgets what was seen.
func (c *capture) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = c.seen[:0]
}

// dropped is how many packets the kernel could not show us since the last call.
func (c *capture) dropped() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.fds {
		if stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			n += int(stats.Drops)
		}
	}
	return n
}

func (c *capture) close() {
	c.mu.Lock()
	c.fds = nil
	c.mu.Unlock()
	c.done.Wait()
}
