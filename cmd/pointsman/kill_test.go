package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestKilled ends the daemon with SIGKILL. Both peers of each session must know
// at once that it was cut short, whatever it was doing: the kernel resets them.
func TestKilled(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := prepare(t, "")
	p.write(p.uci(fmt.Sprintf("config server 's'\n\toption backend 'bk'\n\toption address '%s'\n", ln.Addr()),
		"option policy 'roundrobin'\n\toption check 'none'"))
	cmd := program(t, 0, "run", "-c", p.file)
	p.launch(cmd)
	ends := map[string]net.Conn{}
	dial := func(name string) (client, server *net.TCPConn) {
		c, err := net.Dial("tcp4", p.listener)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		for side, conn := range map[string]net.Conn{"client": c, "server": s} {
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			ends[name+" "+side] = conn
		}
		io.WriteString(c, "x")
		io.ReadFull(s, make([]byte, 1))
		return c.(*net.TCPConn), s.(*net.TCPConn)
	}
	dial("idle")
	half, _ := dial("half-closed")
	half.CloseWrite()
	stalled, _ := dial("stalled") // its server does not read: bytes wait in the daemon
	go func() {
		b := make([]byte, 1<<16)
		for {
			if _, err := stalled.Write(b); err != nil {
				return
			}
		}
	}()
	for before := int64(-1); ; time.Sleep(50 * time.Millisecond) {
		in := int64(p.status().Frontends[0].BytesIn)
		if in == before && in > 1<<20 {
			break
		}
		before = in
	}
	time.Sleep(time.Second + 200*time.Millisecond) // sessions that last are prepared after a second
	// An end that was passed on before, or an RST that the writer met, cannot be
	// seen again by who reads.
	told := map[string]bool{"half-closed server": true, "stalled client": true}
	begin := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for name, conn := range ends {
		n, err := io.Copy(io.Discard, conn)
		took := time.Since(begin)
		t.Logf("%s: %d bytes, then %v, after %v", name, n, err, took)
		if !errors.Is(err, syscall.ECONNRESET) && (err != nil || !told[name]) {
			t.Errorf("%s: %v, want a reset", name, err)
		}
	}
}
