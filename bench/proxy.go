package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// maxSessions is what every proxy is configured to take. HAProxy reserves two
// descriptors for each, and half as many again for pipes where it splices;
// a hard limit of 20,000 is common.
const maxSessions = 6000

// threads is what every proxy is configured to use.
const threads = 2

// proxy is one of the programs compared.
type proxy struct {
	name    string
	title   string
	program string   // in PATH; "" = this program
	version []string // arguments that make it print its version
	config  string   // with {listen}, {target}, {dir}, {sessions} and {threads}
	args    []string // with {config}, {listen} and {target}
}

func (p proxy) id() string { return p.name }

const haproxyConfig = `
global
	nbthread {threads}
	maxconn {sessions}
defaults
	mode tcp
	maxconn {sessions}
	timeout connect 3s
	timeout client 1h
	timeout server 1h
frontend ft
	bind {listen}
	default_backend bk
backend bk
	server s {target}
`

const nginxConfig = `
{nginx-stream}
user root;
daemon off;
pid {dir}/nginx.pid;
error_log stderr crit;
worker_processes {threads};
worker_rlimit_nofile {descriptors};
events {
	worker_connections {descriptors};
}
stream {
	access_log off;
	proxy_timeout 1h;
	server {
		listen {listen};
		proxy_pass {target};
	}
}
`

const pointsmanConfig = `
config global 'global'
	option control '{dir}/control.sock'
	option loops '{threads}'

config frontend 'ft'
	list bind '{listen}'
	option default_backend 'bk'
	option maxconn '{sessions}'

config backend 'bk'
	option policy 'first'
	option check 'none'

config server 's'
	option backend 'bk'
	option address '{target}'
`

var allProxies = []proxy{
	{"haproxy", "HAProxy", "haproxy", []string{"-v"}, haproxyConfig, []string{"-db", "-f", "{config}"}},
	{"haproxy-splice", "HAProxy splice-auto", "haproxy", []string{"-v"},
		strings.Replace(haproxyConfig, "mode tcp\n", "mode tcp\n\toption splice-auto\n", 1), []string{"-db", "-f", "{config}"}},
	{"nginx", "nginx", "nginx", []string{"-v"}, nginxConfig, []string{"-e", "stderr", "-p", "{dir}", "-c", "{config}"}},
	{"copy", "io.Copy", "", nil, "", []string{"copy", "{listen}", "{target}"}},
	{"pointsman", "pointsman", "pointsman", []string{"--version"}, pointsmanConfig, []string{"run", "-c", "{config}"}},
	// A second build of it, to compare two in turns.
	{"old", "pointsman (old)", "", []string{"--version"}, pointsmanConfig, []string{"run", "-c", "{config}"}},
}

// nginxModule is where Debian and Alpine put what others build in.
const nginxModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// command writes the proxy's configuration into dir, and returns its arguments.
func (p proxy) command(dir, listen, target string) ([]string, error) {
	config := filepath.Join(dir, "config")
	stream := ""
	if _, err := os.Stat(nginxModule); err == nil {
		stream = "load_module " + nginxModule + ";"
	}
	fill := strings.NewReplacer(
		"{listen}", listen, "{target}", target, "{dir}", dir, "{config}", config,
		"{sessions}", fmt.Sprint(maxSessions), "{descriptors}", fmt.Sprint(2*maxSessions),
		"{threads}", fmt.Sprint(threads), "{nginx-stream}", stream,
	)
	if err := os.WriteFile(config, []byte(fill.Replace(p.config)), 0o600); err != nil {
		return nil, fmt.Errorf("writing the configuration of %s: %w", p.name, err)
	}
	args := make([]string, len(p.args))
	for i, arg := range p.args {
		args[i] = fill.Replace(arg)
	}
	return args, nil
}

var versionNumber = regexp.MustCompile(`\d+(\.\d+)+`)

// describe returns the proxy's title and version, or an error if the program
// does not run.
func (p proxy) describe(ctx context.Context) (string, error) {
	if p.version == nil {
		return p.title, nil
	}
	text, err := exec.CommandContext(ctx, p.program, p.version...).CombinedOutput()
	if err != nil {
		return p.title, fmt.Errorf("asking %s for its version: %w", p.program, err)
	}
	return strings.TrimSpace(p.title + " " + versionNumber.FindString(string(text))), nil
}
