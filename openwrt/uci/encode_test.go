package uci

import (
	"reflect"
	"testing"

	"pointsman/config"
	"pointsman/openwrt"
)

// TestEncode: what Encode writes, Decode reads as the same configuration.
func TestEncode(t *testing.T) {
	tests := map[string]string{
		"the shipped one": string(openwrt.Config),
		"the least":       base,
		"names that UCI's cannot hold, and one name for several": base + `
config frontend 'f2'
	option name 'pg:5433'
	list bind '10.0.0.9:5433'
	list bind '[::]:5433'
	option default_backend 'ft'
config backend 'b2'
	option name 'ft'
	option policy 'leastconn'
	option check_uri '/replica?lag=16MB'
	list check_header 'Host: it'\''s'
	option on_marked_down 'drain'
config server 's2'
	option name 's1'
	option backend 'ft'
	option address 'db.lan:5432'
	option check_port '8008'
	option backup '1'
config server 's3'
	option name 's-1'
	option backend 'ft'
	option address '10.0.0.3:5432'
	option maxconn '100'
config server 's5'
	option name 's:1'
	option backend 'ft'
	option address '10.0.0.5:5432'
config server 's4'
	option name 's_1'
	option backend 'ft'
	option address '10.0.0.4:5432'
config global 'g'
	option control 'none'
	option stop_grace '90'
config dcs 'etcd'
	list endpoint 'https://etcd.lan:2379'
	option scope 's'
	list backend 'bk'
`,
	}
	for name, text := range tests {
		want := decode(t, text)
		if got := decode(t, Encode(&want).Text()); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: Encode wrote\n%s\nwhich says\n%+v\nwant\n%+v", name, Encode(&want).Text(), got, want)
		}
	}
}

// TestEncodeEveryOption sets each option to something that is no default, and
// looks whether it is written.
func TestEncodeEveryOption(t *testing.T) {
	examples := []string{"1", "0", "debug", "/x", "x", "2", "7", "tcp", "postgresql", "first", "HEAD", "404", "5432", "10.0.0.7:1", "http://h:1", "A: b", "drain", "7s"}
	c := decode(t, base)
	c.DCS = []config.DCS{config.NewDCS("d")}
	at := map[string]any{"global": &c.Global, "frontend": &c.Frontends[0], "backend": &c.Backends[0], "server": &c.Backends[0].Servers[0], "dcs": &c.DCS[0]}
	for _, ref := range config.Reference {
		for i := range ref.Keys {
			key := &ref.Keys[i]
			for _, example := range examples {
				if key.Name == "name" || key.Set(at[ref.Type], example) == nil && !reflect.DeepEqual(key.Values(at[ref.Type]), []string{key.Default}) {
					break
				}
			}
		}
	}
	for _, s := range Encode(&c).Sections {
		for _, name := range config.Lookup(s.Type).Names() {
			// A dcs has only one type, and the names are fit as they are.
			if s.Option(name) == nil && name != "name" && s.Type+name != "dcstype" {
				t.Errorf("%s: %s is not written", s.Type, name)
			}
		}
	}
}
