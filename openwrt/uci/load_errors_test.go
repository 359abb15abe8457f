package uci

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pointsman/openwrt"
)

const wantAddress = "; want 'HOST:PORT' or '[IPv6]:PORT', the host an IP address or a name, the port 1 to 65535"
const wantDuration = " ('500ms', '3s', '1m', '1h', '1d'; a bare number is milliseconds)"
const wantName = "; want letters, digits, '-', '_', '.' and ':', at most 63"

// TestDecodeErrors puts something wrong behind base, which has seven lines.
func TestDecodeErrors(t *testing.T) {
	const backend, server, global = "config backend 'bk'\n", "config server 's1'\n", "config global 'g'\n"
	const server2 = "config server 's2'\n option backend 'bk'\n option address '10.0.0.2:5432'\n"
	const dcs = "config dcs 'etcd'\n list endpoint 'http://10.0.0.1:2379'\n option scope 's'\n"
	tests := []struct{ name, text, want string }{
		{"dangling backend of a server", "config server 's2'\n option backend 'bkk'\n option address 'h:1'\n",
			"f:9: server 's2': option 'backend': 'bkk': no such backend; did you mean 'bk'?"},
		{"dangling default_backend", "config frontend 'f2'\n list bind ':1'\n option default_backend 'zoo'\n",
			"f:10: frontend 'f2': option 'default_backend': 'zoo': no such backend"},
		{"duplicate server name", server2 + " option name 's1'\n",
			"f:11: server 's2': option 'name': 's1': another server of backend 'bk' has that name"},
		{"duplicate server section", "config server 's1'\n option backend 'bk'\n option address '10.0.0.2:5432'\n",
			"f:8: server 's1': another server has that name, on line 5; its option 'backend' would be overwritten"},
		{"duplicate server address", "config server 's2'\n option address '10.0.0.1:5432'\n option backend 'bk'\n",
			"f:9: server 's2': option 'address': '10.0.0.1:5432': server 's1' of the same backend has that address"},
		{"duplicate backend name", "config backend 'b2'\n option name 'bk'\n",
			"f:9: backend 'b2': option 'name': 'bk': another backend has that name"},
		{"duplicate frontend name", "config frontend 'f2'\n option name 'ft'\n list bind ':1'\n option default_backend 'bk'\n",
			"f:9: frontend 'f2': option 'name': 'ft': another frontend has that name"},
		{"two listeners on one address", "config frontend 'f2'\n list bind '[::]:5432'\n list bind '*:5432'\n option default_backend 'bk'\n",
			"f:10: frontend 'f2': option 'bind': '*:5432': frontend 'ft' already listens on 0.0.0.0:5432"},
		{"a listener within another", "config frontend 'ft'\n list bind '192.168.9.1:5432'\n",
			"f:9: frontend 'ft': option 'bind': '192.168.9.1:5432': frontend 'ft' already listens on 0.0.0.0:5432"},
		{"check port 0", server + " option check_port '0'\n",
			"f:9: server 's1': option 'check_port': '0' is not allowed; want a port, 1 to 65535"},
		{"fall 0", backend + " option fall '0'\n",
			"f:9: backend 'bk': option 'fall': '0' is not allowed; want a whole number, 1 to 255"},
		{"rise 0", backend + " option rise '0'\n",
			"f:9: backend 'bk': option 'rise': '0' is not allowed; want a whole number, 1 to 255"},
		{"inter 0", backend + " option inter '0'\n",
			"f:9: backend 'bk': option 'inter': '0' is not allowed; want a duration, 1ms to 1d" + wantDuration},
		{"near-miss of an option", backend + " option chek_uri '/primary'\n",
			"f:9: backend 'bk': option 'chek_uri': unknown; did you mean 'check_uri'?"},
		{"near-miss of a section type", "config fronted 'x'\n option nonsense 1\n",
			"f:8: unknown section type 'fronted'; did you mean 'frontend'?"},

		{"unknown section type", "config resolver 'x'\n",
			"f:8: unknown section type 'resolver'; want one of global, frontend, backend, server, dcs"},
		{"unknown option", global + " option zyx '1'\n",
			"f:9: global 'g': option 'zyx': unknown; a section of type global has no such option"},
		{"option of another section", server + " option inter '1s'\n",
			"f:9: server 's1': option 'inter': unknown; it belongs in a section of type backend"},
		{"option of two other sections", backend + " option maxconn '1'\n",
			"f:9: backend 'bk': option 'maxconn': unknown; it belongs in a section of type frontend or server"},
		{"a list for one value", backend + " list fall '3'\n",
			"f:9: backend 'bk': option 'fall': takes one value; write 'option fall', not 'list fall'"},
		{"an option made a list", backend + " option fall '3'\n list fall '4'\n",
			"f:9: backend 'bk': option 'fall': takes one value; write 'option fall', not 'list fall'"},
		{"an empty list value", "config frontend 'ft'\n list bind\n",
			"f:9: frontend 'ft': option 'bind': '' lacks ':PORT'; want 'ADDRESS:PORT', ':PORT', '*:PORT' or '[IPv6]:PORT', the port 1 to 65535"},
		{"two values in one", "config frontend 'f2'\n option bind ':1 :2'\n option default_backend 'bk'\n",
			"f:9: frontend 'f2': option 'bind': ':1 :2' is an IPv6 address without brackets, or has a ':' too many; want 'ADDRESS:PORT', ':PORT', '*:PORT' or '[IPv6]:PORT', the port 1 to 65535; each value needs a 'list bind' of its own"},
		{"address without a port", server + " option weight 1\nconfig server 's3'\n option backend 'bk'\n option address '10.0.0.3'\n",
			"f:12: server 's3': option 'address': '10.0.0.3' lacks ':PORT'" + wantAddress},
		{"missing options", "config server 's2'\nconfig frontend 'f2'\n",
			"f:8: server 's2': option 'backend': missing; want the name of a backend\n" +
				"f:8: server 's2': option 'address': missing" + wantAddress + "\n" +
				"f:9: frontend 'f2': option 'default_backend': missing; want the name of a backend\n" +
				"f:9: frontend 'f2': option 'bind': at least one 'list bind' is needed"},
		{"required option unset", server + " option address ''\n",
			"f:5: server 's1': option 'address': missing" + wantAddress},
		{"anonymous backend", "config backend\n",
			"f:8: anonymous backend: option 'name': missing; a section without a name needs it, or write 'config backend NAME'"},
		{"anonymous, with a name", "config server\n option name 'pg-2'\n option backend 'bk'\n option address 'h:0'\n",
			"f:11: server 'pg-2': option 'address': 'h:0' has a port that is not allowed" + wantAddress},
		{"bad name", server2 + " option name 'a b'\n",
			"f:11: server 's2': option 'name': 'a b' is not allowed" + wantName},
		{"bad section name", "config backend '" + strings.Repeat("a", 64) + "'\n",
			"f:8: backend '" + strings.Repeat("a", 64) + "': option 'name': '" + strings.Repeat("a", 64) + "' is not allowed" + wantName + "\n" +
				"f:8: backend '" + strings.Repeat("a", 64) + "': no server names this backend; at least one 'config server' with 'option backend '" + strings.Repeat("a", 64) + "'' is needed"},
		{"backend without servers", "config backend 'b2'\n",
			"f:8: backend 'b2': no server names this backend; at least one 'config server' with 'option backend 'b2'' is needed"},
		{"two globals", global + "\nconfig global 'global'\n option loops 9\n",
			"f:10: global 'global': a second global section; the first is on line 8\n" +
				"f:11: global 'global': option 'loops': '9' is not allowed; want a whole number, 0 to 4"},
		{"two anonymous globals", "config global\nconfig global\n",
			"f:9: anonymous global: a second global section; the first is on line 8"},
		{"settings that need each other", backend + " option check_key '/k'\n",
			"f:9: backend 'bk': option 'check_key': '/k': check_cert is missing; a certificate and its key go together"},
		{"line of a value of several lines", server + " option weight 'a\nb'\n option backup 'x\x1b'\n",
			"f:9: server 's1': option 'weight': \"a\\nb\" is not allowed; want a whole number, 0 to 256\n" +
				`f:11: server 's1': option 'backup': "x\x1b" is not allowed; want '0' or '1' (also no/yes, off/on, false/true, disabled/enabled)`},

		{"dcs without anything", "config dcs 'etcd'\n",
			"f:8: dcs 'etcd': option 'scope': missing; want printable text without blanks, at most 255 bytes\n" +
				"f:8: dcs 'etcd': option 'endpoint': at least one 'list endpoint' is needed"},
		{"dcs without a scheme", dcs + " list endpoint '10.0.0.2:2379'\n",
			"f:11: dcs 'etcd': option 'endpoint': '10.0.0.2:2379' lacks 'http://' or 'https://'; want 'http://HOST:PORT' or 'https://HOST:PORT', the host an IP address or a name, the port 1 to 65535"},
		{"dcs of another kind", dcs + " option type 'consul'\n",
			"f:11: dcs 'etcd': option 'type': 'consul' is not allowed; want one of 'etcd3'"},
		{"dcs with a dangling backend", dcs + " list backend 'bk'\n list backend 'bkk'\n",
			"f:12: dcs 'etcd': option 'backend': 'bkk': no such backend; did you mean 'bk'?"},
		{"dcs with a CA that nobody asks", dcs + " option ca '/ca.pem'\n option insecure 1\n",
			"f:11: dcs 'etcd': option 'ca': '/ca.pem': has no effect, as no endpoint begins with https://\n" +
				"f:12: dcs 'etcd': option 'insecure': '1': has no effect, as no endpoint begins with https://"},
		{"dcs with a user alone", dcs + " option user 'u'\n",
			"f:11: dcs 'etcd': option 'user': 'u': password_file is missing; a user and its password go together"},
		{"dcs with a password in the file", dcs + " option password 'p'\n",
			"f:11: dcs 'etcd': option 'password': unknown; did you mean 'password_file'?"},

		// What no line of a file with a syntax error shows for itself is not reported.
		{"syntax errors and others", "config server 'postgres-2'\n option address 'h:1'\nconfig server 's3'\n option fall 1 2\n option weight x\nconfig server\n",
			"f:8: invalid section name 'postgres-2'; letters, digits and '_' are allowed\n" +
				"f:11: too many arguments, from '2' on; a value with blanks needs quotes\n" +
				"f:12: server 's3': option 'weight': 'x' is not allowed; want a whole number, 0 to 256"},

		// Their settings will come with what they set.
		{"the status page", global + " option status '127.0.0.1:8404'\n",
			"f:9: global 'g': option 'status': unknown; a section of type global has no such option"},
		{"sockmap", global + " option sockmap 'off'\n",
			"f:9: global 'g': option 'sockmap': unknown; a section of type global has no such option"},
		{"protocol", "config frontend 'ft'\n option protocol 'http'\n",
			"f:9: frontend 'ft': option 'protocol': 'http' is not allowed; want one of 'tcp', 'postgresql'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode("f", []byte(base+tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s\ngot\n%v\nwant\n%s", tt.text, err, tt.want)
			}
		})
	}
}

func TestEmptyConfig(t *testing.T) {
	for _, text := range []string{"", "\n# nothing\n", "package pointsman\n"} {
		_, err := Decode("/etc/config/pointsman", []byte(text))
		if want := "/etc/config/pointsman: no frontend: at least one 'config frontend' with a 'list bind' is needed"; err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestErrorFields(t *testing.T) {
	_, err := Decode("f", []byte(base+"config server 's1'\n option check_port '0'\n"))
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatal(err)
	}
	want := Error{File: "f", Line: 9, Section: "server 's1'", Option: "check_port", Value: "0", Text: "'0' is not allowed; want a port, 1 to 65535"}
	if len(errs) != 1 || errs[0] != want {
		t.Errorf("got %+v, want %+v", errs, want)
	}
}

// Beyond what anyone reads at once, errors are cut off, and that is said.
func TestDecodeErrorsAreBounded(t *testing.T) {
	for name, text := range map[string]string{
		"unknown options": "config global\n" + strings.Repeat("list log_level x\noption a_b 1\nconfig frontend\n", 2000),
		"bad values":      "config backend b\n" + strings.Repeat("list check_header x\n", 2000),
		"alike":           base + strings.Repeat("config server\n option name s1\n option backend bk\n option address h:1\n", 2000),
	} {
		_, err := Decode("f", []byte(text))
		errs, ok := err.(Errors)
		if !ok || len(errs) != maxErrors+1 {
			t.Fatalf("%s: %d errors, want %d", name, len(errs), maxErrors+1)
		}
		if got := errs[maxErrors].Error(); got != "f: too many errors; the rest is not shown" {
			t.Errorf("%s: %s", name, got)
		}
		if !slices.IsSortedFunc(errs[:maxErrors], func(a, b Error) int { return a.Line - b.Line }) {
			t.Errorf("%s: errors are not in order", name)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := Load(write("good", string(openwrt.Config))); err != nil {
		t.Error(err)
	}
	bad := write("bad", "x")
	if _, err := Load(bad); err == nil || !strings.HasPrefix(err.Error(), bad+":1: invalid command 'x'") {
		t.Error(err)
	}
	full := write("full", base+strings.Repeat("#", MaxSize-len(base)))
	if _, err := Load(full); err != nil {
		t.Error(err)
	}
	huge := write("huge", base+strings.Repeat("#", MaxSize-len(base)+1))
	if _, err := Load(huge); err == nil || err.Error() != huge+": the file has more than 1048576 bytes; no configuration needs that" {
		t.Error(err)
	}
	_, err := Load(dir + "/none")
	if want := "reading the configuration: stat " + dir + "/none: no such file or directory; name an existing file with -c"; err == nil || err.Error() != want || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %s", err, want)
	}
	for _, path := range []string{dir, "/dev/zero"} {
		_, err = Load(path)
		if want := "reading the configuration: open " + path + ": not a regular file; name one with -c"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestLoadForbidden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(base), 0); err != nil {
		t.Fatal(err)
	}
	loaded := make(chan error)
	go func() {
		// Root may read everything. This thread is root no more for files, and
		// ends with the goroutine, because it stays locked to it.
		runtime.LockOSThread()
		syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		_, err := Load(path)
		loaded <- err
	}()
	err := <-loaded
	// Whether the file or its folder is out of reach, depends on who runs the test.
	if err == nil || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) ||
		!strings.HasSuffix(err.Error(), ": permission denied; run as root, or let this user read the file") {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(string(openwrt.Config))
	f.Add(base)
	f.Add(base + "config server s1\n option name 's 1'\n option weight -1\nconfig server\nconfig global\nconfig global x\n")
	f.Add(base + "config frontend f\n list bind '[::]:5432'\n list bind ':5432'\nconfig backend b\n option check_tls 1\n list fall 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Decode("t", []byte(text))
		if err != nil {
			checkErrors(t, text, err)
			return
		}
		if len(c.Frontends) == 0 || len(c.Backends) == 0 {
			t.Errorf("%q is valid, and does nothing", text)
		}
		for _, b := range c.Backends {
			if len(b.Servers) == 0 || b.Inter <= 0 || b.Fall < 1 || b.Rise < 1 {
				t.Errorf("%q is valid, with backend %+v", text, b)
			}
		}
		file, _ := Parse("t", []byte(text))
		if _, err := Decode("t", []byte(file.Text())); err != nil {
			t.Errorf("%q is valid, and %q is not: %v", text, file.Text(), err)
		}
	})
}
