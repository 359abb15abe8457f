package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

const (
	// maxSessions is what every proxy is configured to take. HAProxy reserves
	// two descriptors for each.
	maxSessions = 9500
	// spliceSessions is what HAProxy is where it splices: it reserves half as
	// many descriptors again for pipes.
	spliceSessions = 1000
	// maxServers is the most that any workload has in its backend.
	maxServers = 100
)

// threads is what every proxy is configured to use.
const threads = 2

// proxy is one of the programs compared.
type proxy struct {
	name    string
	title   string
	program string             // in PATH; "" = this program
	version []string           // arguments that make it print its version
	config  *template.Template // of a setup; nil = it has none
	args    []string           // with {config}, {listen} and {target}
	kernel  bool               // no process: a rule of the router's kernel
}

func (p proxy) id() string { return p.name }

// setup is what a proxy is configured for.
type setup struct {
	Listen, Target netip.AddrPort
	Servers        int // 0 = one that is not checked; else by their REST API
	Inter          string
	Dir            string // for its files
	Sessions       int
	Splice         bool
}

// These are what the templates ask for.
func (s setup) Threads() int     { return threads }
func (s setup) Descriptors() int { return 2*maxSessions + 500 }

// Backend lists the servers that are checked.
func (s setup) Backend() []backendServer {
	var out []backendServer
	for i := range s.Servers {
		out = append(out, backendServer{fmt.Sprintf("s%d", i+1), beyond(s.Target, i), s.rest(i).Port()})
	}
	return out
}

type backendServer struct {
	Name  string
	Addr  netip.AddrPort
	Check uint16 // port
}

// rest is where server i's REST API is.
func (s setup) rest(i int) netip.AddrPort { return beyond(s.Target, maxServers+i) }

// Module loads nginx's TCP proxy where it is not built in: Debian and Alpine.
func (s setup) Module() string {
	const path = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return "load_module " + path + ";"
}

func parseConfig(name, text string) *template.Template {
	return template.Must(template.New(name).Parse(text))
}

var haproxyConfig = parseConfig("haproxy", `
global
	nbthread {{.Threads}}
	maxconn {{.Sessions}}
defaults
	mode tcp
{{- if .Splice}}
	option splice-auto
{{- end}}
	maxconn {{.Sessions}}
	timeout connect 3s
	timeout client 1h
	timeout server 1h
frontend ft
	bind {{.Listen}}
	default_backend bk
backend bk
{{- if .Servers}}
	option httpchk GET /primary
	http-check expect status 200
	default-server inter {{.Inter}} fall 3 rise 2 on-marked-down shutdown-sessions
{{- range .Backend}}
	server {{.Name}} {{.Addr}} check port {{.Check}}
{{- end}}
{{- else}}
	server s {{.Target}}
{{- end}}
`)

var nginxConfig = parseConfig("nginx", `
{{.Module}}
user root;
daemon off;
pid {{.Dir}}/nginx.pid;
error_log stderr crit;
worker_processes {{.Threads}};
worker_rlimit_nofile {{.Descriptors}};
events {
	worker_connections {{.Descriptors}};
}
stream {
	access_log off;
	proxy_timeout 1h;
	server {
		listen {{.Listen}};
		proxy_pass {{.Target}};
	}
}
`)

var pointsmanConfig = parseConfig("pointsman", `
config global 'global'
	option control '{{.Dir}}/control.sock'
	option loops '{{.Threads}}'

config frontend 'ft'
	list bind '{{.Listen}}'
	option default_backend 'bk'
	option maxconn '{{.Sessions}}'

config backend 'bk'
{{- if .Servers}}
	option policy 'leader'
	option check 'http'
	option check_uri '/primary'
	option inter '{{.Inter}}'
	option fall '3'
	option rise '2'
	option on_marked_down 'shutdown-sessions'
{{- range .Backend}}

config server '{{.Name}}'
	option backend 'bk'
	option address '{{.Addr}}'
	option check_port '{{.Check}}'
{{- end}}
{{- else}}
	option policy 'first'
	option check 'none'

config server 's'
	option backend 'bk'
	option address '{{.Target}}'
{{- end}}
`)

// dnat is what the kernel does without any proxy: it rewrites addresses, and
// terminates nothing. No relay can be cheaper.
var dnatRules = parseConfig("dnat", `
table ip bench {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr {{.Listen.Addr}} tcp dport {{.Listen.Port}} dnat to {{.Target}}
	}
}
`)

var (
	haproxyArgs   = []string{"-db", "-f", "{config}"}
	pointsmanArgs = []string{"run", "-c", "{config}"}
)

var allProxies = []proxy{
	{name: "haproxy", title: "HAProxy", program: "haproxy", version: []string{"-v"}, config: haproxyConfig, args: haproxyArgs},
	{name: "haproxy-splice", title: "HAProxy splice-auto", program: "haproxy", version: []string{"-v"}, config: haproxyConfig, args: haproxyArgs},
	{name: "nginx", title: "nginx", program: "nginx", version: []string{"-v"}, config: nginxConfig,
		args: []string{"-e", "stderr", "-p", "{dir}", "-c", "{config}"}},
	{name: "dnat", title: "kernel DNAT", program: "nft", version: []string{"--version"}, config: dnatRules, args: []string{"-f", "{config}"}, kernel: true},
	{name: "copy", title: "io.Copy", args: []string{"copy", "{listen}", "{target}"}},
	{name: "pointsman", title: "pointsman", program: "pointsman", version: []string{"--version"}, config: pointsmanConfig, args: pointsmanArgs},
	// A second build of it, to compare two in turns.
	{name: "old", title: "pointsman (old)", program: "pointsman", version: []string{"--version"}, config: pointsmanConfig, args: pointsmanArgs},
}

// command writes the proxy's configuration, and returns its arguments.
func (p proxy) command(s setup) ([]string, error) {
	config := filepath.Join(s.Dir, "config")
	s.Sessions = maxSessions
	if p.name == "haproxy-splice" {
		s.Sessions, s.Splice = spliceSessions, true
	}
	var text strings.Builder
	if p.config != nil {
		if err := p.config.Execute(&text, s); err != nil {
			return nil, fmt.Errorf("making the configuration of %s: %w", p.name, err)
		}
	}
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return nil, fmt.Errorf("writing the configuration of %s: %w", p.name, err)
	}
	fill := strings.NewReplacer("{config}", config, "{dir}", s.Dir, "{listen}", s.Listen.String(), "{target}", s.Target.String())
	args := make([]string, len(p.args))
	for i, arg := range p.args {
		args[i] = fill.Replace(arg)
	}
	return args, nil
}

// install puts a rule into the router's kernel, until remove is called.
func (p proxy) install(at place, s setup) (remove func() error, err error) {
	args, err := p.command(s)
	if err != nil {
		return nil, err
	}
	nft := func(args ...string) error {
		return at.Inside(func() error {
			if text, err := exec.Command(p.program, args...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s %s: %w: %s", p.program, strings.Join(args, " "), err, text)
			}
			return nil
		})
	}
	return func() error { return nft("delete", "table", "ip", "bench") }, nft(args...)
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// describe returns the proxy's title and version, or an error if the program
// does not run.
func (p proxy) describe(ctx context.Context) (string, error) {
	if p.version == nil || p.kernel {
		return p.title, nil
	}
	text, err := exec.CommandContext(ctx, p.program, p.version...).CombinedOutput()
	if err != nil {
		return p.title, fmt.Errorf("asking %s for its version: %w", p.program, err)
	}
	return strings.TrimSpace(p.title + " " + versionNumber.FindString(string(text))), nil
}
