package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage is the largest ping-pong message. Each side has one message
	// on its way at most, and a fresh socket's buffer takes as much.
	maxMessage = 16 << 10
	// bulkChunk is what the bulk server and client move in one call.
	bulkChunk = 256 << 10
	// patternLength is the period of the bulk stream: byte i is i mod 251. A
	// prime, so that a lost or doubled page or segment shifts it.
	patternLength = 251
)

// server is the far end: it echoes what comes, or pours out the pattern.
type server struct {
	ep, listener int
	pour         bool
	buf          []byte   // one message, or chunk + period of the pattern
	poured       []uint64 // by descriptor: bytes sent
}

// serve runs a server until the process is ended. what is "echo" or "source".
func serve(what, addr string) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	s := &server{pour: what == "source", buf: make([]byte, maxMessage)}
	if s.pour {
		s.buf = pattern(bulkChunk + patternLength)
	}
	if s.listener, err = listen(at); err != nil {
		return err
	}
	if s.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("opening epoll: %w", err)
	}
	if err := watch(s.ep, s.listener, unix.EPOLLIN, s.listener); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 256)
	for {
		ready, err := wait(s.ep, events, -1)
		if err != nil {
			return err
		}
		for i := range ready {
			if err := s.handle(int(ready[i].Fd)); err != nil {
				return err
			}
		}
	}
}

func (s *server) handle(fd int) error {
	switch {
	case fd == s.listener:
		return s.accept()
	case s.pour:
		s.send(fd)
		return nil
	default:
		return s.echo(fd)
	}
}

func (s *server) accept() error {
	interest := uint32(unix.EPOLLIN)
	if s.pour {
		interest = unix.EPOLLOUT
	}
	for range 16 {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN || err == unix.ECONNABORTED {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		if err := watch(s.ep, fd, interest, fd); err != nil {
			return err
		}
		for fd >= len(s.poured) {
			s.poured = append(s.poured, 0)
		}
		s.poured[fd] = 0
	}
	return nil
}

func (s *server) echo(fd int) error {
	n, errno := read(fd, s.buf)
	if errno == unix.EAGAIN {
		return nil
	}
	if errno != 0 || n == 0 {
		return unix.Close(fd)
	}
	switch sent, errno := write(fd, s.buf[:n]); {
	case errno == unix.EPIPE || errno == unix.ECONNRESET:
		return unix.Close(fd)
	case errno != 0 || sent != n:
		return fmt.Errorf("echoing %d bytes: %d sent, %v", n, sent, errno)
	}
	return nil
}

// send fills the socket's buffer, and looks at the others after 16 chunks.
func (s *server) send(fd int) {
	for range 16 {
		from := s.poured[fd] % patternLength
		n, errno := write(fd, s.buf[from:from+bulkChunk])
		switch errno {
		case 0:
			s.poured[fd] += uint64(n)
		case unix.EAGAIN:
			return
		default:
			unix.Close(fd)
			return
		}
	}
}

// pattern returns the first n bytes of the bulk stream.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i % patternLength)
	}
	return p
}
