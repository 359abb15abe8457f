package healthcheck

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
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
		if h.tls, err = clientTLS(b, host); err != nil {
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

func clientTLS(b *config.Backend, host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, InsecureSkipVerify: b.CheckInsecure}
	if b.CheckSNI != "" {
		c.ServerName = b.CheckSNI
	}
	if b.CheckCA != "" {
		pem, err := os.ReadFile(b.CheckCA)
		if err != nil {
			return nil, fmt.Errorf("check_ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("check_ca: %s: no certificate in it", b.CheckCA)
		}
	}
	if b.CheckCert == "" {
		return c, nil
	}
	cert, err := clientCertificate(b.CheckCert, b.CheckKey)
	c.Certificates = []tls.Certificate{cert}
	return c, err
}

func clientCertificate(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("check_cert: %w", err)
	}
	if keyFile == "" {
		return tls.Certificate{}, errors.New("check_key: not given, and check_cert needs it")
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("check_key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("check_cert: %s with check_key %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}
