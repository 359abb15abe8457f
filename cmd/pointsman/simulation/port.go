package simulation

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Mode is what a port does to those who come.
type Mode uint8

// The modes.
const (
	Open   Mode = iota // it serves
	Closed             // connects are refused, and its connections were ended
	Frozen             // no connect is answered, and nothing on its connections
)

// Reserve returns an address of 127.0.0.1 whose port nobody else is given, as
// a listener's or as a client's, until release is called. Nothing listens
// there yet; whoever does must set SO_REUSEADDR.
func Reserve() (addr netip.AddrPort, release func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return addr, nil, os.NewSyscallError("socket", err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return addr, nil, fmt.Errorf("reserving a port: %w", err)
	}
	in4 := bound.(*unix.SockaddrInet4)
	addr = netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port))
	return addr, func() { unix.Close(fd) }, nil
}

// port is one TCP port that its node keeps for its whole life, whether
// anything listens there or not.
type port struct {
	addr      netip.AddrPort
	unreserve func()
	serve     func(*port, net.Conn) // on a goroutine of its own; the port closes the connection
	running   sync.WaitGroup        // accept loops and connections

	mu     sync.Mutex
	mode   Mode
	ln     *net.TCPListener      // nil while Closed
	conns  map[net.Conn]struct{} // those being served
	frozen chan struct{}         // closed when Frozen ends; nil otherwise
	plugs  []net.Conn            // while Frozen: they fill the kernel's queue
}

// newPort reserves a port, Closed.
func newPort(serve func(*port, net.Conn)) (*port, error) {
	addr, unreserve, err := Reserve()
	if err != nil {
		return nil, err
	}
	return &port{addr: addr, unreserve: unreserve, serve: serve, mode: Closed, conns: map[net.Conn]struct{}{}}, nil
}

// release closes the port, waits for its goroutines, and gives up the number.
func (p *port) release() {
	p.set(Closed)
	p.running.Wait()
	p.unreserve()
}

// set changes the mode. Calls must not overlap.
func (p *port) set(mode Mode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if mode == p.mode {
		return nil
	}
	p.mode = mode
	if mode == Closed {
		p.closeLocked()
		return nil
	}
	if p.ln == nil {
		if err := p.listenLocked(); err != nil {
			return err
		}
	}
	if mode == Frozen {
		return p.freezeLocked()
	}
	return p.thawLocked()
}

func (p *port) listenLocked() error {
	ln, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(p.addr))
	if err != nil {
		return err
	}
	p.ln = ln
	p.running.Go(func() { p.accept(ln) })
	return nil
}

func (p *port) closeLocked() {
	p.unplugLocked()
	p.ln.Close()
	p.ln = nil
	for conn := range p.conns {
		conn.Close()
	}
}

// freezeLocked makes the kernel drop further SYNs: the accept loop stops, and
// the queue, made as short as can be, is filled.
func (p *port) freezeLocked() error {
	p.frozen = make(chan struct{})
	p.ln.SetDeadline(time.Unix(1, 0))
	// With a backlog of 0 one connection still fits (sk_acceptq_is_full).
	if err := p.backlog(0); err != nil {
		return err
	}
	for {
		conn, err := net.DialTimeout("tcp4", p.addr.String(), 50*time.Millisecond)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return nil // full
		}
		if err != nil {
			return err
		}
		p.plugs = append(p.plugs, conn)
	}
}

func (p *port) thawLocked() error {
	p.unplugLocked()
	p.ln.SetDeadline(time.Time{})
	return p.backlog(unix.SOMAXCONN)
}

func (p *port) unplugLocked() {
	if p.frozen == nil {
		return
	}
	close(p.frozen)
	p.frozen = nil
	for _, conn := range p.plugs {
		conn.Close()
	}
	p.plugs = nil
}

func (p *port) backlog(n int) error {
	raw, err := p.ln.SyscallConn()
	if err != nil {
		return err
	}
	var listenErr error
	err = raw.Control(func(fd uintptr) { listenErr = unix.Listen(int(fd), n) })
	return errors.Join(err, os.NewSyscallError("listen", listenErr))
}

func (p *port) accept(ln *net.TCPListener) {
	for {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			p.admit(ln, conn)
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.awake()
		default:
			return // closed
		}
	}
}

func (p *port) admit(ln *net.TCPListener, conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln != ln {
		conn.Close()
		return
	}
	p.conns[conn] = struct{}{}
	p.running.Go(func() {
		p.serve(p, conn)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, conn)
		conn.Close()
	})
}

// awake waits until the port is not frozen.
func (p *port) awake() {
	p.mu.Lock()
	frozen := p.frozen
	p.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}
