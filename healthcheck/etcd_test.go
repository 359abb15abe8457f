package healthcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pointsman/config"
)

// What reads and a watch tell in turn, and what of it is news.
func TestKeyView(t *testing.T) {
	a, b := leaderKey{true, "a", 2}, leaderKey{true, "b", 7}
	anew := leaderKey{true, "a", 9}
	type step struct {
		how    string // told, check
		r      reading
		agrees bool
		news   string
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"all is well", []step{{"told", reading{a, 5}, false, ""}, {"check", reading{a, 6}, true, ""}, {"check", reading{a, 900}, true, ""}}},
		{"a watch that missed", []step{{"told", reading{a, 5}, false, ""}, {"check", reading{b, 8}, false, "leader key is now b"}, {"check", reading{b, 8}, false, ""}}},
		{"a watch that is late", []step{{"told", reading{a, 5}, false, ""}, {"check", reading{b, 8}, false, "leader key is now b"},
			{"told", reading{b, 7}, false, ""}, {"check", reading{b, 8}, true, ""}}},
		{"a read that is late", []step{{"told", reading{a, 5}, false, ""}, {"told", reading{b, 7}, false, "leader key is now b"}, {"check", reading{a, 6}, true, ""}}},
		{"late, and by now more", []step{{"told", reading{a, 5}, false, ""}, {"check", reading{b, 8}, false, "leader key is now b"},
			{"told", reading{b, 7}, false, ""}, {"told", reading{anew, 9}, false, "leader key is now a"}, {"check", reading{b, 8}, true, ""}}},
		{"gone", []step{{"told", reading{a, 5}, false, ""}, {"check", reading{leaderKey{}, 8}, false, "leader key is gone, was a"}, {"told", reading{leaderKey{}, 8}, false, ""}}},
		{"gone and anew, between two reads", []step{{"told", reading{a, 5}, false, ""}, {"check", reading{anew, 9}, false, "leader key was made anew by a"}}},
		{"never there", []step{{"told", reading{leaderKey{}, 5}, false, ""}, {"check", reading{leaderKey{}, 8}, true, ""}, {"told", reading{a, 9}, false, "leader key is now a"}}},
		{"another watch, a change meanwhile", []step{{"told", reading{a, 5}, false, ""}, {"told", reading{b, 8}, false, "leader key is now b"}, {"check", reading{b, 9}, true, ""}}},
		{"a store from a backup", []step{{"told", reading{b, 800}, false, ""}, {"told", reading{a, 5}, false, "leader key is now a"}, {"check", reading{b, 6}, false, "leader key is now b"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var v keyView
			for i, s := range tt.steps {
				var agrees bool
				var news string
				if s.how == "told" {
					news = v.told(s.r)
				} else {
					agrees, news = v.check(s.r)
				}
				if agrees != s.agrees || news != s.news {
					t.Errorf("step %d: %v, %q, want %v, %q", i, agrees, news, s.agrees, s.news)
				}
			}
		})
	}
}

// Waits grow to their bound, and differ.
func TestEtcdPause(t *testing.T) {
	e := &Etcd{pace: defaultEtcdPace}
	for _, tt := range []struct {
		rounds    int
		from, til time.Duration
	}{{1, 50 * ms, 100 * ms}, {2, 100 * ms, 200 * ms}, {6, 1600 * ms, 3200 * ms}, {7, 2500 * ms, 5 * time.Second}, {1000, 2500 * ms, 5 * time.Second}} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := e.pause(tt.rounds)
			if d < tt.from || d > tt.til {
				t.Errorf("round %d: %v, want %v to %v", tt.rounds, d, tt.from, tt.til)
			}
			seen[d] = true
		}
		if len(seen) < 50 {
			t.Errorf("round %d: only %d different waits of 100", tt.rounds, len(seen))
		}
	}
}

// A watch is called one after settle, and ends when its context does.
func TestEtcdSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			lasts time.Duration
			want  bool
		}{{1900 * ms, false}, {2100 * ms, true}} {
			w := &watched{t: t}
			e := unconnected(w)
			ended := make(chan error, 1)
			time.AfterFunc(tt.lasts, func() { ended <- errMissed })
			settled, err := e.attend(t.Context(), nil, ended)
			if settled != tt.want || err != errMissed || strings.Contains(w.log(), "is watched at") != tt.want {
				t.Errorf("after %v: settled %v, %v, log %q", tt.lasts, settled, err, w.log())
			}
		}
	})
}

func TestNewEtcdErrors(t *testing.T) {
	dir := t.TempDir()
	empty, notPEM := filepath.Join(dir, "empty"), filepath.Join(dir, "notes.txt")
	for file, text := range map[string]string{empty: "\n", notPEM: "hello"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		edit func(*config.DCS)
		want string
	}{
		{func(c *config.DCS) { c.User, c.PasswordFile = "u", "/nowhere" }, "password_file: open /nowhere: no such file or directory"},
		{func(c *config.DCS) { c.User, c.PasswordFile = "u", empty }, "password_file: " + empty + " is empty"},
		{func(c *config.DCS) { c.CA = "/nowhere" }, "ca: open /nowhere: no such file or directory"},
		{func(c *config.DCS) { c.CA = notPEM }, "ca: " + notPEM + ": no certificate in it"},
		{func(c *config.DCS) { c.Cert, c.Key = notPEM, notPEM }, "cert: " + notPEM + " with key " + notPEM + ": tls: "},
	} {
		c := config.DCS{Endpoints: []config.Endpoint{{TLS: true, Address: config.HostPort{Host: "h", Port: 1}}}}
		tt.edit(&c)
		if _, err := NewEtcd(&c, nil, nil); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

// A file with another content is another setting.
func TestEtcdSameFiles(t *testing.T) {
	one, same, other := &Etcd{}, &Etcd{}, &Etcd{}
	for _, m := range []struct {
		e    *Etcd
		text string
	}{{one, "x"}, {same, "x"}, {other, "y"}} {
		password(t, m.text)(&m.e.cfg)
		if err := m.e.readFiles(); err != nil {
			t.Fatal(err)
		}
	}
	if !one.SameFiles(same) || one.SameFiles(other) || one.SameFiles(&Etcd{}) {
		t.Error("files are told apart by something else than what they hold")
	}
}

// A link-local address is dialled with its zone and named without.
func TestEtcdZone(t *testing.T) {
	c := config.DCS{Endpoints: []config.Endpoint{{TLS: true, Address: config.HostPort{Host: "fe80::1%br-lan", Port: 2379}}}}
	e, err := NewEtcd(&c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := e.members[0]; m.addr != "[fe80::1%br-lan]:2379" || m.host != "[fe80::1]:2379" || m.tls.ServerName != "fe80::1" || m.url != "https://[fe80::1%br-lan]:2379" {
		t.Errorf("%+v, named %s", m, m.tls.ServerName)
	}
}
