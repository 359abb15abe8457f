package healthcheck

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pointsman/config"
	"pointsman/leaktest"
)

// authority signs certificates, and lies in a PEM file.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB, name string) *authority {
	a := &authority{}
	der, key := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.key = key
	a.cert, _ = x509.ParseCertificate(der)
	a.file = writePEM(t, name+".pem", "CERTIFICATE", der)
	return a
}

// sign signs with the authority, or self-signs if it has no key yet.
func (a *authority) sign(t testing.TB, template *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if signer == nil {
		parent, signer = template, key
	}
	der, err = x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// pair returns the files of a certificate for these names and of its key.
func (a *authority) pair(t testing.TB, names ...string) (certFile, keyFile string) {
	template := &x509.Certificate{}
	if len(names) > 0 {
		template.Subject.CommonName = names[0]
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, key := a.sign(t, template)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "cert.pem", "CERTIFICATE", der), writePEM(t, "key.pem", "PRIVATE KEY", keyDER)
}

func writePEM(t testing.TB, name, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// serveTLS is serve, with TLS around handle.
func serveTLS(t testing.TB, conf *tls.Config, handle func(net.Conn)) *peer {
	return serve(t, func(conn net.Conn) {
		secured := tls.Server(conn, conf)
		if secured.Handshake() == nil {
			handle(secured)
		}
	})
}

func TestHTTPOverTLS(t *testing.T) {
	leaktest.Check(t)
	t.Run("all", testHTTPOverTLS)
}

func testHTTPOverTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	serverCert, err := tls.LoadX509KeyPair(ours.pair(t, "127.0.0.1", "postgres-1.lan"))
	if err != nil {
		t.Fatal(err)
	}
	plain := &tls.Config{Certificates: []tls.Certificate{serverCert}}
	clients := x509.NewCertPool()
	clients.AddCert(ours.cert)
	mutual := &tls.Config{Certificates: plain.Certificates, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	mutual12 := mutual.Clone()
	mutual12.MaxVersion = tls.VersionTLS12
	clientCert, clientKey := ours.pair(t, "pointsman")

	good := answer(patroni(200, "primary", "running", 5))
	withClose := func(c net.Conn) { good(c); c.Close() }
	tests := []struct {
		name    string
		options []string
		server  *tls.Config
		handle  func(net.Conn)
		class   Class
		reason  string
	}{
		{"good CA", []string{"check_ca " + ours.file}, plain, withClose, Passed, "Layer7 check passed"},
		{"no goodbye from the server", []string{"check_ca " + ours.file}, plain, good, Passed, "Layer7 check passed"},
		{"cut short without a goodbye", []string{"check_ca " + ours.file}, plain,
			answer(patroni(200, "primary", "running", 5)[:250]), Protocol, "Layer7 invalid response: broken JSON"},
		{"another CA", []string{"check_ca " + theirs.file}, plain, good, Protocol,
			"Layer6 invalid response: x509: certificate signed by unknown authority"},
		{"the system's CAs", nil, plain, good, Protocol, "Layer6 invalid response: x509: certificate signed by unknown authority"},
		{"another name", []string{"check_ca " + ours.file, "check_sni postgres-2.lan"}, plain, good, Protocol,
			"Layer6 invalid response: x509: certificate is valid for postgres-1.lan, not postgres-2.lan"},
		{"a name by check_sni", []string{"check_ca " + ours.file, "check_sni postgres-1.lan"}, plain, good, Passed, "Layer7 check passed"},
		{"anything goes", []string{"check_insecure 1"}, plain, good, Passed, "Layer7 check passed"},
		{"client certificate", []string{"check_ca " + ours.file, "check_cert " + clientCert, "check_key " + clientKey}, mutual, good,
			Passed, "Layer7 check passed"},
		{"client certificate missing", []string{"check_ca " + ours.file}, mutual, good, Protocol,
			"Layer6 invalid response: tls: certificate required"},
		{"client certificate missing, TLS 1.2", []string{"check_ca " + ours.file}, mutual12, good, Protocol,
			"Layer6 invalid response: tls: "},
		{"silent after the handshake", []string{"check_ca " + ours.file}, plain, stay, Timeout, "Layer7 timeout"},
		{"endless", []string{"check_ca " + ours.file}, plain, func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			flood(c, "x", -1)
		}, Protocol, "Layer7 invalid response: an answer of more than 64 KiB"},
		{"no TLS", nil, nil, answer("HTTP/1.1 200 OK\r\n\r\n"), Protocol,
			"Layer6 invalid response: tls: first record does not look like a TLS handshake"},
		{"silent before the handshake", nil, nil, stay, Timeout, "Layer6 timeout"},
		{"closes in the handshake", nil, nil, func(c net.Conn) { c.Read(make([]byte, 4096)) }, Protocol, "Layer6 invalid response: "},
		{"a byte of handshake per 100 ms", nil, nil, func(c net.Conn) { trickle(c, "\x16\x03\x03\x40\x00\x02"+strings.Repeat("\x00", 64)) },
			Timeout, "Layer6 timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p *peer
			if tt.server == nil {
				// The request is in TLS; a handler that reads it as text takes it line by line.
				p = serve(t, func(c net.Conn) {
					if tt.class == Protocol {
						c.Read(make([]byte, 1))
						io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
						return
					}
					tt.handle(c)
				})
			} else {
				p = serveTLS(t, tt.server, tt.handle)
			}
			limit := 5 * time.Second
			if tt.class == Timeout {
				limit = 250 * time.Millisecond
			}
			r := probe(t, httpProber(t, append(tt.options, "check_tls 1")...), p.addr, limit)
			if r.Class != tt.class || !strings.HasPrefix(r.Reason, tt.reason) {
				t.Errorf("class %d, %s\nwant  %d, %s", r.Class, r.Reason, tt.class, tt.reason)
			}
		})
	}
}

// A file that cannot be used is an error that names the option and the file.
func TestNewProberErrors(t *testing.T) {
	ca := newAuthority(t, "ca")
	certFile, keyFile := ca.pair(t, "x")
	_, otherKey := ca.pair(t, "y")
	notPEM := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(notPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		options []string
		want    []string
	}{
		{[]string{"check none"}, []string{"check 'none'"}},
		{[]string{"check_tls 1", "check_ca /nowhere/ca.pem"}, []string{"check_ca", "/nowhere/ca.pem", "no such file"}},
		{[]string{"check_tls 1", "check_ca " + notPEM}, []string{"check_ca", notPEM, "no certificate"}},
		{[]string{"check_tls 1", "check_cert /nowhere/c.pem", "check_key " + keyFile}, []string{"check_cert", "/nowhere/c.pem", "no such file"}},
		{[]string{"check_tls 1", "check_cert " + certFile, "check_key /nowhere/k.pem"}, []string{"check_key", "/nowhere/k.pem", "no such file"}},
		{[]string{"check_tls 1", "check_cert " + certFile}, []string{"check_key"}},
		{[]string{"check_tls 1", "check_cert " + certFile, "check_key " + otherKey}, []string{"check_cert", certFile, otherKey, "match"}},
		{[]string{"check_tls 1", "check_cert " + notPEM, "check_key " + keyFile}, []string{"check_cert", notPEM}},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.options, ", "), func(t *testing.T) {
			p, err := NewProber(backend(t, tt.options...), &config.Server{}, "127.0.0.1")
			if err == nil {
				t.Fatalf("no error, but %T", p)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not tell %q", err, part)
				}
			}
		})
	}
}

func TestNewProberKinds(t *testing.T) {
	s := config.Server{Address: config.HostPort{Host: "10.0.0.1", Port: 5432}}
	if p, err := NewProber(backend(t, "check tcp"), &s, "10.0.0.1"); err != nil || p != (TCP{}) {
		t.Errorf("tcp: %T, %v", p, err)
	}
	if p, err := NewProber(backend(t, "check pgsql", "check_user me"), &s, "10.0.0.1"); err != nil ||
		string(p.(*PgSQL).opening) != "\x00\x00\x00\x11\x00\x03\x00\x00user\x00me\x00\x00" {
		t.Errorf("pgsql: %+v, %v", p, err)
	}
	p, err := NewProber(backend(t), &s, "fe80::5%eth0")
	if err != nil || !strings.Contains(string(p.(*HTTP).request), "Host: [fe80::5]:5432\r\n") {
		t.Errorf("http: %+v, %v", p, err)
	}
}
