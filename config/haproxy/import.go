package haproxy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"pointsman/config"
)

// Import makes a configuration that does what the file says; name is only for
// messages. The notes are by line. An error is an Errors that lists everything
// that cannot be carried over; then there is no configuration.
func Import(name string, text []byte) (config.Config, []Note, error) {
	r := &reader{report: report{file: name, said: map[Note]bool{}}, defaults: map[string]*section{}}
	if len(text) > MaxSize {
		r.fail(0, "is larger than %d bytes", MaxSize)
	} else {
		r.read(string(text))
	}
	c := config.Config{Global: config.NewGlobal()}
	if len(r.errors) == 0 || len(r.proxies) > 0 {
		r.carry(&c)
	}
	slices.SortStableFunc(r.notes, func(a, b Note) int { return cmp.Compare(a.Line, b.Line) })
	if len(r.errors) == 0 {
		return c, r.notes, nil
	}
	slices.SortStableFunc(r.errors, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
	if len(r.errors) > most {
		r.errors = append(r.errors[:most], Error{name, 0, "too many errors; the rest is not shown"})
	}
	return config.Config{}, r.notes, r.errors
}

// section is one section with a name: its own lines, behind those of the
// `defaults` that it takes.
type section struct {
	kind, name string
	number     int // of its first line
	lines      []line
	inherited  int // how many of the lines are those of defaults
}

type reader struct {
	report
	latest   *section            // the `defaults` that those behind it take
	defaults map[string]*section // by name
	proxies  []*section

	maxconn         line // `maxconn` of global
	caBase, crtBase string
}

// read takes the file apart into sections.
func (r *reader) read(text string) {
	var current *section
	number := 0
	for text := range strings.SplitSeq(text, "\n") {
		number++
		words, err := split(text)
		switch {
		case err != nil:
			r.fail(number, "%s", err)
		case len(words) == 0:
		case strings.HasPrefix(words[0], "."):
			r.fail(number, "%s: conditions are HAProxy's own; write out what holds", quote(words[0]))
		case slices.Contains([]string{"global", "defaults", "frontend", "backend", "listen"}, words[0]):
			current = r.open(line{number, words})
		case isOtherSection(words[0]):
			current = r.other(line{number, words})
		case current == nil:
			r.fail(number, "%s stands before the first section", quote(words[0]))
		case current.kind == "global":
			r.global(line{number, words})
		default:
			current.lines = append(current.lines, line{number, words})
		}
	}
}

func isOtherSection(word string) bool { _, is := otherSections[word]; return is }

// open begins a section; it inherits the lines of its `defaults`.
func (r *reader) open(l line) *section {
	s := &section{kind: l.words[0], number: l.number}
	arguments := l.words[1:]
	if len(arguments) > 0 && arguments[0] != "from" && s.kind != "global" {
		s.name, arguments = arguments[0], arguments[1:]
	}
	from := r.latest
	if s.kind == "defaults" || s.kind == "global" {
		from = nil
	}
	if len(arguments) == 2 && arguments[0] == "from" {
		if from = r.defaults[arguments[1]]; from == nil {
			r.fail(l.number, "there is no 'defaults %s' above", arguments[1])
		}
		arguments = nil
	}
	if len(arguments) > 0 {
		r.fail(l.number, "%s is one too many; an address goes into a 'bind' line", quote(arguments[0]))
	}
	if from != nil {
		s.lines = slices.Clone(from.lines)
		s.inherited = len(s.lines)
	}
	switch {
	case s.kind == "defaults":
		r.latest, r.defaults[s.name] = s, s
	case s.kind == "global":
	case s.name == "":
		r.fail(l.number, "the %s has no name", s.kind)
	default:
		r.proxies = append(r.proxies, s)
	}
	return s
}

// other begins a section that is not carried over.
func (r *reader) other(l line) *section {
	if advice := otherSections[l.words[0]]; advice != "" {
		r.fail(l.number, "section '%s' cannot be carried over: %s", l.words[0], advice)
	} else {
		r.note(l.number, "section '%s' is left out: nothing here needs it", l.words[0])
	}
	return &section{kind: l.words[0], number: l.number}
}

func (r *reader) global(l line) {
	switch word := l.words[0]; word {
	case "maxconn":
		r.maxconn = l
		r.note(l.number, "the process has no 'maxconn'; each frontend without one of its own gets this")
	case "ca-base":
		r.caBase = l.word(1)
	case "crt-base":
		r.crtBase = l.word(1)
	case "stats":
		r.note(l.number, "'stats' of global is left out: `pointsman status` asks a socket of its own, see `control`")
	default:
		r.note(l.number, "'%s' of global is left out: %s", word, noNeed)
	}
}

// carry makes the configuration of all sections.
func (r *reader) carry(c *config.Config) {
	var fronts, backs []*proxy
	for _, s := range r.proxies {
		p := r.proxy(s)
		if p == nil {
			continue
		}
		if p.has("frontend") {
			fronts = append(fronts, p)
		}
		if p.has("backend") {
			p.makeBackend()
			backs = append(backs, p)
		}
	}
	var servers []config.Server
	var serverLines []int
	for _, p := range backs {
		c.Backends = append(c.Backends, p.backend)
		for i := range p.backend.Servers {
			servers = append(servers, p.backend.Servers[i])
			serverLines = append(serverLines, p.servers[i].number)
		}
		c.Backends[len(c.Backends)-1].Servers = nil // Check hands them out
	}
	for _, p := range fronts {
		p.makeFrontend(backs)
		c.Frontends = append(c.Frontends, p.frontend)
	}
	if len(r.errors) > 0 {
		return
	}
	if len(fronts) == 0 {
		r.fail(0, "there is no frontend or listen section to carry over")
		return
	}
	for _, p := range config.Check(c, servers) {
		number := 0
		switch p.Section {
		case "frontend":
			number = fronts[p.Index].lineOf(p)
		case "backend":
			number = backs[p.Index].section.number
		case "server":
			number = serverLines[p.Index]
		}
		text := plain(p.Text)
		if p.Value != "" {
			text = quote(p.Value) + ": " + text
		}
		r.fail(number, "%s", text)
	}
}

// set stores an option of config in dst, a pointer to its section, and says
// what is wrong with it; what is how HAProxy calls it.
func (r *reader) set(number int, dst any, sectionType, key, what, text string) {
	k := config.Lookup(sectionType).Key(key)
	if err := k.Set(dst, text); err != nil {
		r.fail(number, "%s: %s %s; want %s", what, quote(text), plain(err.Error()), plain(k.Allowed))
	}
}

// setDuration does the same for one of HAProxy's durations.
func (r *reader) setDuration(number int, dst any, sectionType, key, what, text string) {
	d, err := duration(text)
	if err != nil {
		r.fail(number, "%s: %s %s", what, quote(text), err)
		return
	}
	r.set(number, dst, sectionType, key, what, strconv.FormatInt(d.Milliseconds(), 10)+"ms")
}

// plain turns the reference's Markdown into what a terminal shows.
func plain(text string) string { return strings.ReplaceAll(text, "`", "'") }
