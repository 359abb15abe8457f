package relay

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
	"testing"
	"time"

	"pointsman/balancer/pgwire"
)

// TestOpeningFuzz lets clients open sessions in every way and in pieces of every
// size, with servers that fail at any moment, while epochs are fenced and
// recalled. Whatever happens, a client that was told nothing but N gets a
// session in the end, and each says and hears every byte once.
func TestOpeningFuzz(t *testing.T) {
	seed := *fuzzSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-relay.seed=%d", seed)
	r := newRig(t, postgreSQL, func(s *setup) {
		s.Loops, s.tune.working, s.tune.scratch = 2, 2, 16<<10
		s.backend.Retry = time.Millisecond
	})
	var ends [Malformed + 1]atomic.Int32
	r.desk.take = func(rec *Record) { ends[rec.Cause].Add(1) }
	f := &openingFuzzer{rig: r, fault: make(chan error, 1)}
	f.random.rand = rand.New(rand.NewPCG(seed, 0))
	var servers []net.Listener
	for range 3 {
		servers = append(servers, serve(t, f.server))
	}
	var epoch atomic.Uint32
	epoch.Store(1)
	r.desk.setRoute(func(q Request) (Ticket, time.Duration) {
		if f.random.n(8) == 0 && !q.Cancel {
			return Ticket{Place: Held}, time.Minute
		}
		e := epoch.Load()
		return Ticket{Place: Slotted, Target: Target{Addr: addrOf(servers[e%3]), Server: int32(e % 3), Epoch: Epoch(e)}}, 0
	})
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var opened atomic.Int32
	for n := range fuzzClients() {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := f.client(fmt.Sprintf("client-%d-%d", n, i)); err != nil {
					select {
					case f.fault <- err:
					default:
					}
					return
				}
				opened.Add(1)
			}
		})
	}
	for end := time.Now().Add(*fuzzTime / 3); time.Now().Before(end) && len(f.fault) == 0; {
		time.Sleep(time.Duration(1+f.random.n(20)) * time.Millisecond)
		old := Epoch(epoch.Load())
		switch f.random.n(3) {
		case 0:
			epoch.Add(1) // the owner publishes first
			r.Fence(old, MarkedDown)()
		case 1:
			r.Recall(old)
		case 2:
			r.Wake(-1)
		}
	}
	close(stop)
	clients.Wait()
	select {
	case err := <-f.fault:
		t.Error(err)
	default:
	}
	counts := make([]int32, len(ends))
	for i := range ends {
		counts[i] = ends[i].Load()
	}
	t.Logf("%d openings, ends by cause: %v", opened.Load(), counts)
	if opened.Load() == 0 || counts[Malformed] > 0 || counts[Normal] == 0 {
		t.Error("not what was to be played")
	}
}

// dice are thrown by many.
type dice struct {
	mu   sync.Mutex
	rand *rand.Rand
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(n)
}

type openingFuzzer struct {
	*rig
	random dice
	fault  chan error
}

// say writes text in pieces.
func (f *openingFuzzer) say(c net.Conn, text string) error {
	for len(text) > 0 {
		n := 1 + f.random.n(len(text))
		if _, err := io.WriteString(c, text[:n]); err != nil {
			return err
		}
		if text = text[n:]; f.random.n(4) == 0 {
			time.Sleep(time.Duration(f.random.n(2000)) * time.Microsecond)
		}
	}
	return nil
}

// server takes an opening, and fails at any moment.
func (f *openingFuzzer) server(c *net.TCPConn) {
	// fails plays a failure in front of text, once in a while.
	fails := func(text string) bool {
		if f.random.n(8) > 0 {
			return false
		}
		_ = f.say(c, text[:f.random.n(len(text))])
		if f.random.n(2) == 0 {
			_ = c.SetLinger(0)
		}
		return true
	}
	for {
		request, said, err := readOpening(c)
		if err != nil {
			f.complain(err)
			return
		}
		switch request {
		case pgwire.SSL, pgwire.GSS:
			answer := []string{"N", "N", "S"}[f.random.n(3)]
			if fails(answer) || f.say(c, answer) != nil {
				return
			}
			if answer == "S" {
				echo(c)
				return
			}
		case pgwire.Startup:
			if f.random.n(6) == 0 {
				_ = f.say(c, fatal("57P03"))
				return
			}
			login := pgMessage('S', "user\x00"+said[8:]) + primary[len(authOK):]
			if f.random.n(2) == 0 {
				if fails(asksPassword) || f.say(c, otherVersion+asksPassword) != nil {
					return
				}
				if want(password)(c) != nil || fails(login) || f.say(c, saslFinal+authOK+login) != nil {
					return
				}
			} else if fails(authOK+login) || f.say(c, authOK+login) != nil {
				return
			}
			echo(c)
			return
		default:
			f.complain(fmt.Errorf("a server was asked for %v: %q", request, said))
			return
		}
	}
}

func (f *openingFuzzer) complain(err error) {
	if err == io.EOF || isReset(err) {
		return
	}
	select {
	case f.fault <- err:
	default:
	}
}

func isReset(err error) bool {
	var e net.Error
	return err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && errors.As(err, &e) && !e.Timeout()
}

// readOpening reads one packet, and nothing behind it.
func readOpening(c net.Conn) (pgwire.Request, string, error) {
	b := make([]byte, pgwire.HeaderSize)
	if _, err := io.ReadFull(c, b); err != nil {
		return pgwire.None, "", err
	}
	request, size, err := pgwire.Identify(b)
	if err != nil {
		return request, "", err
	}
	b = append(b, make([]byte, size-len(b))...)
	_, err = io.ReadFull(c, b[pgwire.HeaderSize:])
	return request, string(b), err
}

// errTold ends a session that its client cannot begin anew.
var errTold = errors.New("the session ended after more than N was said")

// client opens a session and talks. An error is a fault.
func (f *openingFuzzer) client(name string) error {
	c, err := net.DialTimeout("tcp", f.addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	if f.random.n(10) == 0 { // it leaves at any moment
		all := sslRequest + startup
		_ = f.say(c, all[:f.random.n(len(all))])
		_ = c.(*net.TCPConn).SetLinger(f.random.n(2) - 1)
		return nil
	}
	for _, request := range []string{gssRequest, sslRequest} {
		if f.random.n(2) == 0 {
			continue
		}
		if err := f.say(c, request); err != nil {
			return fmt.Errorf("%s says its request: %w", name, err)
		}
		answer := make([]byte, 1)
		switch _, err := io.ReadFull(c, answer); {
		case err != nil:
			return fmt.Errorf("%s waits for N or S: %w", name, err)
		case answer[0] == 'S':
			return f.talk(c, name)
		case answer[0] != 'N':
			return fmt.Errorf("%s is told %q", name, answer)
		}
	}
	if err := f.say(c, packet(3<<16, "user\x00"+name+"\x00\x00")); err != nil {
		return fmt.Errorf("%s says its startup: %w", name, err)
	}
	if err := f.login(c, name); errors.Is(err, errTold) {
		return nil
	} else if err != nil {
		return err
	}
	return f.talk(c, name)
}

// login hears what the server says until it is ready.
func (f *openingFuzzer) login(c net.Conn, name string) error {
	kinds := ""
	for {
		header := make([]byte, 5)
		if _, err := io.ReadFull(c, header); err != nil {
			if strings.HasPrefix(kinds, "vR") { // it was asked
				return errTold
			}
			return fmt.Errorf("%s has heard %q: %w", name, kinds, err)
		}
		body := make([]byte, binary.BigEndian.Uint32(header[1:])-4)
		if _, err := io.ReadFull(c, body); err != nil {
			if strings.HasPrefix(kinds, "vR") {
				return errTold
			}
			return fmt.Errorf("%s has heard %q: %w", name, kinds, err)
		}
		kinds += string(header[:1])
		switch kinds {
		case "vR":
			if err := f.say(c, password); err != nil {
				return errTold
			}
		case "RS", "vRRRS":
			if string(body) != "user\x00user\x00"+name+"\x00\x00" {
				return fmt.Errorf("%s has another's session: %q", name, body)
			}
		case "RSSSKZ", "vRRRSSSKZ":
			return nil
		}
		if len(kinds) > 9 {
			return fmt.Errorf("%s has heard %q", name, kinds)
		}
	}
}

// talk wants its own words back until a fence or a server ends the session.
func (f *openingFuzzer) talk(c net.Conn, name string) error {
	for range f.random.n(4) {
		text := strings.Repeat(name, 1+f.random.n(500))
		if _, err := io.WriteString(c, text); err != nil {
			return nil
		}
		got := make([]byte, len(text))
		n, _ := io.ReadFull(c, got)
		if string(got[:n]) != text[:n] {
			return fmt.Errorf("%s hears other words: %.100q", name, got)
		}
		if n < len(text) {
			return nil
		}
	}
	return nil
}
