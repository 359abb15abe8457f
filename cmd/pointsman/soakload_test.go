package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The ways in which a short session goes and ends.
const (
	clientCloses byte = iota // after the answer
	serverCloses             // after its answer
	clientResets             // after the answer
	serverResets             // instead of an answer
	halfClose                // the client's FIN comes first, then the answer
	sayNothing               // the client closes at once
	waysToEnd
)

// The servers of a soak, and the networks of its clients: a pair of addresses
// has only 28,000 ports for connections within the minute of a TIME_WAIT.
const (
	soakServers = 16
	soakSources = 250
)

// soakHead is what a client says first: the way, how many bytes follow, and
// how many it wants back.
type soakHead struct {
	Way       byte
	Sent, Got uint32 // Got is never 0, so a client that resets knows that all was read
}

// soakLoad is the clients and the servers of a soak.
type soakLoad struct {
	t         *testing.T
	target    string
	servers   []net.Listener
	running   sync.WaitGroup
	large     bool         // one in a hundred is a large one, to be spliced
	next      atomic.Int64 // number of a session
	sent, got atomic.Int64 // by clients
	in        atomic.Int64 // by servers
}

func newSoakLoad(t *testing.T, large bool) *soakLoad {
	l := &soakLoad{t: t, large: large}
	for i := range soakServers {
		ln, err := net.Listen("tcp4", fmt.Sprintf("127.1.0.%d:0", i+1))
		if err != nil {
			t.Fatal(err)
		}
		l.servers = append(l.servers, ln)
		l.running.Go(func() { l.accept(ln) })
	}
	t.Cleanup(func() {
		for _, ln := range l.servers {
			ln.Close()
		}
		l.running.Wait()
	})
	return l
}

// uci is the servers' part of a configuration.
func (l *soakLoad) uci() string {
	var b strings.Builder
	for i, ln := range l.servers {
		fmt.Fprintf(&b, "config server 's%d'\n\toption backend 'bk'\n\toption address '%s'\n", i, ln.Addr())
	}
	return b.String()
}

func (l *soakLoad) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() {
			defer c.Close()
			if err := l.serve(c.(*net.TCPConn)); err != nil {
				l.t.Error("a server: ", err)
			}
		})
	}
}

// run plays sessions up to that number, and returns when all have ended.
func (l *soakLoad) run(upTo int64) {
	var clients sync.WaitGroup
	for range 48 {
		clients.Go(func() {
			for !l.t.Failed() {
				n := l.next.Add(1)
				if n > upTo {
					l.next.Add(-1)
					return
				}
				if err := l.session(n); err != nil {
					l.t.Errorf("session %d: %v", n, err)
				}
			}
		})
	}
	clients.Wait()
}

// session is a client's life.
func (l *soakLoad) session(number int64) error {
	random := rand.New(rand.NewPCG(uint64(number), 7))
	head := soakHead{byte(random.IntN(int(waysToEnd))), uint32(random.IntN(2000)), 1 + uint32(random.IntN(2000))}
	if l.large && random.IntN(100) == 0 {
		head.Sent, head.Got = 300_000*uint32(random.IntN(4)), 1+300_000*uint32(random.IntN(4))
	}
	from := net.TCPAddr{IP: net.IPv4(127, 2, byte(number/soakSources%soakSources), byte(1+number%soakSources))}
	conn, err := (&net.Dialer{LocalAddr: &from, Control: reuse}).Dial("tcp4", l.target)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if head.Way == sayNothing {
		return nil
	}
	if err := l.say(c, head); err != nil {
		return fmt.Errorf("way %d: %w", head.Way, err)
	}
	if head.Way == halfClose {
		c.CloseWrite()
	}
	n, err := io.CopyN(io.Discard, c, int64(head.Got))
	l.got.Add(n)
	switch head.Way {
	case clientResets:
		c.SetLinger(0)
	case serverResets:
		if errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		return fmt.Errorf("a reset became %v", err)
	case serverCloses, halfClose:
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err == io.EOF && n == int64(head.Got) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("way %d, after %d of %d bytes: %w", head.Way, n, head.Got, err)
	}
	return nil
}

// reuse lets others listen on a client's port at all addresses, which else could
// not be had before the end of its TIME_WAIT.
func reuse(_, _ string, c syscall.RawConn) (err error) {
	control := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	})
	return errors.Join(control, err)
}

// say sends a head and what follows it.
func (l *soakLoad) say(c net.Conn, head soakHead) error {
	b := make([]byte, 9+head.Sent)
	b[0] = head.Way
	binary.BigEndian.PutUint32(b[1:], head.Sent)
	binary.BigEndian.PutUint32(b[5:], head.Got)
	n, err := c.Write(b)
	l.sent.Add(int64(n))
	return err
}

// serve is a server's part of a session.
func (l *soakLoad) serve(c *net.TCPConn) error {
	c.SetDeadline(time.Now().Add(30 * time.Second))
	var head soakHead
	if err := binary.Read(c, binary.BigEndian, &head); err == io.EOF {
		return nil // it said nothing
	} else if err != nil {
		return err
	}
	n, err := io.CopyN(io.Discard, c, int64(head.Sent))
	l.in.Add(9 + n)
	if err != nil {
		return fmt.Errorf("way %d, after %d of %d bytes: %w", head.Way, n, head.Sent, err)
	}
	switch head.Way {
	case serverResets:
		c.SetLinger(0)
		return nil
	case halfClose:
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			return fmt.Errorf("instead of a client's FIN: %w", err)
		}
	}
	if _, err := c.Write(make([]byte, head.Got)); err != nil {
		return err
	}
	switch head.Way {
	case clientCloses:
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			return fmt.Errorf("instead of a client's FIN: %w", err)
		}
	case clientResets:
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("a reset became %w", err)
		}
	}
	return nil
}
