package balancer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"pointsman/config"
)

// keyStore is an etcd to a balancer's eyes: one key by the JSON gateway.
type keyStore struct {
	listener net.Listener
	http     *http.Server

	mu       sync.Mutex
	leader   string // "" = no key
	revision int
	changed  chan struct{} // closed at the next change
	keys     []string      // of all watches that were opened
	open     int           // watches
}

func startStore(t *testing.T, leader string) *keyStore {
	t.Helper()
	s := &keyStore{listener: listen(t), leader: leader, revision: 5, changed: make(chan struct{})}
	s.http = &http.Server{Handler: s}
	go s.http.Serve(s.listener)
	t.Cleanup(func() { s.http.Close() })
	return s
}

// set makes leader the key's value; "" deletes it.
func (s *keyStore) set(leader string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leader, s.revision = leader, s.revision+1
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *keyStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.URL.Path != "/v3/watch" {
		kvs := ""
		if s.leader != "" {
			kvs = s.kv()
		}
		fmt.Fprintf(w, `{"header":{"revision":"%d"},"kvs":[%s]}`, s.revision, kvs)
		return
	}
	var question struct {
		Create struct {
			Key []byte `json:"key"`
		} `json:"create_request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		return
	}
	s.keys = append(s.keys, string(question.Create.Key))
	s.open++
	defer func() { s.open-- }()
	fmt.Fprintln(w, `{"result":{"created":true}}`)
	for {
		w.(http.Flusher).Flush()
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		s.mu.Lock()
		if r.Context().Err() != nil {
			return
		}
		event := `{"kv":` + s.kv() + `}`
		if s.leader == "" {
			event = fmt.Sprintf(`{"type":"DELETE","kv":{"mod_revision":"%d"}}`, s.revision)
		}
		fmt.Fprintln(w, `{"result":{"events":[`+event+`]}}`)
	}
}

func (s *keyStore) kv() string {
	return fmt.Sprintf(`{"create_revision":"%d","mod_revision":"%d","value":"%s"}`, s.revision, s.revision,
		base64.StdEncoding.EncodeToString([]byte(s.leader)))
}

func (s *keyStore) watches() (open int, keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open, append([]string(nil), s.keys...)
}

// section is a configuration that watches the store, of a scope.
func (s *keyStore) section(scope string) config.DCS {
	d := config.NewDCS("etcd")
	d.Endpoints = []config.Endpoint{{Address: config.HostPort{Host: "127.0.0.1", Port: portOf(s.listener)}}}
	d.Scope = scope
	return d
}

// slow has checks come so rarely that only a hint can be the cause of what a test sees.
func slow(c *config.Config, s *keyStore) {
	b := &c.Backends[0]
	b.Inter, b.FastInter, b.Rise = time.Minute, time.Minute, 1
	c.DCS = []config.DCS{s.section("main")}
}

func (w *world) watched(leader string) *Snapshot {
	w.t.Helper()
	return w.until("watched, with "+leader, func(s *Snapshot) bool { return s.DCS[0].Endpoint != "" && s.DCS[0].Leader == leader })
}

// The key changes twice in a switchover, the second time just after the first:
// each has the servers asked, and nothing else does here.
func TestDCSHints(t *testing.T) {
	var etcd *keyStore
	w := start(t, func(c *config.Config) {
		etcd = startStore(t, "a")
		slow(c, etcd)
		c.Backends[0].Fall = 1
	}, "a", "b")
	w.watched("a")
	w.lead(0, 5)
	etcd.set("a") // of another reign
	w.untilLeader("a")
	idle := w.dial()
	idle.wantNode("a")

	w.lead(-1, 5)
	etcd.set("")
	w.until("without a leader", func(s *Snapshot) bool { return !s.Backends[0].Accepting })
	w.lead(1, 6)
	etcd.set("b")
	s := w.untilLeader("b")
	if got := idle.line(); got != "" {
		t.Errorf("after the switchover: %q", got)
	}
	d := s.DCS[0]
	if d.Name != "etcd" || d.Key != "/service/main/leader" || !d.Exists || !d.Known || d.Changes != 3 || d.Changed.IsZero() || d.Error != "" ||
		d.Endpoint != "http://"+etcd.listener.Addr().String() {
		t.Errorf("status %+v", d)
	}
	for _, text := range []string{"etcd: leader key was made anew by a", "etcd: leader key is gone, was a", "etcd: leader key is now b"} {
		if !strings.Contains(w.log.String(), text) {
			t.Errorf("the log lacks %q", text)
		}
	}
}

// What the store says decides nothing: not that another leads, nor that nobody does.
func TestDCSDecidesNothing(t *testing.T) {
	var etcd *keyStore
	w := start(t, func(c *config.Config) {
		etcd = startStore(t, "a")
		c.DCS = []config.DCS{etcd.section("main")}
	}, "a", "b")
	w.lead(0, 5)
	w.untilLeader("a")
	w.watched("a")
	s := w.dial()
	s.wantNode("a")
	epoch := w.b.Snapshot().Backends[0].Epoch
	for _, leader := range []string{"b", "", "nobody that is known"} {
		probes := w.probes()
		etcd.set(leader)
		w.watched(leader)
		w.until("asked", func(*Snapshot) bool { return w.probes() >= probes+2*len(w.nodes) })
		s.echo("still here")
		if got := w.b.Snapshot().Backends[0]; got.Leader != "a" || got.Epoch != epoch {
			t.Errorf("after %q: leader %q, epoch %d, was %d", leader, got.Leader, got.Epoch, epoch)
		}
	}
	etcd.http.Close() // and without the store everything goes on
	w.untilLog("no hints from etcd")
	w.lead(1, 6)
	w.untilLeader("b")
}

func (w *world) probes() (sum int) {
	for _, n := range w.nodes {
		n.mu.Lock()
		sum += n.probes
		n.mu.Unlock()
	}
	return sum
}

// A reload leaves a watch alone that it does not change.
func TestDCSReload(t *testing.T) {
	var etcd *keyStore
	w := start(t, func(c *config.Config) {
		etcd = startStore(t, "a")
		slow(c, etcd)
	}, "a")
	w.watched("a")
	reload := func(change func(*config.Config)) error {
		return w.reload(func(c *config.Config) { slow(c, etcd); change(c) })
	}
	watches := func(want ...string) {
		t.Helper()
		w.until("watched as it should be", func(*Snapshot) bool {
			open, keys := etcd.watches()
			return open <= 1 && fmt.Sprint(keys) == fmt.Sprint(want)
		})
	}
	for _, tt := range []struct {
		name   string
		change func(*config.Config)
		want   []string
	}{
		{"nothing", func(*config.Config) {}, []string{"/service/main/leader"}},
		{"something else", func(c *config.Config) { c.Backends[0].Fall = 7 }, []string{"/service/main/leader"}},
		{"the scope", func(c *config.Config) { c.DCS[0].Scope = "other" }, []string{"/service/main/leader", "/service/other/leader"}},
		{"back again", func(*config.Config) {}, []string{"/service/main/leader", "/service/other/leader", "/service/main/leader"}},
	} {
		if err := reload(tt.change); err != nil {
			t.Fatal(err)
		}
		watches(tt.want...)
		w.watched("a")
		if t.Failed() {
			t.Fatal(tt.name)
		}
	}
	err := reload(func(c *config.Config) {
		c.DCS[0].User, c.DCS[0].PasswordFile, c.Backends[0].Fall = "u", "/nowhere", 9
	})
	if err == nil || err.Error() != "dcs 'etcd': password_file: open /nowhere: no such file or directory" {
		t.Errorf("a password that is not there: %v", err)
	}
	w.b.do(func() {
		if w.b.cfg.Backends[0].Fall == 9 || w.b.stores[0].cfg.User != "" {
			t.Error("a configuration that was refused is in force")
		}
	})
	if err := reload(func(c *config.Config) { c.DCS = nil }); err != nil {
		t.Fatal(err)
	}
	w.until("watched no more", func(s *Snapshot) bool {
		open, _ := etcd.watches()
		return open == 0 && len(s.DCS) == 0
	})
}
