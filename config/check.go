package config

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/xrash/smetrics"
)

// Problem is something that only the whole configuration shows to be wrong.
// A reader turns Section, Index and Key into a place in its file.
type Problem struct {
	Section string // type of the section: "frontend", "backend", "server", "dcs", or "" for the whole file
	Index   int    // of the section among those of its type, in file order
	Key     string // option; "" = the section as a whole
	Item    int    // of the value, if the option is a list
	Value   string // what was given; "" = nothing
	Text    string // what is wrong, and what is allowed
}

// Check validates what no single option can know: references, names and
// addresses that must be unique, and options that need each other. servers is
// every server in file order, also those whose backend does not exist; Check
// hands each to its backend in c. It returns all problems, not the first.
func Check(c *Config, servers []Server) []Problem {
	k := checker{c: c}
	k.backends()
	k.servers(servers)
	k.frontends()
	k.dcs()
	if len(c.Frontends) == 0 {
		k.add("", 0, "", "", "no frontend: at least one `config frontend` with a `list bind` is needed")
	}
	return k.problems
}

type checker struct {
	c        *Config
	backend  map[string]*Backend
	names    []string // of the backends
	problems []Problem
}

func (k *checker) add(section string, index int, key, value, format string, args ...any) {
	k.problems = append(k.problems, Problem{
		Section: section, Index: index, Key: key, Value: value, Text: fmt.Sprintf(format, args...),
	})
}

func (k *checker) backends() {
	k.backend = map[string]*Backend{}
	for i := range k.c.Backends {
		b := &k.c.Backends[i]
		if k.backend[b.Name] != nil {
			k.add("backend", i, "name", b.Name, "another backend has that name")
		} else {
			k.backend[b.Name] = b
			k.names = append(k.names, b.Name)
		}
		if b.Policy == Leader && b.Check != CheckHTTP {
			k.add("backend", i, "check", string(b.Check), "policy 'leader' needs check 'http': only Patroni's REST API tells who leads")
		}
		if b.Policy == Leader && b.OnMarkedDown == DrainSessions {
			k.add("backend", i, "on_marked_down", string(b.OnMarkedDown), "policy 'leader' cannot drain: sessions that stay on a deposed leader read old rows and lose what they write; want 'shutdown-sessions' or 'none'")
		}
		if b.OnMarkedDown == DrainSessions && b.Check == CheckNone {
			k.add("backend", i, "on_marked_down", string(b.OnMarkedDown), "has no effect with check 'none': no server is ever marked DOWN")
		}
		if b.CheckBody != "" && b.CheckMethod == "HEAD" {
			k.add("backend", i, "check_body", b.CheckBody, "an answer to HEAD has no body; use check_method 'GET'")
		}
		k.tls(i, b)
	}
}

// tls refuses settings that would have no effect: whoever names an authority
// believes that it is asked.
func (k *checker) tls(i int, b *Backend) {
	switch {
	case b.CheckCert != "" && b.CheckKey == "":
		k.add("backend", i, "check_cert", b.CheckCert, "check_key is missing; a certificate and its key go together")
	case b.CheckCert == "" && b.CheckKey != "":
		k.add("backend", i, "check_key", b.CheckKey, "check_cert is missing; a certificate and its key go together")
	}
	if b.CheckTLS {
		if b.Check != CheckHTTP {
			k.add("backend", i, "check_tls", "1", "needs check 'http'; a '%s' check speaks no TLS", b.Check)
		}
		return
	}
	for _, o := range []struct{ key, value string }{
		{"check_ca", b.CheckCA}, {"check_cert", b.CheckCert}, {"check_key", b.CheckKey}, {"check_sni", b.CheckSNI},
	} {
		if o.value != "" {
			k.add("backend", i, o.key, o.value, "has no effect without check_tls '1'")
		}
	}
	if b.CheckInsecure {
		k.add("backend", i, "check_insecure", "1", "has no effect without check_tls '1'")
	}
}

func (k *checker) servers(servers []Server) {
	type place struct {
		backend, uri string
		address      HostPort
	}
	type ref struct{ backend, name string }
	names, at := map[ref]bool{}, map[place]string{}
	for i, s := range servers {
		if s.Backend == "" {
			continue // the reader has said that a required option is missing
		}
		b := k.backend[s.Backend]
		if b == nil {
			k.add("server", i, "backend", s.Backend, "no such backend%s", suggest(s.Backend, k.names))
			continue
		}
		if names[ref{s.Backend, s.Name}] {
			k.add("server", i, "name", s.Name, "another server of backend '%s' has that name", s.Backend)
		}
		names[ref{s.Backend, s.Name}] = true
		if s.Address.Host != "" { // else the reader has said so
			where := place{s.Backend, cmp.Or(s.CheckURI, b.CheckURI), s.Address}
			if other, taken := at[where]; taken {
				k.add("server", i, "address", s.Address.String(), "server '%s' of the same backend has that address", other)
			} else {
				at[where] = s.Name
			}
		}
		switch {
		case s.CheckURI == "":
		case b.Policy == Leader:
			k.add("server", i, "check_uri", s.CheckURI, "policy 'leader' asks all servers the same; write it into backend '%s'", b.Name)
		case b.Check != CheckHTTP:
			k.add("server", i, "check_uri", s.CheckURI, "needs check 'http'; backend '%s' has check '%s'", b.Name, b.Check)
		}
		b.Servers = append(b.Servers, s)
	}
	for i := range k.c.Backends {
		if b := &k.c.Backends[i]; len(b.Servers) == 0 && b.Name != "" && k.backend[b.Name] == b {
			k.add("backend", i, "", "", "no server names this backend; at least one `config server` with `option backend '%s'` is needed", b.Name)
		}
	}
}

func (k *checker) frontends() {
	names := map[string]bool{}
	taken := listeners{map[netip.AddrPort]string{}, map[door]netip.AddrPort{}}
	for i, f := range k.c.Frontends {
		if names[f.Name] {
			k.add("frontend", i, "name", f.Name, "another frontend has that name")
		}
		names[f.Name] = true
		if f.DefaultBackend != "" && k.backend[f.DefaultBackend] == nil {
			k.add("frontend", i, "default_backend", f.DefaultBackend, "no such backend%s", suggest(f.DefaultBackend, k.names))
		}
		if len(f.Binds) == 0 {
			k.add("frontend", i, "bind", "", "at least one `list bind` is needed")
		}
		for item, addr := range f.Binds {
			if other, its, overlaps := taken.add(addr, f.Name); overlaps {
				k.add("frontend", i, "bind", addr.String(), "frontend '%s' already listens on %s", its, other)
				k.problems[len(k.problems)-1].Item = item
			}
		}
	}
}

// listeners finds pairs that the kernel would refuse: the same port, and the
// same address or one that stands for all of its family. Listeners on IPv6
// addresses take no IPv4 (IPV6_V6ONLY).
type listeners struct {
	at  map[netip.AddrPort]string // the frontend
	one map[door]netip.AddrPort   // whichever came last
}

type door struct {
	port uint16
	is4  bool
}

// add keeps addr, unless it overlaps with one that was added before: then it
// returns that one and its frontend.
func (l *listeners) add(addr netip.AddrPort, frontend string) (other netip.AddrPort, its string, overlaps bool) {
	d := door{addr.Port(), addr.Addr().Is4()}
	every := netip.AddrPortFrom(netip.IPv6Unspecified(), d.port)
	if d.is4 {
		every = netip.AddrPortFrom(netip.IPv4Unspecified(), d.port)
	}
	candidates := []netip.AddrPort{addr, every}
	if addr == every {
		candidates = []netip.AddrPort{l.one[d]}
	}
	for _, other := range candidates {
		if its, taken := l.at[other]; taken {
			return other, its, true
		}
	}
	l.at[addr], l.one[d] = frontend, addr
	return netip.AddrPort{}, "", false
}

// suggest returns "; did you mean 'x'?" for the nearest of the candidates, or "".
func suggest(given string, candidates []string) string {
	if near := Nearest(given, candidates); near != "" {
		return fmt.Sprintf("; did you mean '%s'?", near)
	}
	return ""
}

// mostCandidates bounds the time that suggestions take: a file of a megabyte
// may have thousands of wrong names, and thousands of right ones.
const mostCandidates = 100

// Nearest returns the candidate that given most likely is a slip of, or "".
func Nearest(given string, candidates []string) string {
	// 0.7 and 4 are Winkler's own boost threshold and prefix length; 0.865 lets
	// one wrong letter of four pass, if it is not among the first two.
	best, bestLikeness := "", 0.865
	if len(candidates) > mostCandidates {
		return ""
	}
	for _, c := range candidates {
		if likeness := smetrics.JaroWinkler(given, c, 0.7, 4); likeness > bestLikeness {
			best, bestLikeness = c, likeness
		}
	}
	return best
}
