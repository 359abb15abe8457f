package config

import (
	"fmt"
	"net/netip"

	"github.com/xrash/smetrics"
)

// Problem is something that only the whole configuration shows to be wrong.
// A reader turns Section, Index and Key into a place in its file.
type Problem struct {
	Section string // type of the section: "frontend", "backend", "server", or "" for the whole file
	Index   int    // of the section among those of its type, in file order
	Key     string // option; "" = the section as a whole
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
	if len(c.Frontends) == 0 {
		k.add("", 0, "", "", "no frontend: at least one `config frontend` with a `list bind` is needed")
	}
	return k.problems
}

type checker struct {
	c        *Config
	problems []Problem
}

func (k *checker) add(section string, index int, key, value, format string, args ...any) {
	k.problems = append(k.problems, Problem{section, index, key, value, fmt.Sprintf(format, args...)})
}

func (k *checker) backends() {
	seen := map[string]bool{}
	for i := range k.c.Backends {
		b := &k.c.Backends[i]
		if seen[b.Name] {
			k.add("backend", i, "name", b.Name, "another backend has that name")
		}
		seen[b.Name] = true
		if (b.CheckCert == "") != (b.CheckKey == "") {
			k.add("backend", i, "check_cert", b.CheckCert, "check_cert and check_key go together")
		}
		if b.Policy == Leader && b.Check != CheckHTTP {
			k.add("backend", i, "check", string(b.Check), "policy 'leader' needs check 'http': only Patroni's REST API tells who leads")
		}
		if b.CheckBody != "" && b.CheckMethod == "HEAD" {
			k.add("backend", i, "check_body", b.CheckBody, "an answer to HEAD has no body; use check_method 'GET'")
		}
	}
}

func (k *checker) servers(servers []Server) {
	type ref struct{ backend, name string }
	seen := map[ref]bool{}
	for i, s := range servers {
		if s.Backend == "" {
			continue // the reader has said that a required option is missing
		}
		b := k.c.BackendNamed(s.Backend)
		if b == nil {
			k.add("server", i, "backend", s.Backend, "no such backend%s", suggest(s.Backend, k.backendNames()))
			continue
		}
		if seen[ref{s.Backend, s.Name}] {
			k.add("server", i, "name", s.Name, "another server of backend '%s' has that name", s.Backend)
		}
		seen[ref{s.Backend, s.Name}] = true
		for j := range b.Servers {
			if s.Address.Host != "" && b.Servers[j].Address == s.Address {
				k.add("server", i, "address", s.Address.String(), "server '%s' of the same backend has that address", b.Servers[j].Name)
			}
		}
		b.Servers = append(b.Servers, s)
	}
	for i := range k.c.Backends {
		if len(k.c.Backends[i].Servers) == 0 {
			k.add("backend", i, "", "", "no server names this backend: at least one `config server` is needed")
		}
	}
}

func (k *checker) frontends() {
	names := map[string]bool{}
	type listener struct {
		addr     netip.AddrPort
		frontend string
	}
	var listeners []listener
	for i, f := range k.c.Frontends {
		if names[f.Name] {
			k.add("frontend", i, "name", f.Name, "another frontend has that name")
		}
		names[f.Name] = true
		if f.DefaultBackend != "" && k.c.BackendNamed(f.DefaultBackend) == nil {
			k.add("frontend", i, "default_backend", f.DefaultBackend, "no such backend%s", suggest(f.DefaultBackend, k.backendNames()))
		}
		if len(f.Binds) == 0 {
			k.add("frontend", i, "bind", "", "at least one `list bind` is needed")
		}
		for _, addr := range f.Binds {
			for _, other := range listeners {
				if overlap(addr, other.addr) {
					k.add("frontend", i, "bind", addr.String(), "frontend '%s' already listens on %s", other.frontend, other.addr)
				}
			}
			listeners = append(listeners, listener{addr, f.Name})
		}
	}
}

// overlap reports whether the kernel would refuse to listen on both: the same
// port, and the same address or one that stands for all of its family.
// Listeners on IPv6 addresses take no IPv4 (IPV6_V6ONLY).
func overlap(a, b netip.AddrPort) bool {
	if a.Port() != b.Port() || a.Addr().Is4() != b.Addr().Is4() {
		return false
	}
	return a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified()
}

func (k *checker) backendNames() []string {
	names := make([]string, len(k.c.Backends))
	for i := range k.c.Backends {
		names[i] = k.c.Backends[i].Name
	}
	return names
}

// suggest returns "; did you mean 'x'?" for the nearest of the candidates, or "".
func suggest(given string, candidates []string) string {
	if near := Nearest(given, candidates); near != "" {
		return fmt.Sprintf("; did you mean '%s'?", near)
	}
	return ""
}

// Nearest returns the candidate that given most likely is a slip of, or "".
func Nearest(given string, candidates []string) string {
	// 0.7 and 4 are Winkler's own boost threshold and prefix length; 0.85 lets
	// two slips in a word of eight letters pass, and hardly a different word.
	best, bestLikeness := "", 0.85
	for _, c := range candidates {
		if likeness := smetrics.JaroWinkler(given, c, 0.7, 4); likeness > bestLikeness {
			best, bestLikeness = c, likeness
		}
	}
	return best
}
