package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pointsman/cmd/pointsman/simulation"
)

func TestReloadCommand(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	if status, out, errs := call(t, "reload", "-c", p.file); status != 0 || out != "reloaded "+p.file+"\n" || errs != "" {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	good := p.uci(c.UCI("bk"), "")
	p.write(strings.Replace(good, "option control", "option loops '1'\n\toption control", 1))
	if status, out, _ := call(t, "reload", "-c", p.file); status != 0 || !strings.Contains(out, "'loops' are read at the start only") {
		t.Errorf("status %d, %q", status, out)
	}
	p.write(strings.Replace(good, "option inter", "option intre", 1))
	status, out, errs := call(t, "reload", "--socket", p.socket)
	if status != 1 || out != "" || !strings.Contains(errs, "nothing was changed") || !strings.Contains(errs, p.file+":8: backend 'bk': option 'intre'") {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	if err := os.Remove(p.file); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := call(t, "reload", "--socket", p.socket); status != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("status %d, %q", status, errs)
	}
}

// traffic is clients of an echo server that lies behind the daemon.
type traffic struct {
	address string
	stop    atomic.Bool
	clients sync.WaitGroup
	rounds  atomic.Int64 // connects that were served, and pieces that came back
	mu      sync.Mutex
	errs    []error
}

// run lets so many clients connect anew each time, and as many stay.
func (f *traffic) run(clients int) {
	for i := range clients {
		f.clients.Go(func() {
			for !f.stop.Load() {
				f.note(f.once())
			}
		})
		f.clients.Go(func() { f.note(f.stay(uint64(i))) })
	}
}

func (f *traffic) note(err error) {
	if err != nil {
		f.mu.Lock()
		f.errs = append(f.errs, err)
		f.mu.Unlock()
		f.stop.Store(true)
	}
}

func (f *traffic) dial() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp4", f.address, 5*time.Second)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return conn, err
}

// once connects, and wants one byte back.
func (f *traffic) once() error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	piece := []byte{42}
	if _, err = conn.Write(piece); err == nil {
		_, err = io.ReadFull(conn, piece)
	}
	f.rounds.Add(1)
	return err
}

// stay wants each of many random pieces back as it was.
func (f *traffic) stay(seed uint64) error {
	conn, err := f.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	random := rand.New(rand.NewPCG(seed, 1))
	sent, got := make([]byte, 100<<10), make([]byte, 100<<10)
	for !f.stop.Load() {
		n := 1 + random.IntN(len(sent))
		for i := range sent[:n] {
			sent[i] = byte(random.Uint32())
		}
		wrote := make(chan error, 1)
		go func() {
			_, err := conn.Write(sent[:n])
			wrote <- err
		}()
		_, err := io.ReadFull(conn, got[:n])
		if err = errors.Join(err, <-wrote); err != nil {
			return err
		}
		if !bytes.Equal(sent[:n], got[:n]) {
			return fmt.Errorf("%d bytes came back otherwise", n)
		}
		f.rounds.Add(1)
	}
	return nil
}

// echoServer answers with what it gets.
func echoServer(t *testing.T) (address string) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

// freePort returns an address that nobody else is given during the test.
func freePort(t *testing.T) string {
	t.Helper()
	addr, release, err := simulation.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return addr.String()
}

// A hundred reloads under load lose no connect and no byte, whatever comes and
// goes beside; and sessions of before the first are still fenced.
func TestReloadsUnderLoad(t *testing.T) {
	c := cluster(t)
	p := spawn(t, c.UCI("bk"), "")
	p.until("leader of bk is now postgres-1")
	old, err := net.Dial("tcp4", p.listener)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()

	f := &traffic{address: freePort(t)}
	server, extra := echoServer(t), freePort(t)
	always := fmt.Sprintf(`
config frontend 'ft_echo'
	list bind '%s'
	option default_backend 'echo'
	option maxconn '%%d'
config backend 'echo'
	option policy 'first'
	option check 'none'
config server 'echo_1'
	option backend 'echo'
	option address '%s'
`, f.address, server)
	comes := fmt.Sprintf(`
config frontend 'ft_extra'
	list bind '%s'
	option default_backend 'extra'
config backend 'extra'
	option policy 'roundrobin'
	option check 'tcp'
config server 'extra_1'
	option backend 'extra'
	option address '%s'
config server 'echo_2'
	option backend 'echo'
	option address '127.0.0.1:9'
	option weight '0'
`, extra, server)
	reload := func(i int) {
		text := p.uci(c.UCI("bk"), fmt.Sprintf("option fall '%d'", 3+i%2)) + fmt.Sprintf(always, 1000+i)
		if i%2 == 1 {
			text += comes
		}
		p.write(text)
		if status, _, errs := call(t, "reload", "--socket", p.socket); status != 0 {
			t.Fatalf("reload %d: %s", i, errs)
		}
	}
	reload(0)
	f.run(4)
	for i := 1; i <= 100 && !f.stop.Load(); i++ {
		reload(i)
		// The load goes on between two reloads, whatever the machine has to do.
		for seen := f.rounds.Load(); f.rounds.Load() < seen+8 && !f.stop.Load(); time.Sleep(time.Millisecond) {
		}
	}
	f.stop.Store(true)
	f.clients.Wait()
	if err := errors.Join(f.errs...); err != nil {
		t.Errorf("after %d rounds: %v", f.rounds.Load(), err)
	}
	t.Logf("100 reloads, %d rounds", f.rounds.Load())

	if s := p.status(); len(s.Frontends) != 2 || s.Backends[0].Epoch != 1 || s.Backends[0].Leader != "postgres-1" {
		t.Errorf("after all: %+v", s)
	}
	if _, err := c.Failover(context.Background()); err != nil {
		t.Fatal(err)
	}
	old.SetDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, old); n != 0 || err != nil {
		t.Errorf("a session of before all reloads, after the leader changed: %d bytes, %v", n, err)
	}
}
