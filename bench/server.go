package main

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxRead is how much the echo server moves in one call.
	maxRead = 64 << 10
	// bulkChunk is what the bulk server and client move in one call.
	bulkChunk = 256 << 10
	// patternLength is the period of the bulk stream: byte i is i mod 251. A
	// prime, so that a lost or doubled page or segment shifts it.
	patternLength = 251
)

// server is the far end: it echoes what comes, or pours out the pattern.
type server struct {
	ep        int
	listeners map[int]bool
	pour      bool
	buf       []byte // one read, or chunk + period of the pattern
	peers     []peer // by descriptor
}

type peer struct {
	poured  uint64 // bytes sent
	pending []byte // read, and not yet echoed; nothing more is read meanwhile
}

// serve runs a server until the process is ended. what is "echo" or "source";
// args are its address and, where it shall listen on that port and the next
// ones, how many.
func serve(what string, args []string) error {
	at, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	ports := 1
	if len(args) > 1 {
		if ports, err = strconv.Atoi(args[1]); err != nil {
			return err
		}
	}
	s := &server{pour: what == "source", buf: make([]byte, maxRead), listeners: map[int]bool{}}
	if s.pour {
		s.buf = pattern(bulkChunk + patternLength)
	}
	if s.ep, err = newEpoll(); err != nil {
		return err
	}
	for i := range ports {
		fd, err := listen(netip.AddrPortFrom(at.Addr(), at.Port()+uint16(i)))
		if err != nil {
			return err
		}
		s.listeners[fd] = true
		if err := watch(s.ep, fd, unix.EPOLLIN, fd); err != nil {
			return err
		}
	}
	first := 0 // descriptors below are listeners
	for fd := range s.listeners {
		first = max(first, fd+1)
	}
	events := make([]unix.EpollEvent, 256)
	for {
		ready, err := wait(s.ep, events, -1)
		if err != nil {
			return err
		}
		for i := range ready {
			fd := int(ready[i].Fd)
			if fd < first && s.listeners[fd] {
				err = s.accept(fd)
			} else {
				err = s.handle(fd)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (s *server) handle(fd int) error {
	switch {
	case s.pour:
		s.send(fd)
		return nil
	case s.peers[fd].pending != nil:
		return s.flush(fd)
	default:
		return s.echo(fd)
	}
}

func (s *server) accept(listener int) error {
	interest := uint32(unix.EPOLLIN)
	if s.pour {
		interest = unix.EPOLLOUT
	}
	for range 16 {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN || err == unix.ECONNABORTED {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		if err := watch(s.ep, fd, interest, fd); err != nil {
			return err
		}
		for fd >= len(s.peers) {
			s.peers = append(s.peers, peer{})
		}
		s.peers[fd] = peer{}
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
	case errno != 0 && errno != unix.EAGAIN:
		return fmt.Errorf("echoing: %w", errno)
	case errno == unix.EAGAIN || sent < n: // longer than the socket's buffer
		s.peers[fd].pending = append([]byte(nil), s.buf[max(sent, 0):n]...)
		return rewatch(s.ep, fd, unix.EPOLLOUT, fd)
	}
	return nil
}

// flush sends what echo could not.
func (s *server) flush(fd int) error {
	p := &s.peers[fd]
	sent, errno := write(fd, p.pending)
	switch {
	case errno == unix.EAGAIN:
		return nil
	case errno != 0:
		return unix.Close(fd)
	}
	if p.pending = p.pending[sent:]; len(p.pending) > 0 {
		return nil
	}
	p.pending = nil
	return rewatch(s.ep, fd, unix.EPOLLIN, fd)
}

// send fills the socket's buffer, and looks at the others after 16 chunks.
func (s *server) send(fd int) {
	for range 16 {
		from := s.peers[fd].poured % patternLength
		n, errno := write(fd, s.buf[from:from+bulkChunk])
		switch errno {
		case 0:
			s.peers[fd].poured += uint64(n)
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
