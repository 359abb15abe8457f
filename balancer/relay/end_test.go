package relay

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

func TestFin(t *testing.T) {
	cases := map[string]struct {
		client, server string
		together       bool
	}{
		"bare":              {"", "", false},
		"with data":         {"bye", "goodbye", false},
		"bare at once":      {"", "", true},
		"with data at once": {"bye", "goodbye", true},
	}
	for name, c := range cases {
		for _, first := range []string{"client", "server"} {
			t.Run(name+" "+first, func(t *testing.T) {
				r := newRig(t)
				l, conns := accepted(t)
				r.desk.setRoute(to(l, 0, 1))
				client := r.dial()
				server := await(t, "the server's side", conns)
				say := func(conn *net.TCPConn, text string) {
					if _, err := io.WriteString(conn, text); err != nil {
						t.Error(err)
					}
					_ = conn.CloseWrite()
				}
				one, other, oneText, otherText := client, server, c.client, c.server
				if first == "server" {
					one, other, oneText, otherText = server, client, c.server, c.client
				}
				say(one, oneText)
				if c.together {
					say(other, otherText)
				}
				wantText(t, other, oneText)
				wantEnd(t, other, false)
				if !c.together {
					say(other, otherText)
				}
				wantText(t, one, otherText)
				wantEnd(t, one, false)
				if rec := r.desk.ended(t, 1)[0]; rec.Cause != Normal {
					t.Errorf("cause %d", rec.Cause)
				}
				if n := r.desk.saw(ServerClosed); !c.together && (n == 1) != (first == "server") {
					t.Errorf("ServerClosed was told %d times", n)
				}
			})
		}
	}
}

// 16 MB are on their way to a reader that has stalled when the sender closes.
func TestFinBehindStalledReader(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			r := newRig(t)
			l, conns := accepted(t)
			r.desk.setRoute(to(l, 0, 1))
			from := r.dial()
			reader := await(t, "the server's side", conns)
			if side == "client" {
				from, reader = reader, from
			}
			const size = 16 << 20
			sent := make(chan error, 1)
			go func() {
				err := sendStream(from, 7, size)
				_ = from.Close()
				sent <- err
			}()
			select {
			case err := <-sent: // the buffers on the way took it all
				sent <- err
			case <-time.After(200 * time.Millisecond):
			}
			if err := wantStream(reader, 7, size); err != nil {
				t.Error(err)
			}
			if err := await(t, "all sent", sent); err != nil {
				t.Error(err)
			}
			_ = reader.Close()
			if rec := r.desk.ended(t, 1)[0]; rec.In+rec.Out != size {
				t.Errorf("counted %d and %d", rec.In, rec.Out)
			}
		})
	}
}

func TestHalfCloseThenTenMegabytesBack(t *testing.T) {
	const size = 10 << 20
	r := newRig(t)
	done := make(chan error, 1)
	r.desk.setRoute(to(serve(t, func(c *net.TCPConn) {
		if _, err := io.Copy(io.Discard, c); err != nil {
			done <- err
			return
		}
		done <- sendStream(c, 3, size)
	}), 0, 1))
	c := r.dial()
	_, _ = io.WriteString(c, "all that I have to say")
	_ = c.CloseWrite()
	if err := wantStream(c, 3, size); err != nil {
		t.Error(err)
	}
	if err := await(t, "the server's end", done); err != nil {
		t.Error(err)
	}
}

func TestReset(t *testing.T) {
	cases := map[string]struct {
		byServer bool
		active   bool // while it is sending
		cause    Cause
	}{
		"client idle":   {false, false, ClientAborted},
		"client active": {false, true, ClientAborted},
		"server idle":   {true, false, ServerAborted},
		"server active": {true, true, ServerAborted},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			l, conns := accepted(t)
			r.desk.setRoute(to(l, 0, 1))
			one := r.dial()
			other := await(t, "the server's side", conns)
			if c.byServer {
				one, other = other, one
			}
			var wg sync.WaitGroup
			if c.active {
				wg.Go(func() { _ = sendStream(one, 1, 1<<40) })
				_, _ = io.CopyN(io.Discard, other, 1<<20)
			} else {
				_, _ = io.WriteString(one, "hello")
				wantText(t, other, "hello")
			}
			_ = one.SetLinger(0)
			_ = one.Close()
			if _, err := io.Copy(io.Discard, other); err == nil {
				t.Error("the other side saw a clean end")
			}
			wg.Wait()
			if rec := r.desk.ended(t, 1)[0]; rec.Cause != c.cause {
				t.Errorf("cause %d, want %d", rec.Cause, c.cause)
			}
			if n := r.desk.saw(ServerReset); (n == 1) != c.byServer {
				t.Errorf("ServerReset was told %d times", n)
			}
		})
	}
}

// A server says why it ends, and closes while the client's last words are
// unread, so its kernel sends an RST. The client must still read why.
func TestLastWordsBeforeReset(t *testing.T) {
	r := newRig(t)
	l, conns := accepted(t)
	r.desk.setRoute(to(l, 0, 1))
	for range 20 {
		c := r.dial()
		s := await(t, "the server's side", conns)
		_, _ = io.WriteString(c, "unread")
		_, _ = io.ReadFull(s, make([]byte, 1))
		_, _ = io.WriteString(s, "FATAL: the reason")
		_ = s.Close()
		wantText(t, c, "FATAL: the reason")
		if _, err := io.Copy(io.Discard, c); err == nil {
			t.Error("a reset became a clean end")
		}
	}
}
