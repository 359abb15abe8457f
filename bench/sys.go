package main

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The client and the server are event loops alone in their process, on one
// thread: raw system calls spare them the scheduler's bookkeeping, which
// would come out of the two cores that the proxy needs.

func read(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

func write(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), errno
}

// wait returns the events that came within msec, possibly none; -1 = no limit.
func wait(ep int, events []unix.EpollEvent, msec int) ([]unix.EpollEvent, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(msec), 0, 0)
	switch errno {
	case 0:
		return events[:n], nil
	case unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("waiting for events: %w", errno)
}

// watch registers fd, level-triggered; its events carry tag.
func watch(ep, fd int, events uint32, tag int) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(tag)}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watching a socket: %w", err)
	}
	return nil
}

func sockaddr(addr netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
}

func newSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	return fd, nil
}

// dial returns a connected, blocking socket with Nagle's algorithm off.
func dial(addr *unix.SockaddrInet4) (int, error) {
	fd, err := newSocket()
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err == nil {
		err = unix.Connect(fd, addr)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connecting: %w", err)
	}
	return fd, nil
}

// listen returns a listening, non-blocking socket.
func listen(addr netip.AddrPort) (int, error) {
	fd, err := newSocket()
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err == nil {
		if err = unix.Bind(fd, sockaddr(addr)); err == nil {
			if err = unix.Listen(fd, 4096); err == nil {
				err = unix.SetNonblock(fd, true)
			}
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return fd, nil
}
