package config_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"

	"pointsman/config"
)

// valid returns a configuration without problems: one frontend, one backend,
// and the servers that Check shall hand to it.
func valid() (config.Config, []config.Server) {
	f, b := config.NewFrontend("ft"), config.NewBackend("bk")
	f.Binds = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:5432")}
	f.DefaultBackend = "bk"
	c := config.Config{Global: config.NewGlobal(), Frontends: []config.Frontend{f}, Backends: []config.Backend{b}}
	return c, []config.Server{newServer("s1", "bk", "10.0.0.1"), newServer("s2", "bk", "10.0.0.2")}
}

func newServer(name, backend, host string) config.Server {
	s := config.NewServer(name)
	s.Backend, s.Address = backend, config.HostPort{Host: host, Port: 5432}
	return s
}

func TestCheckHandsOutServers(t *testing.T) {
	c, servers := valid()
	c.Backends = append(c.Backends, config.NewBackend("b2"))
	servers = append(servers, newServer("s1", "b2", "10.0.0.1"), newServer("s3", "bk", "10.0.0.3"))
	if problems := config.Check(&c, servers); problems != nil {
		t.Fatal(problems)
	}
	if want := []config.Server{servers[0], servers[1], servers[3]}; !reflect.DeepEqual(c.BackendNamed("bk").Servers, want) {
		t.Errorf("bk has %+v, want %+v", c.BackendNamed("bk").Servers, want)
	}
	if want := servers[2:3]; !reflect.DeepEqual(c.BackendNamed("b2").Servers, want) {
		t.Errorf("b2 has %+v, want %+v", c.BackendNamed("b2").Servers, want)
	}
	if c.BackendNamed("b3") != nil {
		t.Error("a backend that is not there is found")
	}
}

func TestCheckProblems(t *testing.T) {
	type problems = []config.Problem
	binds := func(addrs ...string) (out []netip.AddrPort) {
		for _, a := range addrs {
			out = append(out, netip.MustParseAddrPort(a))
		}
		return out
	}
	tests := []struct {
		name string
		edit func(c *config.Config, s *[]config.Server)
		want problems
	}{
		{"none", func(*config.Config, *[]config.Server) {}, nil},
		{"no frontend", func(c *config.Config, _ *[]config.Server) { c.Frontends = nil },
			problems{{Text: "no frontend: at least one `config frontend` with a `list bind` is needed"}}},
		{"nothing at all", func(c *config.Config, s *[]config.Server) { *c, *s = config.Config{}, nil },
			problems{{Text: "no frontend: at least one `config frontend` with a `list bind` is needed"}}},
		{"no bind", func(c *config.Config, _ *[]config.Server) { c.Frontends[0].Binds = nil },
			problems{{Section: "frontend", Key: "bind", Text: "at least one `list bind` is needed"}}},
		{"dangling default_backend", func(c *config.Config, _ *[]config.Server) { c.Frontends[0].DefaultBackend = "bj" },
			problems{{Section: "frontend", Key: "default_backend", Value: "bj", Text: "no such backend"}}},
		{"dangling backend, a slip", func(c *config.Config, s *[]config.Server) {
			c.Backends[0].Name, c.Frontends[0].DefaultBackend, (*s)[0].Backend = "primary", "primary", "primary"
			(*s)[1].Backend = "pirmary"
		}, problems{{Section: "server", Index: 1, Key: "backend", Value: "pirmary", Text: "no such backend; did you mean 'primary'?"}}},
		{"an option that the reader missed", func(c *config.Config, s *[]config.Server) {
			c.Frontends[0].DefaultBackend = ""
			*s = append(*s, newServer("s3", "", "h"), newServer("s4", "bk", ""), newServer("s5", "bk", ""))
		}, nil},
		{"same frontend names", func(c *config.Config, _ *[]config.Server) {
			f := c.Frontends[0]
			f.Binds = binds("[::]:5432")
			c.Frontends = append(c.Frontends, f)
		}, problems{{Section: "frontend", Index: 1, Key: "name", Value: "ft", Text: "another frontend has that name"}}},
		{"same backend names", func(c *config.Config, _ *[]config.Server) { c.Backends = append(c.Backends, c.Backends[0]) },
			problems{{Section: "backend", Index: 1, Key: "name", Value: "bk", Text: "another backend has that name"}}},
		{"same server names", func(_ *config.Config, s *[]config.Server) { (*s)[1].Name = "s1" },
			problems{{Section: "server", Index: 1, Key: "name", Value: "s1", Text: "another server of backend 'bk' has that name"}}},
		{"same server addresses", func(_ *config.Config, s *[]config.Server) { (*s)[1].Address.Host = "10.0.0.1" },
			problems{{Section: "server", Index: 1, Key: "address", Value: "10.0.0.1:5432", Text: "server 's1' of the same backend has that address"}}},
		{"same host, other port", func(_ *config.Config, s *[]config.Server) {
			(*s)[1].Address = config.HostPort{Host: "10.0.0.1", Port: 5433}
		}, nil},
		{"one address, two questions", func(c *config.Config, s *[]config.Server) {
			c.Backends[0].Policy = config.LeastConn
			(*s)[1].Address.Host, (*s)[1].CheckURI = "10.0.0.1", "/replica"
		}, nil},
		{"one address, the same question", func(c *config.Config, s *[]config.Server) {
			c.Backends[0].Policy = config.LeastConn
			(*s)[1].Address.Host, (*s)[1].CheckURI = "10.0.0.1", "/primary"
		}, problems{{Section: "server", Index: 1, Key: "address", Value: "10.0.0.1:5432", Text: "server 's1' of the same backend has that address"}}},
		{"leaders by different questions", func(_ *config.Config, s *[]config.Server) { (*s)[1].CheckURI = "/leader" },
			problems{{Section: "server", Index: 1, Key: "check_uri", Value: "/leader", Text: "policy 'leader' asks all servers the same; write it into backend 'bk'"}}},
		{"a question that is not asked", func(c *config.Config, s *[]config.Server) {
			c.Backends[0].Policy, c.Backends[0].Check, (*s)[0].CheckURI = config.First, config.CheckTCP, "/x"
		}, problems{{Section: "server", Key: "check_uri", Value: "/x", Text: "needs check 'http'; backend 'bk' has check 'tcp'"}}},
		{"no servers", func(_ *config.Config, s *[]config.Server) { *s = nil },
			problems{{Section: "backend", Text: "no server names this backend; at least one `config server` with `option backend 'bk'` is needed"}}},

		{"the same listener twice", func(c *config.Config, _ *[]config.Server) {
			c.Frontends[0].Binds = binds("10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:2", "10.0.0.1:1")
		}, problems{{Section: "frontend", Key: "bind", Item: 3, Value: "10.0.0.1:1", Text: "frontend 'ft' already listens on 10.0.0.1:1"}}},
		{"one address within all", func(c *config.Config, _ *[]config.Server) {
			c.Frontends[0].Binds = binds("0.0.0.0:1", "10.0.0.1:1")
		}, problems{{Section: "frontend", Key: "bind", Item: 1, Value: "10.0.0.1:1", Text: "frontend 'ft' already listens on 0.0.0.0:1"}}},
		{"all around one address", func(c *config.Config, _ *[]config.Server) {
			f := c.Frontends[0]
			f.Name, f.Binds = "f2", binds("[fd00::1]:1", "[::]:2", "[::]:1")
			c.Frontends = append(c.Frontends, f)
		}, problems{{Section: "frontend", Index: 1, Key: "bind", Item: 2, Value: "[::]:1", Text: "frontend 'f2' already listens on [fd00::1]:1"}}},
		{"both families", func(c *config.Config, _ *[]config.Server) {
			c.Frontends[0].Binds = binds("0.0.0.0:1", "[::]:1", "0.0.0.0:2", "[fe80::1%a]:3", "[fe80::1%b]:3")
		}, nil},

		{"certificate without key", func(c *config.Config, _ *[]config.Server) {
			c.Backends[0].CheckTLS, c.Backends[0].CheckCert = true, "/c"
		}, problems{{Section: "backend", Key: "check_cert", Value: "/c", Text: "check_key is missing; a certificate and its key go together"}}},
		{"key without certificate", func(c *config.Config, _ *[]config.Server) {
			c.Backends[0].CheckTLS, c.Backends[0].CheckKey = true, "/k"
		}, problems{{Section: "backend", Key: "check_key", Value: "/k", Text: "check_cert is missing; a certificate and its key go together"}}},
		{"all of TLS", func(c *config.Config, _ *[]config.Server) {
			b := &c.Backends[0]
			b.CheckTLS, b.CheckCA, b.CheckCert, b.CheckKey, b.CheckSNI, b.CheckInsecure = true, "/ca", "/c", "/k", "n", true
		}, nil},
		{"all of TLS but check_tls", func(c *config.Config, _ *[]config.Server) {
			b := &c.Backends[0]
			b.CheckCA, b.CheckCert, b.CheckKey, b.CheckSNI, b.CheckInsecure = "/ca", "/c", "/k", "n", true
		}, problems{
			{Section: "backend", Key: "check_ca", Value: "/ca", Text: "has no effect without check_tls '1'"},
			{Section: "backend", Key: "check_cert", Value: "/c", Text: "has no effect without check_tls '1'"},
			{Section: "backend", Key: "check_key", Value: "/k", Text: "has no effect without check_tls '1'"},
			{Section: "backend", Key: "check_sni", Value: "n", Text: "has no effect without check_tls '1'"},
			{Section: "backend", Key: "check_insecure", Value: "1", Text: "has no effect without check_tls '1'"},
		}},
		{"TLS for a tcp check", func(c *config.Config, _ *[]config.Server) {
			b := &c.Backends[0]
			b.Policy, b.Check, b.CheckTLS = config.First, config.CheckTCP, true
		}, problems{{Section: "backend", Key: "check_tls", Value: "1", Text: "needs check 'http'; a 'tcp' check speaks no TLS"}}},
		{"a leader that nobody tells", func(c *config.Config, _ *[]config.Server) { c.Backends[0].Check = config.CheckPgSQL },
			problems{{Section: "backend", Key: "check", Value: "pgsql", Text: "policy 'leader' needs check 'http': only Patroni's REST API tells who leads"}}},
		{"a deposed leader that drains", func(c *config.Config, _ *[]config.Server) { c.Backends[0].OnMarkedDown = config.DrainSessions },
			problems{{Section: "backend", Key: "on_marked_down", Value: "drain", Text: "policy 'leader' cannot drain: sessions that stay on a deposed leader read old rows and lose what they write; want 'shutdown-sessions' or 'none'"}}},
		{"a replica that drains", func(c *config.Config, _ *[]config.Server) {
			c.Backends[0].Policy, c.Backends[0].OnMarkedDown = config.LeastConn, config.DrainSessions
		}, nil},
		{"drain without a check", func(c *config.Config, _ *[]config.Server) {
			c.Backends[0].Policy, c.Backends[0].Check, c.Backends[0].OnMarkedDown = config.First, config.CheckNone, config.DrainSessions
		}, problems{{Section: "backend", Key: "on_marked_down", Value: "drain", Text: "has no effect with check 'none': no server is ever marked DOWN"}}},
		{"other policies, other checks", func(c *config.Config, _ *[]config.Server) {
			c.Backends[0].Policy, c.Backends[0].Check = config.LeastConn, config.CheckNone
		}, nil},
		{"body of HEAD", func(c *config.Config, _ *[]config.Server) {
			c.Backends[0].CheckMethod, c.Backends[0].CheckBody = "HEAD", "x"
		}, problems{{Section: "backend", Key: "check_body", Value: "x", Text: "an answer to HEAD has no body; use check_method 'GET'"}}},

		{"several at once", func(c *config.Config, s *[]config.Server) {
			c.Frontends[0].DefaultBackend, c.Frontends[0].Binds = "x", nil
			(*s)[0].Backend = "y"
		}, problems{
			{Section: "server", Index: 0, Key: "backend", Value: "y", Text: "no such backend"},
			{Section: "frontend", Key: "default_backend", Value: "x", Text: "no such backend"},
			{Section: "frontend", Key: "bind", Text: "at least one `list bind` is needed"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, servers := valid()
			tt.edit(&c, &servers)
			if got := config.Check(&c, servers); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, tt.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	options := config.Lookup("backend").Names()
	options = append(options, config.Lookup("server").Names()...)
	options = append(options, config.Lookup("frontend").Names()...)
	for given, want := range map[string]string{
		"chek_uri": "check_uri", "checkuri": "check_uri", "check_url": "check_uri", "fal": "fall", "rize": "rise", "iner": "inter", "interval": "inter",
		"adress": "address", "addr": "address", "weigth": "weight", "bakup": "backup", "holdmax": "hold_max", "on_mark_down": "on_marked_down",
		"timout_connect": "timeout_connect", "timeout_conect": "timeout_connect", "defualt_backend": "default_backend", "max_conn": "maxconn", "polciy": "policy", "Inter": "inter",
		"status": "", "sockmap": "", "proto": "protocol", "x": "", "": "", "zyx": "", "balance": "", "retries": "",
	} {
		if got := config.Nearest(given, options); got != want {
			t.Errorf("%q is near %q, want %q", given, got, want)
		}
	}
	for given, want := range map[string]string{"fronted": "frontend", "bakend": "backend", "servers": "server", "Global": "global", "resolver": "", "dcss": "dcs", "listen": ""} {
		if got := config.Nearest(given, config.SectionTypes()); got != want {
			t.Errorf("%q is near %q, want %q", given, got, want)
		}
	}
	if got := config.Nearest("a", nil); got != "" {
		t.Errorf("nothing is near %q", got)
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("server-%d", i)
	}
	if got := config.Nearest("server-x", many); got != "" {
		t.Errorf("%q of too many", got)
	}
	if got := config.Nearest("server-", many[:100]); got != "server-0" {
		t.Errorf("%q of a hundred", got)
	}
}

func TestValues(t *testing.T) {
	for _, tt := range []struct {
		h       config.HostPort
		text    string
		literal bool
	}{
		{config.HostPort{Host: "10.0.0.1", Port: 1}, "10.0.0.1:1", true},
		{config.HostPort{Host: "fd00::1", Port: 65535}, "[fd00::1]:65535", true},
		{config.HostPort{Host: "fe80::1%br-lan", Port: 1}, "[fe80::1%br-lan]:1", true},
		{config.HostPort{Host: "db.lan", Port: 5432}, "db.lan:5432", false},
	} {
		addr, literal := tt.h.Literal()
		if tt.h.String() != tt.text || literal != tt.literal || literal && addr.String() != tt.text {
			t.Errorf("%+v is %s, literal %v %v", tt.h, tt.h, literal, addr)
		}
	}
	set := config.StatusSet{{From: 200, To: 299}, {From: 404, To: 404}}
	if set.String() != "200-299,404" {
		t.Error(set)
	}
	for code, want := range map[int]bool{199: false, 200: true, 299: true, 300: false, 404: true, 405: false, 0: false} {
		if set.Contains(code) != want {
			t.Errorf("%d is in %s: %v", code, set, !want)
		}
	}
}
