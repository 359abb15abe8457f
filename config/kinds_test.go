package config_test

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"pointsman/config"
)

const (
	ms   = time.Millisecond
	hour = time.Hour
	day  = 24 * time.Hour
)

// sample is one key with values that it takes, and what they become, and
// values that it refuses, and why.
type sample struct {
	key   string // section.option
	field string
	good  values
	bad   refusals
}

type (
	values   map[string]any
	refusals map[string]string
)

const no = "is not allowed"

// durations tries a duration, its limits, and what is just beyond them.
func durations(key, field string, min, max time.Duration) sample {
	good := values{min.String(): min, max.String(): max, "1000": 1000 * ms, "1.5s": 1500 * ms, "1m0s": time.Minute}
	bad := refusals{"": no, "x": no, "s": no, "d": no, "-1s": no, "+1s": no, "1 s": no, "3s ": no, "1w": no, "1.5d": no,
		"4294967296": no, "65536d": no, "99999999999999999999s": no, "1500001us": "is finer than a millisecond",
		(min - ms).String(): no, (max + ms).String(): no}
	return sample{key, field, good, bad}
}

func integers(key, field string, min, max int) sample {
	good := values{strconv.Itoa(min): min, strconv.Itoa(max): max}
	bad := refusals{"": no, "x": no, "+1": no, "1.0": no, "1 ": no, "0x1": no, "1e1": no, "4294967297": no, "99999999999999999999": no,
		strconv.Itoa(min - 1): no, strconv.Itoa(max + 1): no}
	return sample{key, field, good, bad}
}

func (s sample) try(t *testing.T) {
	sectionType, name, _ := strings.Cut(s.key, ".")
	key := config.Lookup(sectionType).Key(name)
	for text, want := range s.good {
		dst := newSection(sectionType)
		if err := key.Set(dst, text); err != nil {
			t.Errorf("%q %v", text, err)
		}
		wanted := newSection(sectionType)
		reflect.ValueOf(wanted).Elem().FieldByName(s.field).Set(reflect.ValueOf(want))
		if !reflect.DeepEqual(dst, wanted) {
			t.Errorf("%q makes %+v, want %+v", text, dst, wanted)
		}
	}
	for text, why := range s.bad {
		dst := newSection(sectionType)
		if err := key.Set(dst, text); err == nil || err.Error() != why {
			t.Errorf("%q: %v, want: %s", text, err, why)
		}
		if !reflect.DeepEqual(dst, newSection(sectionType)) {
			t.Errorf("%q is refused, and changes %+v", text, dst)
		}
	}
}

func newSection(sectionType string) any {
	switch sectionType {
	case "global":
		return new(config.NewGlobal())
	case "frontend":
		return new(config.NewFrontend("section"))
	case "backend":
		return new(config.NewBackend("section"))
	case "dcs":
		return new(config.NewDCS("section"))
	}
	return new(config.NewServer("section"))
}

func TestKinds(t *testing.T) {
	bind := func(text string) []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort(text)} }
	names := values{"a": "a", "postgres-1.lan:x_Y": "postgres-1.lan:x_Y", strings.Repeat("n", 63): strings.Repeat("n", 63)}
	notNames := refusals{"": no, "a b": no, "é": no, "a/b": no, "a'b": no, "a\n": no, strings.Repeat("n", 64): no}
	booleans := values{"1": true, "on": true, "true": true, "yes": true, "enabled": true,
		"0": false, "off": false, "false": false, "no": false, "disabled": false}
	notBooleans := refusals{"": no, "2": no, "ON": no, "y": no, " 1": no, "-1": no}
	paths := values{"/": "/", "/etc/ca é.pem": "/etc/ca é.pem", "/" + strings.Repeat("p", 4094): "/" + strings.Repeat("p", 4094)}
	notPaths := refusals{"": no, "ca.pem": "does not begin with '/'", "/a\x00": no, "/a\nb": no, "/\xff": no, "/" + strings.Repeat("p", 4095): "is too long"}

	samples := []sample{
		{"global.enabled", "Enabled", booleans, notBooleans},
		{"global.log_level", "LogLevel", values{"error": config.LogError, "warning": config.LogWarning, "info": config.LogInfo, "debug": config.LogDebug},
			refusals{"": no, "warn": no, "Info": no}},
		{"global.control", "Control", values{"/run/x.sock": "/run/x.sock", "none": "", "/" + strings.Repeat("s", 106): "/" + strings.Repeat("s", 106)},
			refusals{"": no, "x.sock": "does not begin with '/'", "@x": "does not begin with '/'", "/" + strings.Repeat("s", 107): "is too long", "/a\tb": no}},
		integers("global.loops", "Loops", 0, 4),
		durations("global.stop_grace", "StopGrace", 0, hour),

		{"frontend.name", "Name", names, notNames},
		{"frontend.bind", "Binds", values{
			":5432": bind("0.0.0.0:5432"), "*:1": bind("0.0.0.0:1"), "0.0.0.0:65535": bind("0.0.0.0:65535"),
			"192.168.9.1:5432": bind("192.168.9.1:5432"), "[::]:5432": bind("[::]:5432"),
			"[fe80::1%br-lan]:5432": bind("[fe80::1%br-lan]:5432"), "[::ffff:1.2.3.4]:1": bind("1.2.3.4:1"),
		}, refusals{
			"": "lacks `:PORT`", "5432": "lacks `:PORT`", "192.168.9.1": "lacks `:PORT`",
			":": "has a port that is not allowed", ":0": "has a port that is not allowed", ":65536": "has a port that is not allowed", ":pg": "has a port that is not allowed", ":+1": "has a port that is not allowed",
			"::1:5432": "is an IPv6 address without brackets, or has a `:` too many", ":1:2": "is an IPv6 address without brackets, or has a `:` too many",
			"[::1]": "has no IPv6 address in its brackets, or lacks `:PORT`", "[1.2.3.4]:1": "has no IPv6 address in its brackets, or lacks `:PORT`", "[::1:5432": "has no IPv6 address in its brackets, or lacks `:PORT`", "[]:1": "has no IPv6 address in its brackets, or lacks `:PORT`",
			"router.lan:5432": "is not an address to listen on", "256.0.0.1:1": "is not an address to listen on", "224.0.0.1:1": "is not an address to listen on", "255.255.255.255:1": "is not an address to listen on", " :1": "is not an address to listen on", "[ff02::1]:1": "is not an address to listen on",
		}},
		{"frontend.default_backend", "DefaultBackend", names, notNames},
		{"frontend.protocol", "Protocol", values{"tcp": config.TCP, "postgresql": config.PostgreSQL}, refusals{"": no, "http": no, "pgsql": no}},
		integers("frontend.maxconn", "MaxConn", 1, 1_000_000),
		durations("frontend.timeout_client", "TimeoutClient", 0, day),
		durations("frontend.timeout_client_fin", "TimeoutClientFin", 0, day),
		{"frontend.tcplog", "TCPLog", booleans, notBooleans},

		{"backend.name", "Name", names, notNames},
		{"backend.policy", "Policy", values{"leader": config.Leader, "roundrobin": config.RoundRobin, "leastconn": config.LeastConn, "first": config.First, "source": config.Source},
			refusals{"": no, "round-robin": no, "Leader": no}},
		{"backend.check", "Check", values{"http": config.CheckHTTP, "tcp": config.CheckTCP, "pgsql": config.CheckPgSQL, "none": config.CheckNone}, refusals{"": no, "https": no}},
		{"backend.check_method", "CheckMethod", values{"GET": "GET", "HEAD": "HEAD", "OPTIONS": "OPTIONS"}, refusals{"": no, "get": no, "POST": no}},
		{"backend.check_uri", "CheckURI", values{"/": "/", "/replica?lag=16MB&x=%20": "/replica?lag=16MB&x=%20", "/" + strings.Repeat("u", 1023): "/" + strings.Repeat("u", 1023)},
			refusals{"": no, "primary": no, "http://h/": no, "/a b": no, "/a#b": no, "/é": no, "/a\r\nX: y": no, "/" + strings.Repeat("u", 1024): no}},
		{"backend.check_header", "CheckHeaders", values{
			"Host: patroni.lan": []config.Header{{Name: "Host", Value: "patroni.lan"}}, "X-A:b: c ": []config.Header{{Name: "X-A", Value: "b: c"}}, "X-Empty:": []config.Header{{Name: "X-Empty"}},
		}, refusals{"": no, "Host": no, ": x": no, "Ho st: x": no, "Höst: x": no, "Host : x": no, "A: b\r\nC: d": no,
			"connection: close": "is a header that the check sets itself", "Content-Length: 1": "is a header that the check sets itself", "Transfer-Encoding: chunked": "is a header that the check sets itself"}},
		{"backend.check_expect", "CheckExpect", values{
			"200": config.StatusSet{{From: 200, To: 200}}, "200-299,404": config.StatusSet{{From: 200, To: 299}, {From: 404, To: 404}}, "100-599": config.StatusSet{{From: 100, To: 599}}, "200, 503": config.StatusSet{{From: 200, To: 200}, {From: 503, To: 503}},
		}, refusals{"": no, ",": no, "200,": no, "99": no, "600": no, "300-200": no, "200-": no, "-200": no, "200-300-400": no, "2xx": no, "+200": no, "200 300": no, "70000": no}},
		{"backend.check_body", "CheckBody", values{`"role": "primary"`: `"role": "primary"`, strings.Repeat("b", 256): strings.Repeat("b", 256)}, refusals{"a\nb": no, "\xff": no, strings.Repeat("b", 257): no}},
		{"backend.check_user", "CheckUser", values{"postgres": "postgres"}, refusals{"a\x00b": no, strings.Repeat("u", 64): no}},
		{"backend.check_tls", "CheckTLS", booleans, notBooleans},
		{"backend.check_ca", "CheckCA", paths, notPaths},
		{"backend.check_cert", "CheckCert", paths, notPaths},
		{"backend.check_key", "CheckKey", paths, notPaths},
		{"backend.check_sni", "CheckSNI", values{"patroni.lan": "patroni.lan", "10.0.0.1": "10.0.0.1", "fd00::1": "fd00::1"},
			refusals{"": "is neither an IP address nor a host name", "a:b": "is neither an IP address nor a host name", "*.lan": "is neither an IP address nor a host name", "0.0.0.0": "is not the address of a host"}},
		{"backend.check_insecure", "CheckInsecure", booleans, notBooleans},
		durations("backend.inter", "Inter", ms, day),
		durations("backend.fastinter", "FastInter", ms, day),
		durations("backend.downinter", "DownInter", 0, day),
		integers("backend.fall", "Fall", 1, 255),
		integers("backend.rise", "Rise", 1, 255),
		durations("backend.timeout_check", "TimeoutCheck", ms, time.Minute),
		{"backend.on_marked_down", "OnMarkedDown", values{"shutdown-sessions": config.ShutdownSessions, "none": config.KeepSessions, "drain": config.DrainSessions}, refusals{"": no, "drop": no}},
		{"backend.on_removed", "OnRemoved", values{"shutdown-sessions": config.RemovedShutdown, "drain": config.RemovedDrain}, refusals{"": no, "none": no}},
		durations("backend.hold", "Hold", 0, hour),
		integers("backend.hold_max", "HoldMax", 0, 1_000_000),
		durations("backend.timeout_connect", "TimeoutConnect", ms, hour),
		durations("backend.timeout_queue", "TimeoutQueue", 0, hour),
		durations("backend.timeout_server", "TimeoutServer", 0, day),
		durations("backend.timeout_server_fin", "TimeoutServerFin", 0, day),
		durations("backend.resolve", "Resolve", time.Second, day),

		{"server.name", "Name", names, notNames},
		{"server.backend", "Backend", names, notNames},
		{"server.address", "Address", values{
			"10.100.2.5:5432": config.HostPort{Host: "10.100.2.5", Port: 5432}, "[fd00::5]:5432": config.HostPort{Host: "fd00::5", Port: 5432}, "[FD00:0::5]:1": config.HostPort{Host: "fd00::5", Port: 1},
			"[fe80::1%br-lan]:1": config.HostPort{Host: "fe80::1%br-lan", Port: 1}, "[::ffff:1.2.3.4]:1": config.HostPort{Host: "1.2.3.4", Port: 1},
			"db1.lan:5432": config.HostPort{Host: "db1.lan", Port: 5432}, "db_1.lan.:65535": config.HostPort{Host: "db_1.lan.", Port: 65535}, "4.example:1": config.HostPort{Host: "4.example", Port: 1},
		}, refusals{
			"": "lacks `:PORT`", "10.100.2.5": "lacks `:PORT`", "db1.lan": "lacks `:PORT`", "10.100.2.5:0": "has a port that is not allowed", "db1.lan:": "has a port that is not allowed",
			"fd00::5:5432": "is an IPv6 address without brackets, or has a `:` too many", "http://10.0.0.1:8008": "is an IPv6 address without brackets, or has a `:` too many",
			":5432": "is neither an IP address nor a host name", "*:5432": "is neither an IP address nor a host name", "10.100.2.500:5432": "is neither an IP address nor a host name", "10.100.2:5432": "is neither an IP address nor a host name",
			"-a:1": "is neither an IP address nor a host name", "a..b:1": "is neither an IP address nor a host name", "a b:1": "is neither an IP address nor a host name", "postgres:pw@h:1": "is an IPv6 address without brackets, or has a `:` too many", "pw@h:1": "is neither an IP address nor a host name",
			strings.Repeat("a", 64) + ":1": "is neither an IP address nor a host name", strings.Repeat("a.", 127) + ":1": "is neither an IP address nor a host name",
			"0.0.0.0:1": "is not the address of a host", "[::]:1": "is not the address of a host", "[::ffff:0.0.0.0]:1": "is not the address of a host", "224.0.0.1:1": "is not the address of a host", "255.255.255.255:1": "is not the address of a host",
		}},
		{"server.check_port", "CheckPort", values{"1": uint16(1), "65535": uint16(65535)}, refusals{"": no, "0": no, "65536": no, "-1": no, "http": no, ":8008": no}},
		{"server.check_uri", "CheckURI", values{"/": "/", "/replica?lag=16MB": "/replica?lag=16MB"}, refusals{"": no, "primary": no}},
		integers("server.maxconn", "MaxConn", 0, 1_000_000),
		integers("server.weight", "Weight", 0, 256),
		{"server.backup", "Backup", booleans, notBooleans},

		{"dcs.name", "Name", names, notNames},
		{"dcs.type", "Type", values{"etcd3": config.Etcd3}, refusals{"": no, "etcd": no, "consul": no}},
		{"dcs.endpoint", "Endpoints", values{
			"http://192.168.9.100:2379": []config.Endpoint{{Address: config.HostPort{Host: "192.168.9.100", Port: 2379}}},
			"https://etcd1.lan:443/":    []config.Endpoint{{TLS: true, Address: config.HostPort{Host: "etcd1.lan", Port: 443}}},
			"http://[FD00:0::1]:1":      []config.Endpoint{{Address: config.HostPort{Host: "fd00::1", Port: 1}}},
		}, refusals{
			"": "lacks `http://` or `https://`", "192.168.9.100:2379": "lacks `http://` or `https://`", "unix:///x": "lacks `http://` or `https://`", "http://https://h:1": "lacks `http://` or `https://`",
			"http://": "lacks `:PORT`", "http://h": "lacks `:PORT`", "https://10.0.0.1": "lacks `:PORT`", "http://h:0": "has a port that is not allowed", "http://h:1:2": "is an IPv6 address without brackets, or has a `:` too many",
			"http://h:1/v3": "has a path", "http://h:1?x": "has a path", "http://h:1//": "has a path", "http://u:p@h:1": "holds a user; see `user` and `password_file`",
			"http://:2379": "is neither an IP address nor a host name", "http://0.0.0.0:2379": "is not the address of a host",
		}},
		{"dcs.scope", "Scope", values{"nocodb-cluster": "nocodb-cluster", "a/b": "a/b", strings.Repeat("s", 255): strings.Repeat("s", 255)}, refusals{"": no, "a b": no, "a\n": no, strings.Repeat("s", 256): no}},
		{"dcs.namespace", "Namespace", values{"/patroni": "/patroni", "patroni/": "patroni/", "/": "/"}, refusals{"": no, "/a b": no}},
		{"dcs.backend", "Backends", values{"bk": []string{"bk"}}, refusals{"": no, "a b": no}},
		{"dcs.user", "User", values{"u@x y": "u@x y"}, refusals{"a\x00b": no, strings.Repeat("u", 64): no}},
		{"dcs.password_file", "PasswordFile", paths, notPaths},
		{"dcs.ca", "CA", paths, notPaths},
		{"dcs.cert", "Cert", paths, notPaths},
		{"dcs.key", "Key", paths, notPaths},
		{"dcs.sni", "SNI", values{"etcd.lan": "etcd.lan"}, refusals{"": "is neither an IP address nor a host name"}},
		{"dcs.insecure", "Insecure", booleans, notBooleans},
	}
	tried := map[string]bool{}
	for _, s := range samples {
		tried[s.key] = true
		t.Run(s.key, func(t *testing.T) { s.try(t) })
	}
	for _, ref := range config.Reference {
		for _, k := range ref.Keys {
			if !tried[ref.Type+"."+k.Name] {
				t.Errorf("%s.%s has no values to try", ref.Type, k.Name)
			}
		}
	}
}
