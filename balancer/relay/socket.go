package relay

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Every call here is on a non-blocking descriptor and cannot block, so the raw
// form is right: the ordinary one tells Go's scheduler, which then may take the
// loop's processor away in the middle of a batch. A call that could block would
// stall the garbage collector.

const (
	// Keepalive finds a peer that vanished while nothing was in flight; with
	// data in flight it is silent, and the sweeper looks.
	clientKeepIdle, clientKeepInterval, clientKeepCount = 60, 10, 6 // s, s
	serverKeepIdle, serverKeepInterval, serverKeepCount = 15, 5, 3  // s, s

	defaultBacklog = 4096 // Linux's default of somaxconn since 5.4
)

// endpoint is a netip.AddrPort without pointers, for the slabs.
type endpoint struct {
	ip    [16]byte // IPv4 as ::ffff:a.b.c.d
	scope uint32   // index of the interface, for link-local IPv6 addresses
	port  uint16
	v4    bool
}

func packEndpoint(a netip.AddrPort) endpoint {
	ip := a.Addr()
	return endpoint{ip: ip.As16(), port: a.Port(), v4: ip.Is4() || ip.Is4In6(), scope: scopeOf(ip.Zone())}
}

// scopeOf finds an interface's index by its name or number; 0 if there is none.
func scopeOf(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

func (e endpoint) addrPort() netip.AddrPort {
	ip := netip.AddrFrom16(e.ip)
	if e.v4 {
		ip = ip.Unmap()
	} else if e.scope != 0 {
		ip = ip.WithZone(strconv.FormatUint(uint64(e.scope), 10))
	}
	return netip.AddrPortFrom(ip, e.port)
}

func (e endpoint) family() int {
	if e.v4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// sockaddr writes the kernel's form into sa, which is large enough for both
// families, and returns its length.
func (e endpoint) sockaddr(sa *unix.RawSockaddrInet6) uintptr {
	if e.v4 {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapPort(e.port)}
		copy(sa4.Addr[:], e.ip[12:])
		return unix.SizeofSockaddrInet4
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapPort(e.port), Addr: e.ip, Scope_id: e.scope}
	return unix.SizeofSockaddrInet6
}

func endpointOf(sa *unix.RawSockaddrInet6) endpoint {
	if sa.Family == unix.AF_INET {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		e := endpoint{ip: [16]byte{10: 0xff, 11: 0xff}, port: swapPort(sa4.Port), v4: true}
		copy(e.ip[12:], sa4.Addr[:])
		return e
	}
	e := endpoint{ip: sa.Addr, port: swapPort(sa.Port), scope: sa.Scope_id}
	e.v4 = netip.AddrFrom16(e.ip).Is4In6()
	return e
}

// swapPort turns a port into network byte order or back, on either endian.
func swapPort(p uint16) uint16 {
	var native uint16
	b := (*[2]byte)(unsafe.Pointer(&native))
	b[0], b[1] = byte(p>>8), byte(p)
	return native
}

// Most of these are inherited by accepted sockets, and so are set once here
// instead of once per client.
var listenerOptions = []struct {
	level, name, value int
	v6, optional       bool
}{
	{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR, value: 1},
	{level: unix.IPPROTO_TCP, name: unix.TCP_NODELAY, value: 1},
	{level: unix.SOL_SOCKET, name: unix.SO_OOBINLINE, value: 1},               // urgent bytes stay in the stream
	{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPIDLE, value: clientKeepIdle}, // for when keep switches it on
	{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPINTVL, value: clientKeepInterval},
	{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPCNT, value: clientKeepCount},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_V6ONLY, value: 1, v6: true},
	// An address that the router does not have yet: VRRP, a slow interface.
	{level: unix.IPPROTO_IP, name: unix.IP_FREEBIND, value: 1, optional: true},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_FREEBIND, value: 1, v6: true, optional: true}, // from Linux 4.15
}

// listenTCP opens a listening socket.
func listenTCP(addr netip.AddrPort) (fd int32, err error) {
	at := packEndpoint(addr)
	fd, errno := socketTCP(at.family())
	if errno != 0 {
		return -1, errno
	}
	for _, o := range listenerOptions {
		if o.v6 && at.v4 {
			continue
		}
		if errno := setsockopt(fd, o.level, o.name, o.value); errno != 0 && !o.optional {
			closeFD(fd)
			return -1, os.NewSyscallError("setsockopt", errno)
		}
	}
	var sa unix.RawSockaddrInet6
	size := at.sockaddr(&sa)
	if _, _, errno = syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size); errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_LISTEN, uintptr(fd), uintptr(backlog()), 0)
	}
	if errno != 0 {
		closeFD(fd)
		return -1, errno
	}
	return fd, nil
}

// backlog is as long as the kernel lets it be.
func backlog() int {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return defaultBacklog
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n <= 0 {
		return defaultBacklog
	}
	return n
}

func localAddr(fd int32) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, fmt.Errorf("getsockname: %w", errno)
	}
	return endpointOf(&sa).addrPort(), nil
}

// socketTCP opens a socket that is TCP by name: protocol 0 may give MPTCP,
// which sockmap refuses.
func socketTCP(family int) (int32, unix.Errno) {
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(family),
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errno != 0 {
		return -1, errno
	}
	return int32(fd), 0
}

// keep prepares a session for a long life, when it has proved not to be a short
// one: those would pay for options and timers that nobody needs. It switches
// keepalive on, and has the kernel reset the connections should the daemon be
// killed: a FIN would make a stream that was cut short look whole, and leave a
// server with a half-open session.
func (l *loop) keep(s *session) {
	if c := &s.side[clientSide]; !c.is(kept) {
		c.set(kept)
		setsockopt(c.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		setLinger(c.fd, reset)
	}
	if v := &s.side[serverSide]; v.fd >= 0 && !v.is(kept) {
		v.set(kept)
		setsockopt(v.fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, serverKeepIdle)
		setsockopt(v.fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, serverKeepInterval)
		setsockopt(v.fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, serverKeepCount)
		setsockopt(v.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		setLinger(v.fd, reset)
	}
}

// connectFD starts a connect to a server. EINPROGRESS is its usual answer.
func connectFD(fd int32, to endpoint) unix.Errno {
	setsockopt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	var sa unix.RawSockaddrInet6
	size := to.sockaddr(&sa)
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), size)
	return errno
}

func accept(listener int32) (fd int32, from endpoint, errno unix.Errno) {
	var sa unix.RawSockaddrInet6
	size := uint32(unsafe.Sizeof(sa))
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, endpoint{}, errno
	}
	return int32(n), endpointOf(&sa), 0
}

func setsockopt(fd int32, level, name, value int) unix.Errno {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return errno
}

// socketError fetches and clears SO_ERROR.
func socketError(fd int32) unix.Errno {
	var v int32
	size := uint32(unsafe.Sizeof(v))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Errno(v)
}

// tcpInfo reports false if the kernel does not tell.
func tcpInfo(fd int32, info *unix.TCPInfo) bool {
	size := uint32(unsafe.Sizeof(*info))
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && size >= uint32(unsafe.Offsetof(info.Pmtu))
}

// recv returns n > 0, or 0 at the peer's FIN, or an error.
func recv(fd int32, b []byte) (n int, errno unix.Errno) {
	for {
		r, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
		if errno == 0 {
			return int(r), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// peek is recv, but what it returns stays to be read.
func peek(fd int32, b []byte) (n int, errno unix.Errno) {
	r, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_PEEK, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// send may take less than all of b.
func send(fd int32, b []byte) (n int, errno unix.Errno) {
	for {
		r, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(r), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// spliceFD moves up to n bytes. MORE is never set: it would hold the last bytes
// of a burst back for 200 ms.
func spliceFD(from, to int32, n int) (int, unix.Errno) {
	for {
		r, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if errno == 0 {
			return int(r), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func shutdownWrite(fd int32) {
	syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
}

func closeFD(fd int32) {
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
}

// setLinger says what a close does: FIN behind what was written, or RST at once,
// by which what is not sent yet is dropped.
func setLinger(fd int32, how closing) {
	var linger unix.Linger
	if how == reset {
		linger.Onoff = 1 // for 0 s
	}
	syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0)
}
