package haproxy_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"pointsman/config"
	"pointsman/config/haproxy"
	"pointsman/openwrt"
	"pointsman/openwrt/uci"
)

var update = flag.Bool("update", false, "write what comes out of testdata/*.cfg anew")

// TestFiles imports each testdata/*.cfg and compares what comes out with the
// .uci beside it, and the notes with the .notes.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.cfg")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, notes, err := haproxy.Import(filepath.Base(file), text)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		out := uci.Encode(&c).Text()
		if again, err := uci.Decode("pointsman", []byte(out)); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s: what comes out is read as\n%+v, %v; want\n%+v", file, again, err, c)
		}
		said := ""
		for _, n := range notes {
			said += n.String() + "\n"
		}
		base := strings.TrimSuffix(file, ".cfg")
		golden(t, base+".uci", out)
		golden(t, base+".notes", said)
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s", file, got, want)
	}
}

// TestHAProxyTakesThem: a sample that HAProxy refuses would prove nothing.
func TestHAProxyTakesThem(t *testing.T) {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/haproxy")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	files, _ := filepath.Glob("testdata/*.cfg")
	for _, file := range files {
		if out, err := exec.Command(program, "-c", "-f", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// TestTheJob: the configuration that pointsman was made to replace comes out
// as the one that its package ships, but for the service being on.
func TestTheJob(t *testing.T) {
	text, err := os.ReadFile("testdata/design.cfg")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := haproxy.Import("design.cfg", text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := uci.Decode("pointsman", openwrt.Config)
	if err != nil {
		t.Fatal(err)
	}
	want.Global.Enabled = true
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// job is the least that is valid, for tests to put a line into.
const job = "listen l\n bind :5432\n option httpchk GET /primary\n server s 10.0.0.1:5432 check port 8008\n"

// TestErrors puts lines behind job, which has four, or in its place.
func TestErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"acl", job + " acl a src 10.0.0.0/8\n", "f:5: 'acl' cannot be carried over: a choice by content"},
		{"use_backend", job + "frontend f\n bind :1\n use_backend l if TRUE\n", "f:7: 'use_backend' with a condition: "},
		{"http", job + " mode http\n", "f:5: listen 'l' has mode 'http': only TCP sessions can be carried over"},
		{"http by defaults", "defaults\n mode http\n" + job, "f:2: listen 'l' has mode 'http'"},
		{"cookie", job + " cookie SRV insert\n", "f:5: 'cookie' cannot be carried over: "},
		{"cookie of a server", job + " server t 10.0.0.2:1 check cookie a\n", "f:5: 'cookie' of a server cannot be carried over: "},
		{"ssl on a bind", job + " bind :5433 ssl crt /x.pem\n", "f:5: 'ssl' of a bind cannot be carried over: "},
		{"ssl on a server", job + " server t 10.0.0.2:1 check ssl verify none\n", "f:5: 'ssl' of a server cannot be carried over: "},
		{"range", job + " bind :5433-5440\n", "f:5: ':5433-5440' is a range of ports; "},
		{"unix socket", job + " bind /run/x.sock\n", "f:5: '/run/x.sock' is not a TCP address"},
		{"bind without a port", job + " bind 10.0.0.1\n", "f:5: 'bind': '10.0.0.1:' has a port that is not allowed; want "},
		{"one address twice", job + " bind :5432\n", "f:5: '0.0.0.0:5432': frontend 'l' already listens on 0.0.0.0:5432"},
		{"environment", job + " bind \"${ADDR}:5433\"\n", "f:5: the environment variable 'ADDR' has its value only where HAProxy runs"},
		{"environment without quotes", job + " bind :${PORT}\n", "f:5: ':${PORT}' cannot be read: the environment variable 'PORT' has its value"},
		{"quote", job + " bind \":5433\n", "f:5: a quote is not closed: its \" is missing"},
		{"condition", ".if defined(X)\n" + job, "f:1: '.if': conditions are HAProxy's own"},
		{"no section", "bind :1\n" + job, "f:1: 'bind' stands before the first section"},
		{"unknown", job + " balanse roundrobin\n", "f:5: 'balanse' is not known; did you mean 'balance'?"},
		{"unknown of a server", job + " server t 10.0.0.2:1 chekc\n", "f:5: 'chekc' is not known; did you mean 'check'?"},
		{"unknown option", job + " option httpchkk\n", "f:5: 'httpchkk' is not known; did you mean 'httpchk'?"},
		{"unknown timeout", job + " timeout lunch 1h\n", "f:5: 'timeout lunch' is not known"},
		{"duration", job + " timeout client 1m30s\n", "f:5: 'timeout client': '1m30s' is no duration; want a whole number and us, ms, s, m, h or d"},
		{"out of range", job + " timeout client 2d\n", "f:5: 'timeout client': '172800000ms' is not allowed; want a duration, 0 to 1d"},
		{"balance", job + " balance uri\n", "f:5: 'balance uri' cannot be carried over; "},
		{"server without a port", job + " server t 10.0.0.2 check\n", "f:5: '10.0.0.2' has no port of its own"},
		{"relative port", job + " server t 10.0.0.2:+1 check\n", "f:5: '10.0.0.2:+1' has no port of its own"},
		{"other host checked", job + " server t 10.0.0.2:1 check addr 10.0.0.3\n", "f:5: server 't' is checked at '10.0.0.3': "},
		{"check of some", job + " server t 10.0.0.2:1\n", "f:5: some servers of 'l' have 'check' and some have not"},
		{"inter of one", job + " server t 10.0.0.2:1 check inter 1s\n", "f:5: the servers of 'l' differ in 'inter': "},
		{"same server twice", job + " server t 10.0.0.1:5432 check\n", "f:5: '10.0.0.1:5432': server 's' of the same backend has that address"},
		{"send-proxy", job + " server t 10.0.0.2:1 check send-proxy\n", "f:5: 'send-proxy' of a server cannot be carried over: "},
		{"parameter without its value", job + " server t 10.0.0.2:1 check inter\n", "f:5: 'inter' lacks its value"},
		{"method", job + " http-check send meth POST\n", "f:5: the check's method: 'POST' is not allowed; want one of 'GET', 'HEAD', 'OPTIONS'"},
		{"body of a check", job + " http-check send body x\n", "f:5: 'http-check send body' cannot be carried over; "},
		{"expectation", job + " http-check expect rstring x\n", "f:5: this 'http-check expect' cannot be carried over; "},
		{"regular expression", job + " http-check expect rstatus (?<!5)\n", "f:5: 'http-check expect rstatus': '(?<!5)' is a regular expression that is not understood here"},
		{"impossible status", job + " http-check expect rstatus ^6\n", "f:5: 'http-check expect rstatus': '^6' matches no status code"},
		{"other check", job + " option mysql-check\n", "f:5: 'option mysql-check' cannot be carried over: "},
		{"several steps", job + " tcp-check send x\n", "f:5: 'tcp-check send': a check of several steps"},
		{"TLS of a connect", "listen l\n bind :1\n server s h:1 check check-ssl\n", "f:3: 'check-ssl' needs 'option httpchk'"},
		{"verify", "listen l\n bind :1\n option httpchk\n server s h:1 check check-ssl verify some\n", "f:4: 'verify some' is not allowed"},
		{"dangling backend", job + "frontend f\n bind :1\n default_backend lost\n", "f:7: 'lost': no such backend"},
		{"no default_backend", job + "frontend f\n bind :1\n", "f:5: frontend 'f' has no 'default_backend'"},
		{"no bind", job + "frontend f\n default_backend l\n", "f:5: frontend 'f' has no 'bind'"},
		{"no server", job + "backend b\n", "f:5: backend 'b' has no server"},
		{"two of one name", job + "listen l\n bind :1\n server s h:1\n", "f:5: 'l': another backend has that name"},
		{"no name", job + "backend\n", "f:5: the backend has no name"},
		{"address behind a name", job + "listen m :5433\n", "f:5: ':5433' is one too many; an address goes into a 'bind' line"},
		{"lost defaults", job + "listen m from x\n bind :5433\n server s h:1\n", "f:5: there is no 'defaults x' above"},
		{"program", job + "program p\n command x\n", "f:5: section 'program' cannot be carried over: "},
		{"nothing", "global\n daemon\n", "f: there is no frontend or listen section to carry over"},
		{"large", strings.Repeat("#", haproxy.MaxSize+1), "f: is larger than 1048576 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, _, err := haproxy.Import("f", []byte(test.text))
			if err == nil || !strings.Contains("\n"+err.Error(), "\n"+test.want) {
				t.Fatalf("got\n%v\nwant\n%s", err, test.want)
			}
			var all haproxy.Errors
			if !errors.As(err, &all) || !reflect.DeepEqual(c, config.Config{}) {
				t.Errorf("%T, %+v", err, c)
			}
		})
	}
}

func TestTooManyErrors(t *testing.T) {
	_, _, err := haproxy.Import("f", []byte(job+strings.Repeat(" acl a\n", 1000)))
	if n := strings.Count(err.Error(), "\n"); n != 50 || !strings.HasSuffix(err.Error(), "f: too many errors; the rest is not shown") {
		t.Errorf("%d lines, %v", n, err)
	}
}

// TestMeaning says one thing in HAProxy's words and looks at one field.
func TestMeaning(t *testing.T) {
	field := func(of func(f config.Frontend, b config.Backend) any) func(config.Config) any {
		return func(c config.Config) any { return of(c.Frontends[0], c.Backends[0]) }
	}
	codes := field(func(_ config.Frontend, b config.Backend) any { return b.CheckExpect.String() })
	timeout := field(func(f config.Frontend, _ config.Backend) any { return f.TimeoutClient.String() })
	policy := field(func(_ config.Frontend, b config.Backend) any { return string(b.Policy) })
	inter := field(func(_ config.Frontend, b config.Backend) any { return b.Inter.String() + " " + b.TimeoutCheck.String() })
	maxconn := field(func(f config.Frontend, _ config.Backend) any { return strconv.Itoa(f.MaxConn) })
	server := field(func(_ config.Frontend, b config.Backend) any {
		s := b.Servers[len(b.Servers)-1]
		return fmt.Sprint(b.Check, " ", s.CheckPort, " ", s.Weight, " ", s.Backup)
	})
	replica := strings.Replace(job, "/primary", "/replica", 1)
	tests := []struct {
		text string
		of   func(config.Config) any
		want string
	}{
		{job, codes, "200-399"},
		{job + " http-check expect ! status 500-599,404\n", codes, "100-403,405-499"},
		{job + " http-check expect rstatus ^[23]\n", codes, "200-399"},
		{"defaults\n http-check expect status 200\n" + job, codes, "200"},
		{"defaults\n http-check expect status 200\n" + job + " http-check expect string a\n", codes, "100-599"},
		{job + " http-check expect string a\n http-check expect status 200\n", codes, "200"},
		{job + " timeout client 1500us\n", timeout, "2ms"},
		{job + " timeout client 7\n", timeout, "7ms"},
		{job + " timeout client 3s\n", timeout, "3s"},
		{job + " timeout client 2m\n", timeout, "2m0s"},
		{job + " timeout client 2h\n timeout tunnel 3h\n", timeout, "3h0m0s"},
		{"defaults\n timeout client 1d\n" + job, timeout, "24h0m0s"},
		{job, inter, "2s 2s"},
		{"defaults\n default-server inter 1s\n" + job, inter, "1s 1s"},
		{"defaults\n timeout check 5s\n" + job, inter, "2s 5s"},
		{job, maxconn, "2000"},
		{job + " maxconn 7\n", maxconn, "7"},
		{"global\n maxconn 9\n" + job + " maxconn 7\n", maxconn, "7"},
		{"global\n maxconn 9\n" + job + " maxconn 0\n", maxconn, "9"},
		{job, server, "http 8008 1 false"},
		{strings.Replace(job, "8008", "5432", 1), server, "http 0 1 false"},
		{job + " server t 10.0.0.2:1 check addr 10.0.0.2 port 3 weight 2 backup no-backup\n", server, "http 3 2 false"},
		{"defaults\n default-server check backup\nlisten l\n bind :1\n server s h:1\n", server, "tcp 0 1 true"},
		{"defaults\n default-server check backup\nlisten l\n bind :1\n server s h:1 no-backup no-check\n", server, "none 0 1 false"},
		{"defaults\n default-server weight 3\nlisten l\n bind :1\n server s h:1 weight 5\n server t h:2\n", server, "none 0 3 false"},
		{job + " balance leastconn\n", policy, "leader"},
		{replica, policy, "roundrobin"},
		{replica + " balance leastconn\n", policy, "leastconn"},
		{replica + " balance random(3)\n", policy, "leastconn"},
		{strings.Replace(job, "GET /primary", "", 1), policy, "leader"},
		{strings.NewReplacer("GET /primary", "", "port 8008", "").Replace(job), policy, "roundrobin"},
		{"defaults\n option httpchk GET /primary\n" + replica + " no option httpchk\n", policy, "roundrobin"},
	}
	for _, test := range tests {
		c, _, err := haproxy.Import("f", []byte(test.text))
		if err != nil {
			t.Errorf("%s%v", test.text, err)
			continue
		}
		if got := test.of(c); got != test.want {
			t.Errorf("%sgives %v, want %v", test.text, got, test.want)
		}
	}
}

// FuzzImport: whatever the file says, what comes out is read back as the same.
func FuzzImport(f *testing.F) {
	f.Add([]byte(job))
	files, _ := filepath.Glob("testdata/*.cfg")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, _, err := haproxy.Import("f", text)
		if err != nil {
			return
		}
		out := uci.Encode(&c).Text()
		again, err := uci.Decode("pointsman", []byte(out))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s\nis read as\n%+v, %v; want\n%+v", out, again, err, c)
		}
	})
}
