package main

import (
	"fmt"
	"net/netip"
	"time"
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

// kernelTimespec is __kernel_timespec (linux/time_types.h): alike on all
// architectures, as unix.Timespec is not.
type kernelTimespec struct{ sec, nsec int64 }

// wait returns the events that came within limit, possibly none; less than 0 =
// no limit. The limit is exact where exactTimers was called.
func wait(ep int, events []unix.EpollEvent, limit time.Duration) ([]unix.EpollEvent, error) {
	var timeout *kernelTimespec
	if limit >= 0 {
		timeout = &kernelTimespec{int64(limit / time.Second), int64(limit % time.Second)}
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(timeout)), 0, 0)
	switch errno {
	case 0:
		return events[:n], nil
	case unix.EINTR:
		return nil, nil
	}
	return nil, fmt.Errorf("waiting for events: %w", errno)
}

// exactTimers lets this thread's waits end in time, and not up to 50 us later,
// as is the default (prctl(2), PR_SET_TIMERSLACK).
func exactTimers() error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("making timers exact: %w", err)
	}
	return nil
}

func newEpoll() (int, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("opening epoll: %w", err)
	}
	return ep, nil
}

// watch registers fd, level-triggered; its events carry tag.
func watch(ep, fd int, events uint32, tag int) error {
	return control(ep, unix.EPOLL_CTL_ADD, fd, events, tag)
}

// rewatch changes what fd is watched for.
func rewatch(ep, fd int, events uint32, tag int) error {
	return control(ep, unix.EPOLL_CTL_MOD, fd, events, tag)
}

func control(ep, op, fd int, events uint32, tag int) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(tag)}
	if err := unix.EpollCtl(ep, op, fd, &ev); err != nil {
		return fmt.Errorf("watching a socket: %w", err)
	}
	return nil
}

func sockaddr(addr netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
}

func newSocket(flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	return fd, nil
}

// dial returns a connected, blocking socket with Nagle's algorithm off.
func dial(addr *unix.SockaddrInet4) (int, error) { return dialWith(addr, 0) }

// dialWithoutWaiting returns a non-blocking socket whose connect has begun.
func dialWithoutWaiting(addr *unix.SockaddrInet4) (int, error) {
	return dialWith(addr, unix.SOCK_NONBLOCK)
}

func dialWith(addr *unix.SockaddrInet4, flags int) (int, error) {
	fd, err := newSocket(flags)
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err == nil {
		err = unix.Connect(fd, addr)
	}
	if err != nil && !(err == unix.EINPROGRESS && flags&unix.SOCK_NONBLOCK != 0) {
		unix.Close(fd)
		return -1, fmt.Errorf("connecting: %w", err)
	}
	return fd, nil
}

// listen returns a listening, non-blocking socket.
func listen(addr netip.AddrPort) (int, error) {
	fd, err := newSocket(unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, err
	}
	if err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err == nil {
		if err = unix.Bind(fd, sockaddr(addr)); err == nil {
			err = unix.Listen(fd, 4096)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return fd, nil
}
