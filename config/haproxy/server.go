package haproxy

import (
	"maps"
	"path"
	"strings"
	"time"

	"pointsman/config"
)

// params are the words of a `server` line, and of the `default-server` lines
// above it, with their values.
type params map[string]setting

// serverLine is a server, and what of it the whole backend must agree on.
type serverLine struct {
	config.Server
	number int
	params params
}

// params reads words into dst; the last one wins.
func (p *proxy) params(dst params, l line, words []string) {
	for len(words) > 0 {
		word := words[0]
		known, is := serverParams[word]
		switch {
		case !is:
			p.unknown(l.number, word, paramNames, nil)
			return
		case known.refused != "":
			p.fail(l.number, "'%s' of a server cannot be carried over: %s", word, known.refused)
			return
		case len(words) <= known.args:
			p.fail(l.number, "'%s' lacks its value", word)
			return
		case known.ignored != "":
			p.note(l.number, "'%s' of a server is left out: %s", word, known.ignored)
		case word == "enabled":
			delete(dst, "disabled")
		case strings.HasPrefix(word, "no-"):
			delete(dst, word[len("no-"):])
		default:
			value := ""
			if known.args > 0 {
				value = words[1]
			}
			dst[word] = setting{value, l.number}
		}
		words = words[1+known.args:]
	}
}

var paramNames = func() map[string]string {
	names := map[string]string{}
	for name := range serverParams {
		names[name] = ""
	}
	return names
}()

// server treats `server NAME ADDRESS[:PORT] [PARAM…]`.
func (p *proxy) server(l line) {
	if len(l.words) < 3 {
		p.fail(l.number, "'server' wants a name and an address")
		return
	}
	s := serverLine{config.NewServer(l.word(1)), l.number, maps.Clone(p.defaultServer)}
	p.params(s.params, l, l.rest(3))
	if s.params.has("disabled") {
		p.note(l.number, "server '%s' is left out: it is disabled; add a section for it when it is to serve", s.Name)
		return
	}
	p.set(l.number, &s.Server, "server", "name", "'server'", s.Name)
	p.set(l.number, &s.Server, "server", "backend", "'server'", p.section.name)
	host, port, err := address(l.word(2))
	switch {
	case err != nil:
		p.fail(l.number, "%s %s", quote(l.word(2)), err)
	case port == "" || port[0] == '+' || port[0] == '-':
		p.fail(l.number, "%s has no port of its own: write the port of the server behind its address", quote(l.word(2)))
	default:
		p.set(l.number, &s.Server, "server", "address", "'server'", hostPort(host, port))
	}
	p.checkedAt(&s)
	for _, name := range []string{"weight", "maxconn"} {
		if v, is := s.params[name]; is {
			p.set(v.number, &s.Server, "server", name, "'"+name+"'", v.text)
		}
	}
	s.Backup = s.params.has("backup")
	p.servers = append(p.servers, s)
}

func (s params) has(name string) bool { _, is := s[name]; return is }

// checkedAt carries over where a server is checked.
func (p *proxy) checkedAt(s *serverLine) {
	if !s.params.has("check") {
		return
	}
	if v, is := s.params["port"]; is {
		p.set(v.number, &s.Server, "server", "check_port", "'port'", v.text)
	}
	if v, is := s.params["addr"]; is {
		other := config.NewServer("")
		host, port, err := address(v.text)
		if err == nil {
			err = config.Lookup("server").Key("address").Set(&other, hostPort(host, "1"))
		}
		if err != nil || port != "" || other.Address.Host != s.Address.Host {
			p.fail(v.number, "server '%s' is checked at %s: a server is checked on the host that it serves on; only 'port' can differ", s.Name, quote(v.text))
		}
	}
	if s.CheckPort == s.Address.Port {
		s.CheckPort = 0
	}
}

// makeBackend puts together what the lines said.
func (p *proxy) makeBackend() {
	s := p.section
	p.backend = config.NewBackend(s.name)
	b := &p.backend
	p.set(s.number, b, "backend", "name", s.kind, s.name)
	for i := range p.servers {
		b.Servers = append(b.Servers, p.servers[i].Server)
	}
	if len(p.servers) == 0 {
		p.fail(s.number, "%s '%s' has no server that can be carried over", s.kind, s.name)
		return
	}
	p.policy(b)
	p.setTimeout("connect", b, "backend", "timeout_connect")
	p.setTimeout("queue", b, "backend", "timeout_queue")
	p.setTimeout("server", b, "backend", "timeout_server")
	p.setTimeout("server-fin", b, "backend", "timeout_server_fin")
	p.setTimeout("tunnel", b, "backend", "timeout_server")
	if t := p.timeouts["tunnel"]; t.number > 0 {
		p.note(t.number, "'timeout tunnel' becomes `timeout_client` and `timeout_server`: a TCP session is a tunnel from its start")
	}
	b.OnMarkedDown = config.KeepSessions
	if !p.checked() {
		b.Check = config.CheckNone
		p.note(p.servers[0].number, "no server of '%s' has 'check': each is always UP", s.name)
		return
	}
	p.pace(b)
	if v := p.shared("check-ssl"); v.number > 0 && p.check.kind != "httpchk" {
		p.fail(v.number, "'check-ssl' needs 'option httpchk': no other check speaks TLS")
	}
	if p.check.own > 0 && p.check.kind != "httpchk" {
		p.note(p.check.own, "'http-check' has no effect without 'option httpchk'")
	}
	switch p.check.kind {
	case "httpchk":
		p.check.make(p, b)
		p.tls(b)
		if asksForLeader(b) {
			p.check.follow(p, b)
			return
		}
	case "pgsql-check":
		b.Check = config.CheckPgSQL
		p.set(p.check.at, b, "backend", "check_user", "'option pgsql-check user'", p.check.user)
		p.note(p.check.at, "any well-formed answer of PostgreSQL counts as a success")
	default:
		b.Check = config.CheckTCP
	}
	p.note(p.servers[0].number, "servers of '%s' are DOWN until proven, and new clients wait up to %ds while none is UP", s.name, int(b.Hold.Seconds()))
}

// policy carries over `balance`.
func (p *proxy) policy(b *config.Backend) {
	b.Policy = config.RoundRobin
	word, _, _ := strings.Cut(p.balance.text, " ")
	name, _, _ := strings.Cut(word, "(")
	switch name {
	case "", "roundrobin":
	case "leastconn", "first", "source":
		b.Policy = config.Policy(name)
	case "static-rr":
		p.note(p.balance.number, "'balance static-rr' becomes policy 'roundrobin'")
	case "random":
		b.Policy = config.LeastConn
		p.note(p.balance.number, "'balance random' becomes policy 'leastconn'")
	default:
		p.fail(p.balance.number, "'balance %s' cannot be carried over; roundrobin, leastconn, first and source can", p.balance.text)
	}
}

// checked reports whether the servers are checked: all of them, or none.
func (p *proxy) checked() bool {
	first := p.servers[0].params.has("check")
	for _, s := range p.servers[1:] {
		if s.params.has("check") != first {
			p.fail(s.number, "some servers of '%s' have 'check' and some have not: put it into 'default-server'", p.section.name)
			break
		}
	}
	return first
}

// shared returns what all servers of the backend say of a parameter, which
// here belongs to the backend. The number is 0 if they say nothing.
func (p *proxy) shared(name string) setting {
	first, is := p.servers[0].params[name]
	for _, s := range p.servers[1:] {
		if other, also := s.params[name]; also != is || other.text != first.text {
			p.fail(s.number, "the servers of '%s' differ in '%s': here it belongs to the backend; put it into 'default-server', or make two backends", p.section.name, name)
			break
		}
	}
	return first
}

// pace carries over how often servers are checked, and what counts.
func (p *proxy) pace(b *config.Backend) {
	b.Inter = 2 * time.Second // HAProxy's default
	for _, name := range []string{"inter", "fastinter", "downinter"} {
		if v := p.shared(name); v.number > 0 {
			p.setDuration(v.number, b, "backend", name, "'"+name+"'", v.text)
		}
	}
	for _, name := range []string{"rise", "fall"} {
		if v := p.shared(name); v.number > 0 {
			p.set(v.number, b, "backend", name, "'"+name+"'", v.text)
		}
	}
	b.TimeoutCheck = min(b.Inter, b.TimeoutCheck) // inter bounds a check, unless:
	p.setTimeout("check", b, "backend", "timeout_check")
	if v := p.shared("on-marked-down"); v.number > 0 {
		p.set(v.number, b, "backend", "on_marked_down", "'on-marked-down'", v.text)
	}
}

// tls carries over how HTTP checks are encrypted.
func (p *proxy) tls(b *config.Backend) {
	b.CheckTLS = p.shared("check-ssl").number > 0
	if !b.CheckTLS {
		return
	}
	switch v := p.shared("verify"); v.text {
	case "none":
		b.CheckInsecure = true
	case "", "required":
		p.note(p.servers[0].number, "the certificates of the checks must name the hosts of '%s' or `check_sni`; HAProxy looks at the name only with 'verifyhost'", p.section.name)
	default:
		p.fail(v.number, "'verify %s' is not allowed; want 'none' or 'required'", v.text)
	}
	if v := p.shared("ca-file"); v.number > 0 && v.text != "@system-ca" {
		p.set(v.number, b, "backend", "check_ca", "'ca-file'", under(p.caBase, v.text))
	}
	if v := p.shared("crt"); v.number > 0 { // one file holds the certificate and its key
		p.set(v.number, b, "backend", "check_cert", "'crt'", under(p.crtBase, v.text))
		p.set(v.number, b, "backend", "check_key", "'crt'", under(p.crtBase, v.text))
	}
	for _, name := range []string{"verifyhost", "check-sni"} {
		v := p.shared(name)
		if v.number > 0 && b.CheckSNI != "" && b.CheckSNI != v.text {
			p.fail(v.number, "'check-sni' and 'verifyhost' differ: here one name is sent and verified")
		} else if v.number > 0 {
			p.set(v.number, b, "backend", "check_sni", "'"+name+"'", v.text)
		}
	}
}

// under returns the path of a file below HAProxy's ca-base or crt-base.
func under(base, file string) string {
	if path.IsAbs(file) || base == "" {
		return file
	}
	return path.Join(base, file)
}
