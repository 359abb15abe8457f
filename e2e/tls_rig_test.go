//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pointsman/netlab"
)

// What the tests of TLS stand on: one PostgreSQL with a certificate for the
// proxy's address, which is the one that its clients know, and pointsman.

const (
	certName = "db.example.org" // in the certificate, beside the proxy's address
	password = "not a secret"
	// directPort is where a server stands that speaks TLS from the first byte.
	directPort = 5499
)

// ports of pointsman, by protocol: to PostgreSQL, and to directPort.
var (
	tlsPorts    = map[string]int{"postgresql": 5432, "tcp": 5433}
	directPorts = map[string]int{"postgresql": 5434, "tcp": 5435}
)

type tlsRig struct {
	spawn           *spawner
	server, clients *host
	proxy           netip.Addr
	dir             string // of the server, and its socket
	ca              string // file
	certificate     tls.Certificate
	authorities     *x509.CertPool
}

func newTLSRig(ctx context.Context, t *testing.T) *tlsRig {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := netlab.Sweep(labKind)
	must(err)
	dir := filepath.Join(os.TempDir(), netlab.Prefix(labKind)+"run")
	must(os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		if *logsFlag != "" {
			copyLogs(t, dir, *logsFlag)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	hosts := map[string]netip.Addr{}
	for _, name := range []string{"postgres-1", "pointsman", "clients"} {
		hosts[name] = addresses[name]
	}
	network, err := newNetwork(hosts)
	must(err)
	t.Cleanup(func() {
		if err := network.close(); err != nil {
			t.Error(err)
		}
	})
	rig := &tlsRig{spawn: newSpawner(dir), server: network.hosts["postgres-1"], clients: network.hosts["clients"],
		proxy: addresses["pointsman"], dir: filepath.Join(dir, "server"), ca: filepath.Join(dir, "ca.crt")}
	t.Cleanup(rig.spawn.close)
	must(os.Mkdir(rig.dir, 0o700))
	must(rig.certify())
	must(rig.startPostgres(ctx))
	must(rig.startREST(t))
	p, err := newPointsman(ctx, network.hosts["pointsman"], dir, func(string) string { return rig.config(filepath.Join(dir, "control.sock")) })
	must(err)
	must(p.start(rig.spawn))
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	})
	must(waitFor(ctx, 20*time.Second, "a session through pointsman", func() error {
		_, err := rig.psql("user=trusted sslmode=disable", "postgresql")
		return err
	}))
	return rig
}

// config has a port for each protocol, to PostgreSQL and to the direct server.
func (rig *tlsRig) config(control string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "config global 'global'\n\toption control '%s'\n", control)
	for backend, ports := range map[string]map[string]int{"bk_leader": tlsPorts, "bk_direct": directPorts} {
		for protocol, port := range ports {
			fmt.Fprintf(&b, "config frontend '%s_%s'\n\tlist bind ':%d'\n\toption protocol '%s'\n\toption default_backend '%s'\n",
				backend, protocol, port, protocol, backend)
		}
	}
	fmt.Fprintf(&b, "config backend 'bk_leader'\n\toption policy 'leader'\n\toption check_uri '/primary'\n")
	fmt.Fprintf(&b, "config server 'postgres_1'\n\toption backend 'bk_leader'\n\toption address '%s:%d'\n\toption check_port '%d'\n",
		rig.server.addr, sqlPort, restPort)
	fmt.Fprintf(&b, "config backend 'bk_direct'\n\toption policy 'first'\n\toption check 'none'\n")
	fmt.Fprintf(&b, "config server 'direct_1'\n\toption backend 'bk_direct'\n\toption address '%s:%d'\n", rig.server.addr, directPort)
	return b.String()
}

// startREST answers as Patroni does on a leader.
func (rig *tlsRig) startREST(t *testing.T) error {
	l, err := rig.listen(restPort)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"state": "running", "role": "primary", "timeline": 1}`)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return nil
}

// listen does so on the server's host.
func (rig *tlsRig) listen(port int) (l net.Listener, err error) {
	err = rig.server.Inside(func() error {
		l, err = net.Listen("tcp4", net.JoinHostPort(rig.server.addr.String(), strconv.Itoa(port)))
		return err
	})
	return l, err
}

// certify makes an authority and, signed by it, the server's certificate.
func (rig *tlsRig) certify() error {
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: certName},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{certName}, IPAddresses: []net.IP{rig.proxy.AsSlice()}}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	rig.authorities = x509.NewCertPool()
	rig.authorities.AppendCertsFromPEM(caPEM)
	if rig.certificate, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		return err
	}
	for path, text := range map[string][]byte{
		rig.ca: caPEM, filepath.Join(rig.dir, "server.crt"): certPEM, filepath.Join(rig.dir, "server.key"): keyPEM,
	} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	// PostgreSQL does not take a key that others may read.
	return os.Chmod(filepath.Join(rig.dir, "server.key"), 0o600)
}

// hba lets app in by password and in no other way, plain without TLS too, and
// trusted without a password.
const hba = `local all all trust
hostssl all,replication app 0.0.0.0/0 scram-sha-256
host all plain 0.0.0.0/0 scram-sha-256
host all trusted 0.0.0.0/0 trust
`

func (rig *tlsRig) startPostgres(ctx context.Context) error {
	hbaFile, data := filepath.Join(rig.dir, "hba"), filepath.Join(rig.dir, "data")
	if err := os.WriteFile(hbaFile, []byte(hba), 0o644); err != nil {
		return err
	}
	cred, err := credential("postgres")
	if err != nil {
		return err
	}
	for _, path := range []string{"", "server.crt", "server.key", "hba"} {
		if err := os.Chown(filepath.Join(rig.dir, path), int(cred.Uid), int(cred.Gid)); err != nil {
			return err
		}
	}
	_, err = rig.spawn.run(rig.server, command{name: "initdb", user: "postgres", args: []string{
		programs.pgBin + "/initdb", "-D", data, "-U", "postgres", "--no-sync", "--locale=C", "--encoding=UTF8", "--wal-segsize=1"}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "postgresql.conf"), []byte(rig.settings(hbaFile)), 0o644); err != nil {
		return err
	}
	args := []string{programs.pgBin + "/postgres", "-D", data}
	if _, err := rig.spawn.start(rig.server, command{name: "postgres", user: "postgres", args: args}); err != nil {
		return err
	}
	err = waitFor(ctx, 20*time.Second, "PostgreSQL", func() error {
		_, err := rig.local("SELECT 1")
		return err
	})
	if err != nil {
		return err
	}
	_, err = rig.local(fmt.Sprintf("CREATE ROLE app LOGIN REPLICATION PASSWORD '%[1]s'; CREATE ROLE plain LOGIN PASSWORD '%[1]s'; "+
		"CREATE ROLE trusted LOGIN; CREATE TABLE t (x int)", password))
	return err
}

func (rig *tlsRig) settings(hbaFile string) string {
	return fmt.Sprintf(`listen_addresses = '%[1]s'
unix_socket_directories = '%[2]s'
hba_file = '%[3]s'
ssl = on
ssl_cert_file = '%[2]s/server.crt'
ssl_key_file = '%[2]s/server.key'
fsync = off
dynamic_shared_memory_type = mmap
shared_buffers = 16MB
`, rig.server.addr, rig.dir, hbaFile)
}

// local asks PostgreSQL on its own socket.
func (rig *tlsRig) local(sql string) (string, error) {
	out, err := rig.spawn.run(rig.server, command{name: "local", user: "postgres", args: []string{
		programs.psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, "host=" + rig.dir + " dbname=postgres"}})
	return strings.TrimSpace(out), err
}

// dsn leads through pointsman's port for a protocol.
func (rig *tlsRig) dsn(more, protocol string) string {
	host := "host=" + rig.proxy.String()
	if strings.Contains(more, "host=") {
		host = "hostaddr=" + rig.proxy.String() // the name is for the certificate alone
	}
	return fmt.Sprintf("%s port=%d dbname=postgres %s", host, tlsPorts[protocol], more)
}

// psql says how its session is encrypted, as the server sees it: "t" or "f".
func (rig *tlsRig) psql(more, protocol string) (string, error) {
	out, err := rig.spawn.run(rig.clients, command{name: "psql", env: rig.env(), args: []string{
		programs.psql, "-XAtq", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", rig.dsn(more, protocol)}})
	return strings.TrimSpace(out), err
}

// env is of clients: the password, and an authority that is no one's default.
func (rig *tlsRig) env() []string {
	return []string{"PGPASSWORD=" + password, "PGSSLROOTCERT=" + rig.ca, "PGCONNECT_TIMEOUT=10"}
}
