package relay

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// A server of which nothing comes back is told of while its session goes on;
// one that lives is not, though it answers nothing or reads nothing.
func TestServerStalls(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds, and root; not with -short")
	}
	if !inNamespace(t) {
		return
	}
	peer := newPeerHost(t)
	r := newRig(t, func(s *setup) { s.listen = "192.0.2.1:0" })
	remote, conns := acceptedOn(t, peer.listen(t))
	r.desk.setRoute(to(remote, 0, 1))
	mute := r.dial()
	await(t, "a server's side", conns)
	busy := r.dial()
	server := await(t, "a server's side", conns)
	ping2(t, busy, server)

	_, _ = io.WriteString(mute, "no answer to that")
	filling := r.dial()
	await(t, "a server's side that reads nothing", conns)
	_ = filling.SetWriteDeadline(time.Now().Add(2 * stalledAfter))
	if _, err := filling.Write(bytes.Repeat([]byte("much "), 16<<20/5)); err == nil {
		t.Error("a server that reads nothing took 16 MiB")
	}
	if n := r.desk.saw(ServerStalled); n != 0 {
		t.Errorf("%d times told of a server that lives", n)
	}

	peer.setLink(t, false)
	begin := time.Now()
	_, _ = io.WriteString(busy, "is anybody there?")
	eventually(t, "ServerStalled", func() bool { return r.desk.saw(ServerStalled) > 0 })
	took := time.Since(begin)
	t.Logf("told after %v", took)
	if took < stalledAfter-stallLook {
		t.Errorf("told after %v", took)
	}
	peer.setLink(t, true)
	wantText(t, server, "is anybody there?") // it went on
}

// The first session of each epoch is told of, once.
func TestFirstSessionIsTold(t *testing.T) {
	r := newRig(t, func(s *setup) { s.Loops = 1 })
	addr := serve(t, echo)
	var clients []*net.TCPConn
	for _, epoch := range []Epoch{4, 4, 5, 4} {
		r.desk.setRoute(to(addr, 3, epoch))
		c := r.dial()
		ping(t, c, "hello")
		clients = append(clients, c)
	}
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	want := []Event{{FirstSession, 3, 4}, {FirstSession, 3, 5}}
	if len(r.desk.firsts) != len(want) || r.desk.firsts[0] != want[0] || r.desk.firsts[1] != want[1] {
		t.Errorf("%d clients, told of %v, want %v", len(clients), r.desk.firsts, want)
	}
}
