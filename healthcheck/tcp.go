package healthcheck

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// TCP passes when the server accepts a connection. It sends nothing, and closes
// with a FIN: PostgreSQL takes that for a port monitor and logs nothing, where
// it would log a reset (src/backend/tcop/backend_startup.c).
type TCP struct{}

// Probe implements Prober.
func (TCP) Probe(ctx context.Context, addr netip.AddrPort, deadline time.Time) Result {
	start := time.Now()
	conn, r := connect(ctx, addr, deadline)
	if conn != nil {
		conn.Close()
		r = Result{Class: Passed, Reason: "Layer4 check passed"}
	}
	r.Took = time.Since(start)
	return r
}

// connect opens a connection on which nothing lasts longer than the deadline.
// conn is nil where that did not work; then r tells why.
func connect(ctx context.Context, addr netip.AddrPort, deadline time.Time) (conn *net.TCPConn, r Result) {
	dialer := net.Dialer{Deadline: deadline, KeepAlive: -1}
	dialer.SetMultipathTCP(false)
	// Not DialTCP: with no local address it binds one (Go 1.26), and bind takes
	// a port for itself alone where connect would share it.
	c, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, fault(layer4, err)
	}
	conn = c.(*net.TCPConn)
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, fault(layer4, err)
	}
	return conn, Result{}
}

// abortWith makes whatever waits on conn return when ctx is cancelled. The
// returned function ends that.
func abortWith(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}
