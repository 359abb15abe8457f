package config_test

import (
	"reflect"
	"testing"

	"pointsman/config"
)

func TestDCSProblems(t *testing.T) {
	type problems = []config.Problem
	at := func(host string, tls bool) config.Endpoint {
		return config.Endpoint{TLS: tls, Address: config.HostPort{Host: host, Port: 2379}}
	}
	const noTLS = "has no effect, as no endpoint begins with https://"
	tests := []struct {
		name string
		edit func(c *config.Config, d *config.DCS)
		want problems
	}{
		{"none", func(*config.Config, *config.DCS) {}, nil},
		{"all there is", func(_ *config.Config, d *config.DCS) {
			d.Endpoints = append(d.Endpoints, at("h2", true))
			d.Backends, d.User, d.PasswordFile = []string{"bk"}, "u", "/p"
			d.CA, d.Cert, d.Key, d.SNI, d.Insecure = "/ca", "/c", "/k", "etcd.lan", true
		}, nil},
		{"no endpoint", func(_ *config.Config, d *config.DCS) { d.Endpoints, d.CA = nil, "/ca" },
			problems{{Section: "dcs", Key: "endpoint", Text: "at least one `list endpoint` is needed"}}},
		{"an endpoint twice", func(_ *config.Config, d *config.DCS) { d.Endpoints = append(d.Endpoints, at("h1", false)) },
			problems{{Section: "dcs", Key: "endpoint", Item: 1, Value: "http://h1:2379", Text: "is there twice"}}},
		{"one host by both schemes", func(_ *config.Config, d *config.DCS) { d.Endpoints = append(d.Endpoints, at("h1", true)) }, nil},
		{"same names", func(c *config.Config, d *config.DCS) { c.DCS = append(c.DCS, *d) },
			problems{{Section: "dcs", Index: 1, Key: "name", Value: "etcd", Text: "another dcs has that name"}}},
		{"dangling backend, a slip", func(c *config.Config, d *config.DCS) {
			c.Backends[0].Name, c.Frontends[0].DefaultBackend = "primary", "primary"
			d.Backends = []string{"primary", "pirmary", "primary"}
		}, problems{
			{Section: "server", Key: "backend", Value: "bk", Text: "no such backend"},
			{Section: "server", Index: 1, Key: "backend", Value: "bk", Text: "no such backend"},
			{Section: "backend", Text: "no server names this backend; at least one `config server` with `option backend 'primary'` is needed"},
			{Section: "dcs", Key: "backend", Item: 1, Value: "pirmary", Text: "no such backend; did you mean 'primary'?"},
			{Section: "dcs", Key: "backend", Item: 2, Value: "primary", Text: "is there twice"},
		}},
		{"a backend without checks", func(c *config.Config, d *config.DCS) {
			c.Backends[0].Policy, c.Backends[0].Check, d.Backends = config.First, config.CheckNone, []string{"bk"}
		}, problems{{Section: "dcs", Key: "backend", Value: "bk", Text: "has check 'none': there is no check to hint"}}},
		{"nobody to hint", func(c *config.Config, _ *config.DCS) {
			c.Backends[0].Policy, c.Backends[0].Check = config.First, config.CheckTCP
		}, problems{{Section: "dcs", Key: "backend", Text: "no backend has check 'http': name those to hint, each with a `list backend`"}}},
		{"a tcp backend that is named", func(c *config.Config, d *config.DCS) {
			c.Backends[0].Policy, c.Backends[0].Check, d.Backends = config.First, config.CheckTCP, []string{"bk"}
		}, nil},
		{"user alone", func(_ *config.Config, d *config.DCS) { d.User = "u" },
			problems{{Section: "dcs", Key: "user", Value: "u", Text: "password_file is missing; a user and its password go together"}}},
		{"password alone", func(_ *config.Config, d *config.DCS) { d.PasswordFile = "/p" },
			problems{{Section: "dcs", Key: "password_file", Value: "/p", Text: "user is missing; a user and its password go together"}}},
		{"certificate without key", func(_ *config.Config, d *config.DCS) { d.Endpoints[0].TLS, d.Cert = true, "/c" },
			problems{{Section: "dcs", Key: "cert", Value: "/c", Text: "key is missing; a certificate and its key go together"}}},
		{"key without certificate", func(_ *config.Config, d *config.DCS) { d.Endpoints[0].TLS, d.Key = true, "/k" },
			problems{{Section: "dcs", Key: "key", Value: "/k", Text: "cert is missing; a certificate and its key go together"}}},
		{"TLS options without TLS", func(_ *config.Config, d *config.DCS) {
			d.CA, d.Cert, d.Key, d.SNI, d.Insecure = "/ca", "/c", "/k", "etcd.lan", true
		}, problems{
			{Section: "dcs", Key: "ca", Value: "/ca", Text: noTLS}, {Section: "dcs", Key: "cert", Value: "/c", Text: noTLS},
			{Section: "dcs", Key: "key", Value: "/k", Text: noTLS}, {Section: "dcs", Key: "sni", Value: "etcd.lan", Text: noTLS},
			{Section: "dcs", Key: "insecure", Value: "1", Text: noTLS},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, servers := valid()
			d := config.NewDCS("etcd")
			d.Endpoints, d.Scope = []config.Endpoint{at("h1", false)}, "s"
			c.DCS = make([]config.DCS, 1, 2)
			tt.edit(&c, &d)
			c.DCS[0] = d
			if got := config.Check(&c, servers); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, tt.want)
			}
		})
	}
}

// Patroni joins the parts of the key and takes slashes that follow each other for one.
func TestLeaderKey(t *testing.T) {
	for _, tt := range []struct{ namespace, scope, want string }{
		{"/service", "main", "/service/main/leader"},
		{"patroni", "main", "/patroni/main/leader"},
		{"//patroni/x//", "/main", "/patroni/x/main/leader"},
		{"/", "main", "/main/leader"},
	} {
		if got := (&config.DCS{Namespace: tt.namespace, Scope: tt.scope}).LeaderKey(); got != tt.want {
			t.Errorf("%q and %q make %s, want %s", tt.namespace, tt.scope, got, tt.want)
		}
	}
	e := config.Endpoint{TLS: true, Address: config.HostPort{Host: "fd00::1", Port: 1}}
	if e.String() != "https://[fd00::1]:1" {
		t.Error(e)
	}
	if d := config.NewDCS("x"); d.Hints(&config.Backend{Name: "a", Check: config.CheckTCP}) || !d.Hints(&config.Backend{Name: "a", Check: config.CheckHTTP}) {
		t.Error("by default it hints backends with check http")
	}
	d := config.DCS{Backends: []string{"a"}}
	if !d.Hints(&config.Backend{Name: "a", Check: config.CheckTCP}) || d.Hints(&config.Backend{Name: "b", Check: config.CheckHTTP}) {
		t.Error("it hints those that are named")
	}
}
