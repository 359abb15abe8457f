package healthcheck

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// peer is a server on loopback that treats every connection as told.
type peer struct {
	addr  netip.AddrPort
	seen  atomic.Int32 // connections accepted
	ended sync.WaitGroup
}

// serve starts a peer. handle owns the connection; it is closed for it when it
// returns, and under it when the test ends.
func serve(t testing.TB, handle func(net.Conn)) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: netip.MustParseAddrPort(listener.Addr().String())}
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	closing := false
	p.ended.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.seen.Add(1)
			mu.Lock()
			if closing {
				conn.Close()
			} else {
				conns[conn] = true
				p.ended.Go(func() {
					handle(conn)
					conn.Close()
					mu.Lock()
					delete(conns, conn)
					mu.Unlock()
				})
			}
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		closing = true
		for conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		p.ended.Wait()
	})
	return p
}

// readRequest takes an HTTP request off the connection, and returns it.
func readRequest(conn net.Conn) string {
	var text strings.Builder
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		text.WriteString(line)
		if err != nil || line == "\r\n" {
			return text.String()
		}
	}
}

// answer returns a handler that takes a request, sends text and closes.
func answer(text string) func(net.Conn) {
	return func(conn net.Conn) {
		readRequest(conn)
		io.WriteString(conn, text)
	}
}

// stay waits until the other side closes.
func stay(conn net.Conn) { io.Copy(io.Discard, conn) }

// patroni returns Patroni's answer to GET, header and body, as http.server sends it.
func patroni(code int, role, state string, timeline int) string {
	info := map[int]string{200: "OK", 503: "Service Unavailable"}[code]
	return fmt.Sprintf("HTTP/1.0 %d %s\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nDate: Sat, 22 Nov 2025 09:41:00 GMT\r\n"+
		"Content-Type: application/json\r\n\r\n"+
		`{"state": "%s", "postmaster_start_time": "2025-11-22 09:40:10.144+00:00", "role": "%s", "server_version": 170002, `+
		`"xlog": {"location": 67419584}, "timeline": %d, "replication": [{"usename": "replicator", "application_name": "postgres-2", `+
		`"client_addr": "10.100.3.185", "state": "streaming", "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1763804450, `+
		`"database_system_identifier": "7443210312311231231", "patroni": {"version": "4.1.0", "scope": "nocodb-cluster", "name": "postgres-1"}}`,
		code, info, state, role, timeline)
}

// silent returns an address whose packets are dropped: a listener with a full
// backlog answers no SYN (tcp_conn_request in net/ipv4/tcp_input.c).
func silent(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	for range 8 {
		conn, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the backlog does not fill")
	return addr
}

// closed returns an address on which nobody listens.
func closed(t testing.TB) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// probe asks once with that limit, and fails the test if the answer is late.
func probe(t testing.TB, p Prober, addr netip.AddrPort, limit time.Duration) Result {
	t.Helper()
	start := time.Now()
	r := p.Probe(context.Background(), addr, start.Add(limit))
	// Late is measured with room for a loaded machine; what matters is that a
	// peer cannot stretch a probe, which all of them here try for seconds.
	if took := time.Since(start); took > limit+500*time.Millisecond {
		t.Errorf("returned after %v, limit %v: %s", took, limit, r.Reason)
	}
	if r.Class == 0 || r.Reason == "" || r.Took <= 0 {
		t.Errorf("incomplete result %+v", r)
	}
	return r
}
