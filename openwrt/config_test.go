package openwrt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pointsman/openwrt"
	"pointsman/openwrt/uci"
)

// TestConfig reads the shipped configuration as the daemon does: it must be
// valid as it is, start nothing, and say what HAProxy's users had.
func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pointsman")
	if err := os.WriteFile(file, openwrt.Config, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := uci.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Global.Enabled {
		t.Error("it is enabled before anybody edited it")
	}
	if len(cfg.Frontends) != 1 || len(cfg.Backends) != 1 {
		t.Fatalf("%d frontends, %d backends; want one of each", len(cfg.Frontends), len(cfg.Backends))
	}
	f, b := cfg.Frontends[0], cfg.Backends[0]
	got := fmt.Sprintf("%s %v -> %s\n", f.Name, f.Binds, f.DefaultBackend)
	got += fmt.Sprintf("%s: %s, %s %s expects %s, inter %v fall %d rise %d, %s, hold %v\n", b.Name, b.Policy,
		b.Check, b.CheckURI, b.CheckExpect, b.Inter, b.Fall, b.Rise, b.OnMarkedDown, b.Hold)
	for _, s := range b.Servers {
		got += fmt.Sprintf("%s %s check port %d\n", s.Name, s.Address, s.CheckPort)
	}
	if want := `ft_postgres [0.0.0.0:5432] -> bk_postgres_primary
bk_postgres_primary: leader, http /primary expects 200, inter 3s fall 3 rise 2, shutdown-sessions, hold 1m0s
postgres-1 10.100.2.5:5432 check port 8008
postgres-2 10.100.3.185:5432 check port 8008
postgres-3 10.100.1.83:5432 check port 8008
`; got != want {
		t.Errorf("it says:\n%swant:\n%s", got, want)
	}
}
