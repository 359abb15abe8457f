package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DCS is a store in which Patroni keeps the leader's key, and whose changes
// hint that the servers should be asked now.
type DCS struct {
	Name         string
	Type         DCSType
	Endpoints    []Endpoint
	Scope        string   // of the Patroni cluster
	Namespace    string   // of Patroni: the keys' common path
	Backends     []string // names of those that it hints; none = every backend with check 'http'
	User         string   // "" = no authentication
	PasswordFile string   // holds the user's password
	CA           string   // PEM file; "" = the system's roots
	Cert         string   // PEM file of the client certificate; "" = none
	Key          string   // PEM file of its key
	SNI          string   // name to send and to verify; "" = the endpoint's host
	Insecure     bool     // accept any certificate
}

// DCSType is the kind of store.
type DCSType string

// Etcd3 is etcd by its v3 API.
const Etcd3 DCSType = "etcd3"

// Endpoint is the URL of one member of a store.
type Endpoint struct {
	TLS     bool // https
	Address HostPort
}

func (e Endpoint) String() string {
	if e.TLS {
		return "https://" + e.Address.String()
	}
	return "http://" + e.Address.String()
}

// LeaderKey returns the key in which Patroni keeps the leader's name, put
// together as Patroni does (_base_path in patroni/dcs/__init__.py).
func (d *DCS) LeaderKey() string {
	parts := strings.FieldsFunc(d.Namespace+"/"+d.Scope, func(r rune) bool { return r == '/' })
	return "/" + strings.Join(parts, "/") + "/leader"
}

// Hints reports whether the store's changes concern the backend.
func (d *DCS) Hints(b *Backend) bool {
	if len(d.Backends) == 0 {
		return b.Check == CheckHTTP
	}
	return slices.Contains(d.Backends, b.Name)
}

// NewDCS returns a section that holds every default, as NewBackend does.
func NewDCS(name string) DCS { return withDefaults(DCS{Name: name}, dcsKeys) }

var dcsKeys = []Key{
	key("name", "", name, "The name in log lines and in the status. Default: the section's name.",
		func(d *DCS) *string { return &d.Name }),
	key("type", "etcd3", oneOf(Etcd3), "The store, and how it is spoken to: etcd by its v3 API, as JSON.",
		func(d *DCS) *DCSType { return &d.Type }),
	list("endpoint", endpoint, "URL of one member of the store: `http://192.168.9.100:2379`. May be given several times. One is watched; where it fails, the next one is.",
		func(d *DCS) *[]Endpoint { return &d.Endpoints }),
	required("scope", keyPath, "Patroni's `scope`: the name of the cluster.",
		func(d *DCS) *string { return &d.Scope }),
	key("namespace", "/service", keyPath, "Patroni's `namespace`. The key that is watched is `NAMESPACE/SCOPE/leader`.",
		func(d *DCS) *string { return &d.Namespace }),
	list("backend", backendName, "A backend that it hints. May be given several times. Default: every backend with check `http`.",
		func(d *DCS) *[]string { return &d.Backends }),
	key("user", "", text(63), "User name, where etcd has authentication on. The user needs to read the key and nothing else.",
		func(d *DCS) *string { return &d.User }),
	key("password_file", "", filePath, "File that holds the user's password. A line break at its end does not count.",
		func(d *DCS) *string { return &d.PasswordFile }),
	key("ca", "", filePath, "PEM file of the authorities to trust. Default: those of the system.",
		func(d *DCS) *string { return &d.CA }),
	key("cert", "", filePath, "PEM file of the client certificate.",
		func(d *DCS) *string { return &d.Cert }),
	key("key", "", filePath, "PEM file of the client certificate's key.",
		func(d *DCS) *string { return &d.Key }),
	key("sni", "", hostName, "Server name to send and to verify. Default: the endpoint's host.",
		func(d *DCS) *string { return &d.SNI }),
	key("insecure", "0", boolean, "Accepts any certificate.",
		func(d *DCS) *bool { return &d.Insecure }),
}

// endpoint is a URL without a path: everything behind the port is the API's.
var endpoint = kind[Endpoint]{"`http://HOST:PORT` or `https://HOST:PORT`, the host an IP address or a name, the port 1 to 65535", func(text string) (Endpoint, error) {
	rest, plain := strings.CutPrefix(text, "http://")
	rest, secured := strings.CutPrefix(rest, "https://")
	if plain == secured {
		return Endpoint{}, errors.New("lacks `http://` or `https://`")
	}
	rest = strings.TrimSuffix(rest, "/")
	switch {
	case strings.Contains(rest, "@"):
		return Endpoint{}, errors.New("holds a user; see `user` and `password_file`")
	case strings.ContainsAny(rest, "/?#"):
		return Endpoint{}, errors.New("has a path")
	}
	address, err := hostPort.parse(rest)
	return Endpoint{secured, address}, err
}}

// keyPath is a part of a key's path; Patroni takes one with slashes and without.
var keyPath = kind[string]{"printable text without blanks, at most 255 bytes", func(text string) (string, error) {
	if text == "" || len(text) > 255 || !printable(text) || strings.Contains(text, " ") {
		return "", errNotAllowed
	}
	return text, nil
}}

func (k *checker) dcs() {
	names := map[string]bool{}
	for i := range k.c.DCS {
		d := &k.c.DCS[i]
		if names[d.Name] {
			k.add("dcs", i, "name", d.Name, "another dcs has that name")
		}
		names[d.Name] = true
		if len(d.Endpoints) == 0 {
			k.add("dcs", i, "endpoint", "", "at least one `list endpoint` is needed")
		}
		for item, e := range d.Endpoints {
			if slices.Contains(d.Endpoints[:item], e) {
				k.addItem("dcs", i, "endpoint", item, e.String(), "is there twice")
			}
		}
		k.hinted(i, d)
		k.secrets(i, d)
	}
}

// hinted refuses a store that would hint nobody.
func (k *checker) hinted(i int, d *DCS) {
	for item, name := range d.Backends {
		b := k.backend[name]
		switch {
		case b == nil:
			k.addItem("dcs", i, "backend", item, name, "no such backend%s", suggest(name, k.names))
		case b.Check == CheckNone:
			k.addItem("dcs", i, "backend", item, name, "has check 'none': there is no check to hint")
		case slices.Contains(d.Backends[:item], name):
			k.addItem("dcs", i, "backend", item, name, "is there twice")
		}
	}
	if len(d.Backends) == 0 && !slices.ContainsFunc(k.c.Backends, func(b Backend) bool { return d.Hints(&b) }) {
		k.add("dcs", i, "backend", "", "no backend has check 'http': name those to hint, each with a `list backend`")
	}
}

// secrets refuses settings that would have no effect, as for checks.
func (k *checker) secrets(i int, d *DCS) {
	switch {
	case d.User != "" && d.PasswordFile == "":
		k.add("dcs", i, "user", d.User, "password_file is missing; a user and its password go together")
	case d.User == "" && d.PasswordFile != "":
		k.add("dcs", i, "password_file", d.PasswordFile, "user is missing; a user and its password go together")
	case d.Cert != "" && d.Key == "":
		k.add("dcs", i, "cert", d.Cert, "key is missing; a certificate and its key go together")
	case d.Cert == "" && d.Key != "":
		k.add("dcs", i, "key", d.Key, "cert is missing; a certificate and its key go together")
	}
	if len(d.Endpoints) == 0 || slices.ContainsFunc(d.Endpoints, func(e Endpoint) bool { return e.TLS }) {
		return
	}
	for _, o := range []struct{ key, value string }{{"ca", d.CA}, {"cert", d.Cert}, {"key", d.Key}, {"sni", d.SNI}} {
		if o.value != "" {
			k.add("dcs", i, o.key, o.value, "has no effect, as no endpoint begins with https://")
		}
	}
	if d.Insecure {
		k.add("dcs", i, "insecure", "1", "has no effect, as no endpoint begins with https://")
	}
}

// addItem is add for one value of a list.
func (k *checker) addItem(section string, index int, key string, item int, value, format string, args ...any) {
	k.problems = append(k.problems, Problem{
		Section: section, Index: index, Key: key, Item: item, Value: value, Text: fmt.Sprintf(format, args...),
	})
}
