//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestTLS: what is encrypted between client and server stays between them, and
// all that PostgreSQL's protocol does before and beside it works through the
// proxy, whether it understands openings or just moves bytes.
func TestTLS(t *testing.T) {
	_, ctx := within(t, 3*time.Minute)
	rig := newTLSRig(ctx, t)
	if err := rig.spawn.buildClients(ctx, "cancel"); err != nil {
		t.Fatal(err)
	}
	direct := rig.serveDirect(t)
	for _, protocol := range sortedKeys(tlsPorts) {
		t.Run(protocol, func(t *testing.T) {
			t.Run("modes", func(t *testing.T) { rig.modes(t, protocol) })
			t.Run("cancel", func(t *testing.T) { rig.cancels(ctx, t, protocol) })
			t.Run("replication", func(t *testing.T) { rig.replication(ctx, t, protocol) })
			t.Run("direct", func(t *testing.T) { rig.direct(ctx, t, direct, protocol) })
			t.Run("gss", func(t *testing.T) { rig.gss(ctx, t, protocol) })
		})
	}
	// Last, as it changes the server.
	t.Run("a server without TLS", func(t *testing.T) { rig.withoutTLS(ctx, t) })
}

func (rig *tlsRig) modes(t *testing.T, protocol string) {
	tests := []struct {
		dsn  string
		want string // of psql, or part of its error
		fine bool
	}{
		{"user=plain sslmode=disable", "f", true},
		{"user=plain sslmode=allow", "f", true}, // plain is let in without
		{"user=app sslmode=allow", "t", true},   // refused without, so again with TLS
		{"user=app sslmode=prefer", "t", true},
		{"user=app sslmode=prefer gssencmode=prefer", "t", true},
		{"user=app sslmode=require", "t", true},
		{"user=app sslmode=require channel_binding=require", "t", true},
		{"user=app sslmode=verify-ca", "t", true},
		{"user=app sslmode=verify-full", "t", true},
		{"user=app sslmode=verify-full channel_binding=require", "t", true},
		{"user=app sslmode=verify-full host=" + certName, "t", true},
		{"user=app sslmode=verify-full host=other.example.org", "does not match host name", false},
		{"user=app sslmode=verify-full sslrootcert=/dev/null", "certificate", false},
		{"user=app sslmode=disable", "no encryption", false},
		{"user=plain sslmode=disable channel_binding=require", "channel binding", false},
	}
	for _, test := range tests {
		out, err := rig.psql(test.dsn, protocol)
		switch {
		case test.fine && (err != nil || out != test.want):
			t.Errorf("psql '%s': want %s: %q, %v", test.dsn, test.want, out, err)
		case !test.fine && (err == nil || !strings.Contains(out, test.want)):
			t.Errorf("psql '%s': want an error with %q: %q, %v", test.dsn, test.want, out, err)
		}
	}
}

// cancels: a statement is given up by ctrl-C in psql, and by a deadline in pgx
// and in lib/pq. Each asks for that on a connection of its own.
func (rig *tlsRig) cancels(ctx context.Context, t *testing.T, protocol string) {
	for _, mode := range []string{"user=plain sslmode=disable", "user=app sslmode=verify-full"} {
		p, err := rig.spawn.start(rig.clients, command{name: "psql-slow", env: rig.env(), args: []string{
			programs.psql, "-Xq", "-c", "SELECT pg_sleep(30)", rig.dsn(mode, protocol)}})
		if err != nil {
			t.Fatal(err)
		}
		err = waitFor(ctx, 10*time.Second, "a slow statement", func() error { return rig.sleeping(1) })
		err = errors.Join(err, p.signal(syscall.SIGINT))
		if err == nil {
			err = waitFor(ctx, 10*time.Second, "the end of psql", func() error {
				if !p.ended() {
					return errors.New("not yet")
				}
				return nil
			})
		}
		text, readErr := os.ReadFile(filepath.Join(rig.spawn.dir, "psql-slow.log"))
		if err = errors.Join(err, readErr); err != nil || !strings.Contains(string(text), "canceling statement due to user request") {
			t.Errorf("psql '%s', interrupted: %v: %s", mode, err, text)
		}
		p.kill()
		if err := os.Remove(filepath.Join(rig.spawn.dir, "psql-slow.log")); err != nil {
			t.Error(err)
		}
		for _, driver := range []string{"pgx", "pq"} {
			dsn := fmt.Sprintf("%s sslrootcert=%s password='%s'", rig.dsn(mode, protocol), rig.ca, password)
			if _, err := rig.spawn.run(rig.clients, command{name: "cancel", args: []string{
				filepath.Join(rig.spawn.dir, "cancel"), "-driver", driver, "-dsn", dsn}}); err != nil {
				t.Errorf("%s '%s': %v", driver, mode, err)
			}
		}
		if err := waitFor(ctx, 5*time.Second, "no slow statement", func() error { return rig.sleeping(0) }); err != nil {
			t.Error(err)
		}
	}
}

// sleeping is nil when so many slow statements run.
func (rig *tlsRig) sleeping(want int) error {
	out, err := rig.local("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'")
	if err == nil && out != strconv.Itoa(want) {
		err = fmt.Errorf("%s run, not %d", out, want)
	}
	return err
}

// replication: a base backup (on two connections at once), and a stream of WAL.
func (rig *tlsRig) replication(ctx context.Context, t *testing.T, protocol string) {
	dsn := rig.dsn("user=app sslmode=verify-full", protocol)
	backup, wal := filepath.Join(rig.spawn.dir, "backup-"+protocol), filepath.Join(rig.spawn.dir, "wal-"+protocol)
	if _, err := rig.spawn.run(rig.clients, command{name: "basebackup", env: rig.env(), args: []string{
		programs.pgBin + "/pg_basebackup", "-D", backup, "-X", "stream", "-c", "fast", "--no-sync", "-d", dsn}}); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(filepath.Join(backup, "backup_manifest")); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(wal, 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := rig.spawn.start(rig.clients, command{name: "receivewal", env: rig.env(), args: []string{
		programs.pgBin + "/pg_receivewal", "-D", wal, "--no-loop", "--no-sync", "-d", dsn}})
	if err != nil {
		t.Fatal(err)
	}
	err = waitFor(ctx, 15*time.Second, "a whole segment of WAL", func() error {
		if _, err := rig.local("INSERT INTO t VALUES (1); SELECT pg_switch_wal()"); err != nil {
			return err
		}
		whole, err := filepath.Glob(filepath.Join(wal, "????????????????????????"))
		if err == nil && len(whole) == 0 {
			err = errors.New("none yet")
		}
		return err
	})
	err = errors.Join(err, p.signal(syscall.SIGINT))
	select {
	case <-p.done:
		err = errors.Join(err, p.err)
	case <-time.After(10 * time.Second):
		err = errors.Join(err, errors.New("pg_receivewal does not end"), p.kill())
	}
	if err != nil {
		t.Error(err)
	}
}

// The requests that may begin a connection (PostgreSQL's pqcomm.h).
var (
	sslRequest = binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 80877103)
	gssRequest = binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 80877104)
)

// exporter is a secret that two ends of a TLS session derive alike (RFC 5705),
// and nobody between them can.
func exporter(s tls.ConnectionState) (string, error) {
	key, err := s.ExportKeyingMaterial("EXPERIMENTAL pointsman", nil, 32)
	return string(key), err
}

// directServer speaks TLS from the first byte, or after an SSLRequest, as
// PostgreSQL from 17 on does, and sends back whatever comes. It answers N to
// GSSENCRequest, as a PostgreSQL without GSSAPI does.
type directServer struct {
	mu      sync.Mutex
	secrets map[string]bool // of its sessions
}

func (d *directServer) knows(secret string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.secrets[secret]
}

func (rig *tlsRig) serveDirect(t *testing.T) *directServer {
	t.Helper()
	d := &directServer{secrets: map[string]bool{}}
	l, err := rig.listen(directPort)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				d.serve(conn, &tls.Config{Certificates: []tls.Certificate{rig.certificate}, NextProtos: []string{"postgresql"}})
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return d
}

func (d *directServer) serve(conn net.Conn, config *tls.Config) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	began := &peeked{Conn: conn}
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(conn, head[:1]); err != nil {
			return
		}
		if began.first = head[:1]; head[0] != 0 {
			break // a ClientHello
		}
		if _, err := io.ReadFull(conn, head[1:]); err != nil {
			return
		}
		began.first = nil
		if string(head) == string(sslRequest) {
			conn.Write([]byte("S"))
			break
		}
		conn.Write([]byte("N"))
	}
	session := tls.Server(began, config)
	if session.Handshake() != nil {
		return
	}
	if secret, err := exporter(session.ConnectionState()); err == nil {
		d.mu.Lock()
		d.secrets[secret] = true
		d.mu.Unlock()
	}
	if _, err := io.Copy(session, session); err == nil {
		session.Close()
	}
}

// peeked gives back what was read of it.
type peeked struct {
	net.Conn
	first []byte
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// direct: sslnegotiation=direct, and TLS after an SSLRequest, also where the
// client asked for GSSAPI before. Both ends derive the same secret, so it is one
// TLS session, and a megabyte comes back unchanged.
func (rig *tlsRig) direct(ctx context.Context, t *testing.T, d *directServer, protocol string) {
	tests := []struct {
		name    string
		before  [][]byte // what is sent, and
		answers string   // what each of them is answered
	}{
		{"from the first byte", nil, ""},
		{"after SSLRequest", [][]byte{sslRequest}, "S"},
		{"after GSSENCRequest and SSLRequest", [][]byte{gssRequest, sslRequest}, "NS"},
	}
	for _, test := range tests {
		if err := rig.directSession(ctx, d, directPorts[protocol], test.before, test.answers); err != nil {
			t.Errorf("TLS %s: %v", test.name, err)
		}
	}
}

func (rig *tlsRig) directSession(ctx context.Context, d *directServer, port int, before [][]byte, answers string) error {
	conn, err := rig.clients.dial(ctx, net.JoinHostPort(rig.proxy.String(), strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	for i, request := range before {
		answer := make([]byte, 1)
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != answers[i] {
			return fmt.Errorf("answer %d: want %q: %q, %w", i, answers[i], answer, err)
		}
	}
	session := tls.Client(conn, &tls.Config{RootCAs: rig.authorities, ServerName: rig.proxy.String(), NextProtos: []string{"postgresql"}})
	if err := session.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("shaking hands: %w", err)
	}
	if p := session.ConnectionState().NegotiatedProtocol; p != "postgresql" {
		return fmt.Errorf("ALPN: %q", p)
	}
	secret, err := exporter(session.ConnectionState())
	if err != nil {
		return err
	}
	sent := make([]byte, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(random.Uint32())
	}
	go session.Write(sent)
	back := make([]byte, len(sent))
	if _, err := io.ReadFull(session, back); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	if string(back) != string(sent) {
		return errors.New("what came back is not what was sent")
	}
	if !d.knows(secret) {
		return errors.New("the server derives another secret")
	}
	return nil
}

// gss: PostgreSQL's own answer to GSSENCRequest arrives. It says G where it was
// built with GSSAPI, and what follows is not understood but moved.
func (rig *tlsRig) gss(ctx context.Context, t *testing.T, protocol string) {
	ask := func(address string) string {
		conn, err := rig.clients.dial(ctx, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		answer := make([]byte, 1)
		_, err = conn.Write(gssRequest)
		if err == nil {
			_, err = io.ReadFull(conn, answer)
		}
		if err != nil {
			t.Errorf("asking %s: %v", address, err)
		}
		return string(answer)
	}
	direct := ask(net.JoinHostPort(rig.server.addr.String(), strconv.Itoa(sqlPort)))
	if through := ask(net.JoinHostPort(rig.proxy.String(), strconv.Itoa(tlsPorts[protocol]))); through != direct {
		t.Errorf("the answer to GSSENCRequest: %q, and %q through pointsman", direct, through)
	}
	// libpq asks for GSSAPI only with a ticket at hand, and here is none.
	if _, err := rig.psql("user=app gssencmode=require", protocol); err == nil {
		t.Error("psql 'gssencmode=require' works without a ticket")
	}
}

// withoutTLS: a server that answers N to SSLRequest.
func (rig *tlsRig) withoutTLS(ctx context.Context, t *testing.T) {
	for _, sql := range []string{"ALTER SYSTEM SET ssl = off", "SELECT pg_reload_conf()"} {
		if _, err := rig.local(sql); err != nil {
			t.Fatal(err)
		}
	}
	err := waitFor(ctx, 10*time.Second, "a server without TLS", func() error {
		out, err := rig.local("SHOW ssl")
		if err == nil && out != "off" {
			err = fmt.Errorf("ssl is %s", out)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range sortedKeys(tlsPorts) {
		if out, err := rig.psql("user=plain sslmode=prefer", protocol); err != nil || out != "f" {
			t.Errorf("%s: psql 'sslmode=prefer': %q, %v", protocol, out, err)
		}
		if out, err := rig.psql("user=plain sslmode=require", protocol); err == nil || !strings.Contains(out, "does not support SSL") {
			t.Errorf("%s: psql 'sslmode=require': %q, %v", protocol, out, err)
		}
	}
}
