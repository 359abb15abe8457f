package healthcheck

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"pointsman/config"
)

// NewProber returns the prober of a server, as its backend's check says. host
// is the server's host as the user wrote it: what the request names, and what
// a certificate must be for unless check_sni says otherwise. An error names the
// option and the file that are to blame. A backend with check 'none' has no
// prober, which is an error.
func NewProber(b *config.Backend, s *config.Server, host string) (Prober, error) {
	switch b.Check {
	case config.CheckTCP:
		return TCP{}, nil
	case config.CheckPgSQL:
		return NewPgSQL(b.CheckUser), nil
	case config.CheckHTTP:
		return newHTTP(b, s, host)
	}
	return nil, fmt.Errorf("check '%s' has no probes", b.Check)
}

func newHTTP(b *config.Backend, s *config.Server, host string) (*HTTP, error) {
	host, _, _ = strings.Cut(host, "%") // a zone means nothing to the other side
	port := s.CheckPort
	if port == 0 {
		port = s.Address.Port
	}
	uri := cmp.Or(s.CheckURI, b.CheckURI)
	h := &HTTP{
		request: request(b, uri, net.JoinHostPort(host, strconv.Itoa(int(port)))),
		head:    b.CheckMethod == fasthttp.MethodHead,
		expect:  b.CheckExpect,
		body:    []byte(b.CheckBody),
		roles:   leaderRoles(uri),
	}
	if b.CheckTLS {
		var err error
		files := tlsFiles{"check_", b.CheckCA, b.CheckCert, b.CheckKey, b.CheckSNI, b.CheckInsecure}
		if h.tls, err = files.client(host); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// request returns the bytes of the request. A check_header replaces what is
// set here.
func request(b *config.Backend, uri, host string) []byte {
	req := fasthttp.AcquireRequest()
	defer fasthttp.ReleaseRequest(req)
	h := &req.Header
	h.SetMethod(b.CheckMethod)
	h.SetRequestURI(uri)
	h.SetHost(host)
	h.SetUserAgent("pointsman")
	h.SetConnectionClose()
	for _, extra := range b.CheckHeaders {
		h.Set(extra.Name, extra.Value)
	}
	// The header's own bytes, not the request's: that would tidy up the URI.
	return append([]byte(nil), h.Header()...)
}

// tlsFiles are the settings of TLS to others. Errors name the option.
type tlsFiles struct {
	prefix        string // of the options' names
	ca, cert, key string // PEM files
	sni           string
	insecure      bool
}

// client returns the settings for a server that was given as host.
func (f tlsFiles) client(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, InsecureSkipVerify: f.insecure}
	if f.sni != "" {
		c.ServerName = f.sni
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("%sca: %w", f.prefix, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%sca: %s: no certificate in it", f.prefix, f.ca)
		}
	}
	if f.cert == "" {
		return c, nil
	}
	cert, err := f.certificate()
	c.Certificates = []tls.Certificate{cert}
	return c, err
}

func (f tlsFiles) certificate() (tls.Certificate, error) {
	cert, err := os.ReadFile(f.cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%scert: %w", f.prefix, err)
	}
	if f.key == "" {
		return tls.Certificate{}, fmt.Errorf("%skey: not given, and %scert needs it", f.prefix, f.prefix)
	}
	key, err := os.ReadFile(f.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%skey: %w", f.prefix, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%scert: %s with %skey %s: %w", f.prefix, f.cert, f.prefix, f.key, err)
	}
	return pair, nil
}
