package haproxy

import (
	"strings"

	"pointsman/config"
)

// bind treats `bind ADDRESS[,ADDRESS…] [PARAM…]`.
func (p *proxy) bind(l line) {
	both, only6 := false, false
	for words := l.rest(2); len(words) > 0; {
		known, is := bindParams[words[0]]
		switch {
		case !is:
			p.fail(l.number, "%s behind an address is not known, and cannot be carried over", quote(words[0]))
			return
		case known.refused != "":
			p.fail(l.number, "'%s' of a bind cannot be carried over: %s", words[0], known.refused)
			return
		case known.ignored != "":
			p.note(l.number, "'%s' of a bind is left out: %s", words[0], known.ignored)
		}
		both, only6 = both || words[0] == "v4v6", only6 || words[0] == "v6only"
		words = words[min(1+known.args, len(words)):]
	}
	if l.word(1) == "" {
		p.fail(l.number, "'bind' lacks its address")
		return
	}
	for text := range strings.SplitSeq(l.word(1), ",") {
		host, port, err := address(text)
		switch {
		case err != nil:
			p.fail(l.number, "%s %s", quote(text), err)
			continue
		case strings.Contains(port, "-"):
			p.fail(l.number, "%s is a range of ports; write a 'bind' for each port", quote(text))
			continue
		}
		p.listen(l.number, hostPort(host, port))
		if host == "::" && !only6 {
			if !both {
				p.note(l.number, "%s takes IPv4 too where HAProxy listens so, and becomes two binds; with 'v6only' it is one", quote(text))
			}
			p.listen(l.number, ":"+port)
		}
	}
}

func (p *proxy) listen(number int, address string) {
	before := len(p.frontend.Binds)
	p.set(number, &p.frontend, "frontend", "bind", "'bind'", address)
	if len(p.frontend.Binds) > before {
		p.bindLines = append(p.bindLines, number)
	}
}

// makeFrontend puts together what the lines said; backs are all backends.
func (p *proxy) makeFrontend(backs []*proxy) {
	s := p.section
	binds := p.frontend.Binds
	p.frontend = config.NewFrontend(s.name)
	p.frontend.Binds = binds
	p.set(s.number, &p.frontend, "frontend", "name", s.kind, s.name)
	if len(binds) == 0 {
		p.fail(s.number, "%s '%s' has no 'bind' that can be carried over", s.kind, s.name)
	}
	target := p.target
	if s.kind == "listen" {
		if target.number > 0 {
			p.fail(target.number, "a 'listen' that has a default_backend too: write a frontend and a backend")
		}
		target = setting{s.name, s.number}
	}
	if target.text == "" {
		p.fail(s.number, "frontend '%s' has no 'default_backend'", s.name)
		return
	}
	p.target = target
	p.set(target.number, &p.frontend, "frontend", "default_backend", "'default_backend'", target.text)
	p.limits()
	p.setTimeout("client", &p.frontend, "frontend", "timeout_client")
	p.setTimeout("client-fin", &p.frontend, "frontend", "timeout_client_fin")
	p.frontend.TCPLog = p.tcplog
	for _, b := range backs {
		if b.section.name != target.text {
			continue
		}
		if tunnel := b.timeouts["tunnel"]; tunnel.number > 0 {
			p.setDuration(tunnel.number, &p.frontend, "frontend", "timeout_client", "'timeout tunnel'", tunnel.text)
		}
		if b.backend.Policy == config.Leader {
			p.frontend.Protocol = config.PostgreSQL
			p.note(s.number, "protocol 'postgresql': clients whose server is just stopping or starting wait; write 'tcp' if anything else than PostgreSQL's protocol goes through")
		}
	}
}

// limits carries over maxconn: the frontend's own, else the process's.
func (p *proxy) limits() {
	limit, what := p.maxconn, "'maxconn'"
	if limit.number == 0 || limit.text == "0" {
		limit, what = setting{p.reader.maxconn.word(1), p.reader.maxconn.number}, "'maxconn' of global"
	}
	if limit.number > 0 && limit.text != "0" {
		p.set(limit.number, &p.frontend, "frontend", "maxconn", what, limit.text)
	}
}

// lineOf returns the line that a problem is about.
func (p *proxy) lineOf(problem config.Problem) int {
	switch {
	case problem.Key == "bind" && problem.Item < len(p.bindLines):
		return p.bindLines[problem.Item]
	case problem.Key == "default_backend":
		return p.target.number
	}
	return p.section.number
}
