package healthcheck

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pointsman/config"
)

// realEtcd is a single member on loopback.
type realEtcd struct {
	t      testing.TB
	url    string
	cmd    *exec.Cmd
	args   []string
	client []string // etcdctl's options
}

// startEtcd starts Debian's etcd. Without it the test is skipped, but in CI.
func startEtcd(t testing.TB, secured *authority) *realEtcd {
	t.Helper()
	binary, err := exec.LookPath("etcd")
	if err == nil {
		_, err = exec.LookPath("etcdctl")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v (Debian's packages etcd-server and etcd-client)", err)
		}
		t.Skipf("%v (Debian's packages etcd-server and etcd-client)", err)
	}
	var files []string
	scheme := "http"
	if secured != nil {
		cert, key := secured.pair(t, "127.0.0.1")
		files = []string{"--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", secured.file}
		scheme = "https"
	}
	// etcd takes no port 0. Another process may take one of these meanwhile.
	for range 5 {
		dir := t.TempDir()
		e := &realEtcd{t: t, url: scheme + "://" + freePort(t)}
		peer := "http://" + freePort(t)
		e.args = append([]string{binary, "--data-dir", filepath.Join(dir, "data"), "--logger", "zap", "--log-outputs", filepath.Join(dir, "log"),
			"--listen-client-urls", e.url, "--advertise-client-urls", e.url, "--listen-peer-urls", peer,
			"--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
			"--heartbeat-interval", "10", "--election-timeout", "100", "--bcrypt-cost", "4"}, files...)
		e.client = []string{"--endpoints", e.url}
		if secured != nil {
			cert, key := secured.pair(t)
			e.client = append(e.client, "--cacert", secured.file, "--cert", cert, "--key", key)
		}
		e.start()
		t.Cleanup(e.stop)
		if e.ready() {
			return e
		}
		e.stop()
	}
	t.Fatal("etcd does not start")
	return nil
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (e *realEtcd) start() {
	e.t.Helper()
	e.cmd = exec.Command(e.args[0], e.args[1:]...)
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *realEtcd) stop() {
	if e.cmd.ProcessState == nil {
		e.cmd.Process.Kill()
		e.cmd.Wait()
	}
}

func (e *realEtcd) ready() bool {
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(5 * ms) {
		if syscall.Kill(e.cmd.Process.Pid, 0) != nil {
			return false
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(strings.TrimPrefix(e.url, "http://"), "https://"))
		if err != nil {
			continue // it does not listen before it has a leader
		}
		conn.Close()
		if out, err := e.try("endpoint", "health"); err == nil && !strings.Contains(out, "unhealthy") {
			return true
		}
	}
	return false
}

func (e *realEtcd) try(args ...string) (string, error) {
	cmd := exec.Command("etcdctl", slices.Concat(e.client, args)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ctl runs etcdctl.
func (e *realEtcd) ctl(args ...string) string {
	e.t.Helper()
	out, err := e.try(args...)
	if err != nil {
		e.t.Fatalf("etcdctl %v: %v: %s", args, err, out)
	}
	return out
}

func testRealEtcd(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t, nil)
	w := watchEtcd(t, quickly, nil, etcd.url)
	w.logged("etcd has no key " + testKey)
	etcd.ctl("put", testKey, "postgres-1")
	w.hint("leader key is now postgres-1")
	w.logged("the key is there now, leader postgres-1")
	etcd.ctl("put", testKey, "postgres-1") // as Patroni does when its lease is another
	etcd.ctl("put", testKey+"x", "other")
	etcd.ctl("put", testKey, "postgres-2")
	w.hint("leader key is now postgres-2")
	etcd.ctl("del", testKey)
	w.hint("leader key is gone, was postgres-2")

	lease := strings.Fields(etcd.ctl("lease", "grant", "60"))[1]
	etcd.ctl("put", testKey, "postgres-2", "--lease", lease)
	w.hint("leader key is now postgres-2")
	etcd.ctl("lease", "revoke", lease) // to a watch the same as its end
	w.hint("leader key is gone, was postgres-2")
	if s := w.Status(); s.Endpoint != etcd.url || s.Changes != 5 || !s.Known || s.There || s.Leader != "" || s.Error != "" || s.Changed.IsZero() {
		t.Errorf("status %+v", s)
	}

	// A restart of the member: what happened meanwhile is a hint too.
	etcd.stop()
	w.logged("no hints from etcd")
	etcd.start()
	if !etcd.ready() {
		t.Fatal("etcd does not start again")
	}
	etcd.ctl("put", testKey, "postgres-3")
	etcd.ctl("compact", "8")
	w.hint("leader key is now postgres-3")
	w.logged("hints from etcd again")
	if n := strings.Count(w.log(), "no hints from etcd"); n != 1 {
		t.Errorf("the fault is told %d times\n%s", n, w.log())
	}
	w.quiet(100 * ms)
}

func testRealEtcdSecured(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "etcd-ca")
	etcd := startEtcd(t, ours)
	for _, args := range [][]string{{"user", "add", "root:secret"}, {"role", "add", "root"}, {"user", "grant-role", "root", "root"},
		{"user", "add", "pointsman:pass:wörd"}, {"role", "add", "reader"}, {"role", "grant-permission", "reader", "read", testKey},
		{"user", "grant-role", "pointsman", "reader"}, {"user", "add", "nobody:x"}, {"auth", "enable"}} {
		etcd.ctl(args...)
	}
	root := []string{"--user", "root:secret"}
	ctl := func(args ...string) { t.Helper(); etcd.ctl(append(root, args...)...) }
	cert, key := ours.pair(t)
	named, namedKey := ours.pair(t, "pointsman")
	settings := func(user, password string) func(*config.DCS) {
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return func(c *config.DCS) {
			c.CA, c.Cert, c.Key, c.User, c.PasswordFile = ours.file, cert, key, user, file
		}
	}
	ctl("put", testKey, "postgres-1")
	w := watchEtcd(t, quickly, settings("pointsman", "pass:wörd"), etcd.url)
	w.logged(testKey + " is watched at " + etcd.url + ", leader postgres-1")
	ctl("put", testKey, "postgres-2")
	w.hint("leader key is now postgres-2")

	// A member that was started again knows no token any more.
	etcd.stop()
	etcd.start()
	w.until("watched again", func(s EtcdStatus) bool { return s.Endpoint != "" && s.Error != "" })
	ctl("del", testKey)
	w.hint("leader key is gone, was postgres-2")

	for _, tt := range []struct {
		name string
		edit func(*config.DCS)
		want string
	}{
		{"wrong password", settings("pointsman", "wrong-secret"), "authenticating as pointsman: etcdserver: authentication failed, invalid user ID or password, status 400"},
		{"no permission", settings("nobody", "x"), "reading " + testKey + ": etcdserver: permission denied, status 403"},
		{"no authority", func(c *config.DCS) { settings("pointsman", "pass:wörd")(c); c.CA = "" }, "Layer6 invalid response: x509: certificate signed by unknown authority"},
		{"a certificate with a name", func(c *config.DCS) { settings("pointsman", "pass:wörd")(c); c.Cert, c.Key = named, namedKey },
			"authenticating as pointsman: CommonName of client sending a request against gateway will be ignored"},
		{"no user", func(c *config.DCS) { c.CA, c.Cert, c.Key = ours.file, cert, key }, "reading " + testKey + ": etcdserver: "},
	} {
		w := watchEtcd(t, quickly, tt.edit, etcd.url)
		w.logged("no hints from etcd")
		s := w.until("many retries", func(s EtcdStatus) bool { return s.Failed.Sub(s.Since) > 60*ms })
		if s.Endpoint != "" || !strings.Contains(s.Error, tt.want) {
			t.Errorf("%s: status %+v", tt.name, s)
		}
		w.end()
		if log := w.log(); strings.Count(log, "\n") != 1 || !strings.Contains(log, tt.want) || strings.Contains(log, "wrong-secret") {
			t.Errorf("%s: log\n%s", tt.name, log)
		}
	}
}
