package config_test

import (
	"reflect"
	"testing"

	"pointsman/config"
)

// sections returns one section of each type, with its defaults.
func sections() map[string]any {
	g, f, b := config.NewGlobal(), config.NewFrontend(""), config.NewBackend("")
	s, d := config.NewServer(""), config.NewDCS("")
	return map[string]any{"global": &g, "frontend": &f, "backend": &b, "server": &s, "dcs": &d}
}

// TestValuesOfDefaults: a default is written as the reference writes it, so
// that whoever compares the two texts knows a default when he sees one.
func TestValuesOfDefaults(t *testing.T) {
	for _, ref := range config.Reference {
		section := sections()[ref.Type]
		for i := range ref.Keys {
			key := &ref.Keys[i]
			var want []string
			if key.Default != "" {
				want = []string{key.Default}
			}
			if got := key.Values(section); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s is %q, want %q", ref.Type, key.Name, got, want)
			}
		}
	}
}

// TestValuesOfSet: what Set took, Values gives back in one form, and Set takes that.
func TestValuesOfSet(t *testing.T) {
	tests := []struct{ section, key, text, want string }{
		{"global", "enabled", "no", "0"},
		{"global", "control", "none", "none"},
		{"global", "control", "/a b", "/a b"},
		{"frontend", "bind", "*:5432", ":5432"},
		{"frontend", "bind", "192.168.9.1:5432", "192.168.9.1:5432"},
		{"frontend", "bind", "[::]:5432", "[::]:5432"},
		{"frontend", "timeout_client", "30m", "30m"},
		{"frontend", "timeout_client", "90s", "90s"},
		{"frontend", "timeout_client", "1h30m", "90m"},
		{"backend", "inter", "1500", "1.5s"},
		{"backend", "inter", "1d", "1d"},
		{"backend", "check_expect", "200-299, 404", "200-299,404"},
		{"backend", "check_header", "Host:  db.lan", "Host: db.lan"},
		{"server", "address", "db.lan:5432", "db.lan:5432"},
		{"server", "address", "[fe80::1%br-lan]:5432", "[fe80::1%br-lan]:5432"},
		{"server", "check_port", "8008", "8008"},
		{"dcs", "endpoint", "https://[fd00::1]:2379", "https://[fd00::1]:2379"},
	}
	for _, test := range tests {
		one, two := sections()[test.section], sections()[test.section]
		key := config.Lookup(test.section).Key(test.key)
		if err := key.Set(one, test.text); err != nil {
			t.Fatal(err)
		}
		got := key.Values(one)
		if !reflect.DeepEqual(got, []string{test.want}) {
			t.Errorf("%s %q comes back as %q, want %q", test.key, test.text, got, test.want)
			continue
		}
		if err := key.Set(two, got[0]); err != nil || !reflect.DeepEqual(one, two) {
			t.Errorf("%s: %q is read as %+v, %v; want %+v", test.key, got[0], two, err, one)
		}
	}
}
