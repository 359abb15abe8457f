package relay

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pointsman/netlab"
)

// inNamespace runs the calling test again, in a child process with a network
// namespace of its own, and reports whether this is the child.
func inNamespace(t *testing.T) bool {
	if os.Getenv("RELAY_CHILD") != "" {
		return true
	}
	t.Parallel()
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), "RELAY_CHILD=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		child.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	output, err := child.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran && os.Getenv("CI") != "true" {
		t.Skip("no network namespace to be had: ", err)
	}
	if err != nil {
		t.Errorf("the child: %v", err)
	}
	t.Logf("%s", output)
	return false
}

// Local ports run out: that is no word about the server.
func TestOutOfPorts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	if err := hereUp(t).Sysctl("net/ipv4/ip_local_port_range", "40000 40001"); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(s *setup) { s.listen = "127.0.0.1:5000" })
	target := to(serveOn(t, "127.0.0.1:5001", echo), 0, 1)
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		if q.Failures > 0 {
			return Ticket{}, 0
		}
		return target(q)
	})
	var clients []net.Conn
	for i := range 3 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 6000 + i}}
		c, err := d.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
		if i < 2 {
			ping(t, c, "served")
		}
	}
	wantEnd(t, clients[2], false)
	rec := r.desk.ended(t, 1)[0]
	if rec.Cause != Exhausted || rec.Failures != 1 || len(r.desk.seen()) > 0 {
		t.Errorf("record %+v, events %+v", rec, r.desk.seen())
	}
	if text := r.log.String(); !strings.Contains(text, "ip_local_port_range") {
		t.Errorf("no advice: %s", text)
	}
	ping(t, clients[0], "still served")
}

// A peer that vanishes without a FIN while data is on its way to it is found
// by the sweeper; one that is only away for a moment, or idle, is left alone.
func TestPeerVanishes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds, and root; not with -short")
	}
	if !inNamespace(t) {
		return
	}
	peer := newPeerHost(t)
	const silence = 600 * time.Millisecond
	r := newRig(t, func(s *setup) {
		s.Silence = silence
		s.listen = "192.0.2.1:0"
	})
	remote, remoteConns := acceptedOn(t, peer.listen(t))
	local, localConns := accepted(t)

	r.desk.setRoute(to(remote, 0, 1))
	idle, _ := r.dial(), await(t, "a server's side", remoteConns)
	toServer := r.dial()
	server := await(t, "a server's side", remoteConns)
	r.desk.setRoute(to(local, 1, 2))
	client := peer.dial(t, r.addr)
	fromClient := await(t, "a server's side", localConns)
	ping2(t, toServer, server)
	ping2(t, client, fromClient)

	peer.setLink(t, false)
	_, _ = io.WriteString(toServer, "is anybody there?")
	time.Sleep(silence / 3)
	peer.setLink(t, true)
	wantText(t, server, "is anybody there?")

	peer.setLink(t, false)
	begin := time.Now()
	_, _ = io.WriteString(toServer, "and now?")
	_, _ = io.WriteString(fromClient, "and now?")
	if _, err := io.Copy(io.Discard, toServer); err != nil {
		t.Errorf("the client of a server that vanished saw %v", err)
	}
	if _, err := io.Copy(io.Discard, fromClient); err == nil {
		t.Error("the server of a client that vanished saw a clean end")
	}
	took := time.Since(begin)
	t.Logf("found after %v, with a limit of %v", took, silence)
	if took < silence || took > 4*silence {
		t.Errorf("found after %v", took)
	}
	for _, rec := range r.desk.ended(t, 2) {
		if rec.Cause != PeerVanished {
			t.Errorf("cause %d", rec.Cause)
		}
	}
	if r.desk.saw(ServerSilent) != 1 {
		t.Errorf("events %+v", r.desk.seen())
	}
	_ = idle.SetReadDeadline(time.Now())
	if _, err := idle.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Error("an idle session was ended")
	}
}

// peerHost is another network namespace, 192.0.2.2 (RFC 5737) to our 192.0.2.1.
type peerHost struct{ *netlab.Namespace }

func newPeerHost(t *testing.T) peerHost {
	t.Helper()
	far, err := netlab.Unnamed()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(far.Close)
	here := hereUp(t)
	err = errors.Join(
		here.Cable("near", far, "far"),
		here.Address("near", netip.MustParsePrefix("192.0.2.1/24")),
		far.Address("far", netip.MustParsePrefix("192.0.2.2/24")),
	)
	if err != nil {
		t.Fatal(err)
	}
	return peerHost{far}
}

// hereUp is the child's own namespace, with its lo up.
func hereUp(t *testing.T) *netlab.Namespace {
	t.Helper()
	here, err := netlab.Here()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(here.Close)
	if err := here.SetUp("lo"); err != nil {
		t.Fatal(err)
	}
	return here
}

func (h peerHost) listen(t *testing.T) (l net.Listener) {
	t.Helper()
	err := h.Inside(func() (err error) { l, err = net.Listen("tcp", "192.0.2.2:0"); return err })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (h peerHost) dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	var conn net.Conn
	err := h.Inside(func() (err error) {
		// Without fallbacks and cancelling, the dial stays on this thread.
		conn, err = (&net.Dialer{FallbackDelay: -1}).Dial("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(3 * patience))
	return conn.(*net.TCPConn)
}

// setLink pulls the cable, or plugs it in.
func (h peerHost) setLink(t *testing.T, up bool) {
	t.Helper()
	set := h.SetDown
	if up {
		set = h.SetUp
	}
	if err := set("far"); err != nil {
		t.Fatal(err)
	}
	if up { // setting it down has taken the route along
		if err := h.Route("far", netip.MustParsePrefix("192.0.2.0/24"), netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
}
