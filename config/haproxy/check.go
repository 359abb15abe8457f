package haproxy

import (
	"strconv"
	"strings"

	"pointsman/config"
)

// check is what a backend says about how its servers are probed.
type check struct {
	kind string // option: "httpchk", "pgsql-check", "tcp-check" or "" = a connect
	at   int    // its line
	user string

	method, uri, ver setting
	headers          []setting // "Name: value"

	expect config.StatusSet // nil = not given
	body   setting          // a text to expect
	own    int              // line of the section's own first http-check, or 0
}

// option treats `option httpchk`, `option pgsql-check` and `option tcp-check`.
func (c *check) option(p *proxy, l line, no bool) {
	name := l.word(1)
	if no {
		if c.kind == name {
			c.kind = ""
		}
		return
	}
	c.kind, c.at = name, l.number
	switch name {
	case "httpchk":
		c.httpchk(p, l)
	case "pgsql-check":
		if l.word(2) != "user" || l.word(3) == "" {
			p.fail(l.number, "'option pgsql-check' wants 'user NAME'")
		}
		c.user = l.word(3)
	}
}

// httpchk treats `option httpchk [[METHOD] URI [VERSION]]`. Behind the version
// old files have headers, after an escaped line break.
func (c *check) httpchk(p *proxy, l line) {
	c.method, c.uri, c.headers = setting{}, setting{}, nil
	at := func(i int) setting { return setting{l.word(i), l.number} }
	switch len(l.words) {
	case 2:
	case 3:
		c.uri = at(2)
	default:
		c.method, c.uri = at(2), at(3)
		version, headers, _ := strings.Cut(strings.Join(l.rest(4), " "), "\r\n")
		c.ver = setting{version, l.number}
		for header := range strings.SplitSeq(headers, "\r\n") {
			if header != "" {
				c.header(p, l.number, header)
			}
		}
	}
}

func (c *check) header(p *proxy, number int, header string) {
	name, _, _ := strings.Cut(header, ":")
	if strings.EqualFold(name, "connection") {
		p.note(number, "the header 'Connection' is left out: the check sets it itself")
		return
	}
	c.headers = append(c.headers, setting{header, number})
}

// http treats `http-check …`. The rules of `defaults` hold only where a
// section has none of its own.
func (c *check) http(p *proxy, l line, inherited bool) {
	if !inherited && c.own == 0 {
		c.own, c.expect, c.body = l.number, nil, setting{}
	}
	switch l.word(1) {
	case "send":
		c.send(p, l)
	case "expect":
		c.expected(p, l)
	case "comment":
	case "connect":
		if len(l.words) > 2 {
			p.fail(l.number, "'http-check connect' with %s: write 'port' and 'check-ssl' onto the server lines", quote(l.word(2)))
		}
	case "send-state":
		p.note(l.number, "'http-check send-state' is left out: %s", noNeed)
	default:
		p.fail(l.number, "'http-check %s' cannot be carried over; 'send' and 'expect' can", l.word(1))
	}
}

func (c *check) send(p *proxy, l line) {
	words := l.rest(2)
	for len(words) > 1 {
		value := setting{words[1], l.number}
		switch words[0] {
		case "meth":
			c.method = value
		case "uri":
			c.uri = value
		case "ver":
			c.ver = value
		case "hdr":
			if len(words) < 3 {
				p.fail(l.number, "'hdr' wants a name and a value")
				return
			}
			c.header(p, l.number, words[1]+": "+words[2])
			words = words[1:]
		case "comment":
		default:
			p.fail(l.number, "'http-check send %s' cannot be carried over; meth, uri, ver and hdr can", words[0])
			return
		}
		words = words[2:]
	}
	if len(words) > 0 {
		p.fail(l.number, "%s lacks its value", quote(words[0]))
	}
}

// expected treats `http-check expect [OPTION VALUE…] [!] KIND PATTERN`.
func (c *check) expected(p *proxy, l line) {
	words := l.rest(2)
	for len(words) > 1 && (words[0] == "min-recv" || words[0] == "comment" || strings.HasSuffix(words[0], "-status") || strings.HasPrefix(words[0], "on-")) {
		p.note(l.number, "'%s' of an expectation is left out: %s", words[0], noNeed)
		words = words[2:]
	}
	not := len(words) > 0 && words[0] == "!"
	if not {
		words = words[1:]
	}
	if len(words) != 2 {
		p.fail(l.number, "'http-check expect' wants 'status', 'rstatus' or 'string', and one pattern")
		return
	}
	switch kind := words[0]; {
	case kind == "status" || kind == "rstatus":
		set, err := expected(kind, words[1], not)
		if err != nil {
			p.fail(l.number, "'http-check expect %s': %s %s", kind, quote(words[1]), err)
		}
		c.expect = set
	case kind == "string" && !not:
		c.body = setting{words[1], l.number}
	default:
		p.fail(l.number, "this 'http-check expect' cannot be carried over; 'status', 'rstatus' and 'string' can, and '!' before the first two")
	}
}

// make fills in what the checks of an HTTP backend ask for.
func (c *check) make(p *proxy, b *config.Backend) {
	b.Check, b.CheckMethod, b.CheckURI = config.CheckHTTP, "OPTIONS", "/" // HAProxy's defaults
	if c.method.number > 0 {
		p.set(c.method.number, b, "backend", "check_method", "the check's method", c.method.text)
	}
	if c.uri.number > 0 {
		p.set(c.uri.number, b, "backend", "check_uri", "the check's URI", c.uri.text)
	}
	if v := c.ver; v.text != "" && v.text != "HTTP/1.1" {
		p.note(v.number, "%s is left out: checks speak HTTP/1.1", quote(v.text))
	}
	for _, h := range c.headers {
		p.set(h.number, b, "backend", "check_header", "the check's header", h.text)
	}
	switch {
	case c.expect != nil:
		b.CheckExpect = c.expect
	case c.body.number > 0:
		b.CheckExpect = config.StatusSet{{From: 100, To: 599}} // HAProxy asks for nothing else then
	default:
		b.CheckExpect = config.StatusSet{{From: 200, To: 399}}
	}
	if c.body.number > 0 {
		p.set(c.body.number, b, "backend", "check_body", "'http-check expect string'", c.body.text)
	}
}

// leads are the paths of Patroni's REST API that one node of a cluster answers
// with 200 (https://patroni.readthedocs.io/en/latest/rest_api.html).
var leads = map[string]bool{
	"/primary": true, "/master": true, "/leader": true, "/read-write": true,
	"/standby-leader": true, "/standby_leader": true,
}

// asksForLeader reports whether the checks find the one leader of a Patroni
// cluster. `/` does so too, but may be of anything: it counts where checks go
// to a port of their own, as to Patroni's.
func asksForLeader(b *config.Backend) bool {
	path, _, _ := strings.Cut(b.CheckURI, "?")
	if path != "/" {
		return leads[path]
	}
	for _, s := range b.Servers {
		if s.CheckPort == 0 || s.CheckPort == s.Address.Port {
			return false
		}
	}
	return len(b.Servers) > 0
}

// follow makes a backend follow the leader.
func (c *check) follow(p *proxy, b *config.Backend) {
	b.Policy = config.Leader
	text := "policy 'leader' instead of 'balance': every session goes to the one confirmed leader; a server is DOWN until proven, and new clients wait up to " + strconv.Itoa(int(b.Hold.Seconds())) + "s while there is none"
	if b.CheckURI == "/" {
		text += "; if what is asked here is not Patroni's REST API, set a policy as 'roundrobin'"
	}
	p.note(c.at, "%s", text)
	if b.CheckMethod != "GET" {
		p.note(c.at, "checks use GET instead of %s: the answer then tells role and timeline too", b.CheckMethod)
		b.CheckMethod = "GET"
	}
	if b.OnMarkedDown == config.KeepSessions {
		p.note(c.at, "without 'on-marked-down shutdown-sessions' the sessions of a dead leader stay open until another leads; better set `on_marked_down` to 'shutdown-sessions'")
	}
	for i, s := range b.Servers {
		if s.Backup || s.Weight != 1 {
			p.note(p.servers[i].number, "server '%s': 'backup' and 'weight' have no effect with policy 'leader'", s.Name)
		}
	}
}
