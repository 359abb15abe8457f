package uci

import (
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pointsman/config"
	"pointsman/openwrt"
)

// base is the least that is valid: seven lines, for tests to put theirs behind.
const base = `config frontend 'ft'
	list bind ':5432'
	option default_backend 'bk'
config backend 'bk'
config server 's1'
	option backend 'bk'
	option address '10.0.0.1:5432'
`

func decode(t *testing.T, text string) config.Config {
	t.Helper()
	c, err := Decode("pointsman", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestShippedConfig holds the file of the package to the job that it is for.
func TestShippedConfig(t *testing.T) {
	c := decode(t, string(openwrt.Config))

	global := config.NewGlobal()
	global.Enabled = false // a user has other nodes; nothing starts before they are named
	if c.Global != global {
		t.Errorf("global is %+v, want %+v", c.Global, global)
	}

	frontend := config.NewFrontend("ft_postgres")
	frontend.Binds = []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:5432")}
	frontend.DefaultBackend = "bk_postgres_primary"
	frontend.Protocol = config.PostgreSQL
	frontend.MaxConn = 2000
	if want := []config.Frontend{frontend}; !reflect.DeepEqual(c.Frontends, want) {
		t.Errorf("frontends are %+v, want %+v", c.Frontends, want)
	}

	backend := config.NewBackend("bk_postgres_primary")
	backend.Policy, backend.Check, backend.CheckURI = config.Leader, config.CheckHTTP, "/primary"
	backend.CheckExpect = config.StatusSet{{From: 200, To: 200}}
	backend.Inter, backend.Fall, backend.Rise = 3*time.Second, 3, 2
	backend.OnMarkedDown, backend.Hold = config.ShutdownSessions, time.Minute
	for i, host := range []string{"10.100.2.5", "10.100.3.185", "10.100.1.83"} {
		s := config.NewServer("postgres-" + string(rune('1'+i)))
		s.Backend = "bk_postgres_primary"
		s.Address = config.HostPort{Host: host, Port: 5432}
		s.CheckPort = 8008
		backend.Servers = append(backend.Servers, s)
	}
	if want := []config.Backend{backend}; !reflect.DeepEqual(c.Backends, want) {
		t.Errorf("backends are\n%+v, want\n%+v", c.Backends, want)
	}
}

// TestDocumentedConfig reads the configurations that the documentation shows.
func TestDocumentedConfig(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(doc), "```uci\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("%d configurations in the documentation", len(blocks))
	}
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		decode(t, text)
	}
}

// TestDocumentedDCS reads the section that the documentation shows behind the
// shipped configuration.
func TestDocumentedDCS(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(doc), "```\nconfig dcs")
	text, _, _ = strings.Cut(text, "```")
	if !found {
		t.Fatal("the documentation shows no section of type dcs")
	}
	c := decode(t, string(openwrt.Config)+"config dcs"+text)
	if len(c.DCS) != 1 || len(c.DCS[0].Endpoints) != 3 || c.DCS[0].LeaderKey() != "/patroni/nocodb-cluster/leader" {
		t.Errorf("it is read as %+v", c.DCS)
	}
}

// The documentation shows these errors.
func TestDocumentedErrors(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Decode("/etc/config/pointsman", []byte(`config frontend 'ft_postgres'
	list bind ':5432'
	option default_backend 'bk_postgres'

config backend 'bk_postgres_primary'
	option chek_uri '/primary'
	option fall '0'

config server 'postgres_1'
	option backend 'bk_postgres_primary'
	option address '10.100.2.5:5432'
	option check_port '80080'
`))
	if err == nil || !strings.Contains(string(doc), "```\n"+err.Error()+"\n```\n") {
		t.Errorf("the documentation shows other errors than\n%v", err)
	}
}

func TestDecode(t *testing.T) {
	tests := []struct {
		name, text string
		want       func(config.Config) bool
	}{
		{"defaults", base, func(c config.Config) bool {
			b, s := config.NewBackend("bk"), config.NewServer("s1")
			s.Backend, s.Address = "bk", config.HostPort{Host: "10.0.0.1", Port: 5432}
			b.Servers = []config.Server{s}
			return c.Global == config.NewGlobal() && reflect.DeepEqual(c.Backends, []config.Backend{b})
		}},
		{"disabled", base + "config global\n option enabled '0'\n", func(c config.Config) bool {
			return !c.Global.Enabled && len(c.Frontends) == 1 && len(c.Backends[0].Servers) == 1
		}},
		{"anonymous sections with names", `
config frontend
	option name 'ft:1'
	list bind ':5432'
	option default_backend 'bk'
config backend
	option name 'bk'
config server
	option name 'pg-1'
	option backend 'bk'
	option address '10.0.0.1:5432'
config server
	option name 'pg-2'
	option backend 'bk'
	option address '10.0.0.2:5432'
config global
`, func(c config.Config) bool {
			b := c.Backends[0]
			return c.Frontends[0].Name == "ft:1" && b.Name == "bk" && b.Servers[0].Name == "pg-1" && b.Servers[1].Name == "pg-2"
		}},
		{"references go by option name", base + "config backend 'b2'\n option name 'bk-2'\nconfig server 's2'\n option backend 'bk-2'\n option address 'db.lan:5432'\n", func(c config.Config) bool {
			return c.Backends[1].Name == "bk-2" && c.Backends[1].Servers[0].Address == config.HostPort{Host: "db.lan", Port: 5432}
		}},
		{"servers before their backend", "config server 's2'\n option backend 'bk'\n option address '10.0.0.2:5432'\n" + base, func(c config.Config) bool {
			return len(c.Backends[0].Servers) == 2 && c.Backends[0].Servers[0].Name == "s2"
		}},
		{"an option for a list", strings.Replace(base, "list bind", "option bind", 1), func(c config.Config) bool {
			return len(c.Frontends[0].Binds) == 1
		}},
		{"lists", base + "config frontend 'ft'\n list bind '[::]:5432'\nconfig backend 'bk'\n list check_header 'Host: a b'\n list check_header 'X-A: 1'\n", func(c config.Config) bool {
			return len(c.Frontends[0].Binds) == 2 && reflect.DeepEqual(c.Backends[0].CheckHeaders, []config.Header{{Name: "Host", Value: "a b"}, {Name: "X-A", Value: "1"}})
		}},
		{"a section continued", base + "config backend 'bk'\n option fall 5\nconfig server 's1'\n option weight 3\n", func(c config.Config) bool {
			return c.Backends[0].Fall == 5 && len(c.Backends[0].Servers) == 1 && c.Backends[0].Servers[0].Weight == 3
		}},
		{"an option twice", base + "config backend 'b2'\n option fall 5\n option fall 6\n config server s2\n option backend b2\n option address h:1\n", func(c config.Config) bool {
			return c.Backends[1].Fall == 6
		}},
		{"unset", base + "config backend 'bk'\n option hold '5s'\n option hold ''\n option rise\n", func(c config.Config) bool {
			return c.Backends[0].Hold == time.Minute && c.Backends[0].Rise == 2
		}},
		{"no control socket", base + "config global g\n option control none\n", func(c config.Config) bool { return c.Global.Control == "" }},
		{"package of another name", "package 'network'\n" + base, func(c config.Config) bool { return len(c.Frontends) == 1 }},
		{"CRLF", strings.ReplaceAll(base, "\n", "\r\n"), func(c config.Config) bool { return c.Frontends[0].DefaultBackend == "bk" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if c := decode(t, tt.text); !tt.want(c) {
				t.Errorf("%s\nis read as %+v", tt.text, c)
			}
		})
	}
}
