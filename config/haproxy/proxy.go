package haproxy

import (
	"slices"
	"strings"

	"pointsman/config"
)

// setting is one word of the file with the line that it stands on.
type setting struct {
	text   string
	number int // 0 = not given
}

// proxy is a frontend, a backend, or, as `listen`, both.
type proxy struct {
	*reader
	section  *section
	frontend config.Frontend
	backend  config.Backend

	bindLines []int // of frontend.Binds
	target    setting
	maxconn   setting
	tcplog    bool
	timeouts  map[string]setting // by HAProxy's name

	balance       setting
	check         check
	defaultServer params
	servers       []serverLine
}

func (p *proxy) has(half string) bool {
	return p.section.kind == half || p.section.kind == "listen"
}

// proxy reads the lines of a section, and returns nil if none of it is to be
// carried over.
func (r *reader) proxy(s *section) *proxy {
	p := &proxy{reader: r, section: s, timeouts: map[string]setting{}, defaultServer: params{}}
	mode, disabled := setting{"tcp", s.number}, false
	for _, l := range s.lines {
		switch l.words[0] {
		case "mode":
			mode = setting{l.word(1), l.number}
		case "disabled", "enabled":
			disabled = l.words[0] == "disabled"
		}
	}
	switch {
	case disabled:
		r.note(s.number, "%s '%s' is left out: it is disabled", s.kind, s.name)
		return nil
	case mode.text != "tcp" && s.isStatistics():
		r.note(s.number, "%s '%s' is left out: `pointsman status` shows what its page did", s.kind, s.name)
		return nil
	case mode.text != "tcp":
		r.fail(mode.number, "%s '%s' has mode '%s': only TCP sessions can be carried over; set 'mode tcp', or leave this to another proxy", s.kind, s.name, mode.text)
		return nil
	}
	for i, l := range s.lines {
		p.line(l, i < s.inherited)
	}
	return p
}

// isStatistics reports whether the section only serves HAProxy's own pages.
func (s *section) isStatistics() bool {
	serves := false
	for _, l := range s.lines {
		switch l.words[0] {
		case "server", "server-template", "default_backend", "use_backend", "dispatch":
			return false
		case "stats":
			serves = true
		case "http-request":
			serves = serves || slices.Contains(l.words, "prometheus-exporter")
		}
	}
	return serves
}

// line carries out one line. inherited ones come from `defaults`.
func (p *proxy) line(l line, inherited bool) {
	word := l.words[0]
	name := word
	if (word == "option" || word == "timeout") && len(l.words) > 1 {
		name += " " + l.words[1]
	}
	if h := half[name]; h != "" && !p.has(h) {
		if !inherited {
			p.note(l.number, "'%s' has no effect in a %s", name, p.section.kind)
		}
		return
	}
	switch word {
	case "mode", "enabled", "disabled":
	case "bind":
		p.bind(l)
	case "default_backend":
		p.target = setting{l.word(1), l.number}
	case "use_backend":
		if len(l.words) > 2 {
			p.fail(l.number, "'use_backend' with a condition: %s", matched)
		} else {
			p.target = setting{l.word(1), l.number}
		}
	case "maxconn":
		p.maxconn = setting{l.word(1), l.number}
	case "timeout":
		p.timeout(l)
	case "option":
		p.option(l, false)
	case "no":
		p.no(l)
	case "balance":
		p.balance = setting{strings.Join(l.rest(1), " "), l.number}
	case "retries":
		p.note(l.number, "'retries' is left out: a client whose connect fails goes back to waiting, up to `hold`")
	case "default-server":
		p.params(p.defaultServer, l, l.rest(1))
	case "server":
		p.server(l)
	case "http-check":
		p.check.http(p, l, inherited)
	case "tcp-check":
		if l.word(1) == "connect" && len(l.words) == 2 || l.word(1) == "comment" {
			return
		}
		p.fail(l.number, "'tcp-check %s': a check of several steps has no counterpart; use 'option tcp-check' alone, or for PostgreSQL 'option pgsql-check user NAME'", l.word(1))
	default:
		p.others(l)
	}
}

// others treats keywords that are not carried over.
func (p *proxy) others(l line) {
	word := l.words[0]
	if why, is := harmless[word]; is {
		p.note(l.number, "'%s' is left out: %s", word, why)
		return
	}
	if advice, is := refused[word]; is {
		p.fail(l.number, "'%s' cannot be carried over: %s", word, advice)
		return
	}
	p.unknown(l.number, word, half, harmless)
}

// unknown says so of a word, and what is near it.
func (p *proxy) unknown(number int, word string, known map[string]string, more map[string]string) {
	var names []string
	for _, m := range []map[string]string{known, more} {
		for name := range m {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if near := config.Nearest(word, names); near != "" {
		p.fail(number, "%s is not known; did you mean '%s'?", quote(word), near)
		return
	}
	p.fail(number, "%s is not known, and cannot be carried over; leave it out if the job does not need it", quote(word))
}

func (p *proxy) no(l line) {
	switch {
	case l.word(1) == "option" && len(l.words) > 2:
		p.option(line{l.number, l.words[1:]}, true)
	case l.word(1) == "log":
		p.note(l.number, "'no log' is left out: %s", logsOnly)
	default:
		p.fail(l.number, "%s is not known behind 'no'", quote(l.word(1)))
	}
}

// option treats `option NAME …`, and with no `no option NAME`.
func (p *proxy) option(l line, no bool) {
	name := l.word(1)
	if h := half["option "+name]; h != "" && !p.has(h) {
		return
	}
	switch name {
	case "tcplog":
		p.tcplog = !no
		return
	case "httplog":
		p.tcplog = !no
		p.note(l.number, "'option httplog' is taken for 'option tcplog', as HAProxy does for TCP sessions")
		return
	case "httpchk", "pgsql-check", "tcp-check":
		p.check.option(p, l, no)
		return
	}
	if why, is := harmlessOptions[name]; is {
		p.note(l.number, "'option %s' is left out: %s", name, why)
		return
	}
	if no {
		return // what cannot be carried over, and is not wanted
	}
	if advice, is := refusedOptions[name]; is {
		p.fail(l.number, "'option %s' cannot be carried over: %s", name, advice)
		return
	}
	p.unknown(l.number, name, map[string]string{"tcplog": "", "httpchk": "", "pgsql-check": "", "tcp-check": ""}, harmlessOptions)
}

func (p *proxy) timeout(l line) {
	name := l.word(1)
	switch {
	case harmlessTimeouts[name]:
		p.note(l.number, "'timeout %s' is left out: %s", name, httpOnly)
	case half["timeout "+name] == "":
		p.fail(l.number, "'timeout %s' is not known", name)
	case len(l.words) != 3:
		p.fail(l.number, "'timeout %s' wants one duration", name)
	default:
		p.timeouts[name] = setting{l.word(2), l.number}
	}
}

// setTimeout carries over a timeout, if there is one.
func (p *proxy) setTimeout(name string, dst any, sectionType, key string) {
	if s := p.timeouts[name]; s.number > 0 {
		p.setDuration(s.number, dst, sectionType, key, "'timeout "+name+"'", s.text)
	}
}
