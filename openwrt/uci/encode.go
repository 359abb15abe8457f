package uci

import (
	"slices"
	"strconv"
	"strings"

	"pointsman/config"
)

// said lists the options that Encode writes even where they hold their
// defaults: those that the file of the package shows.
var said = map[string][]string{
	"global":   {"enabled", "log_level", "control", "loops"},
	"frontend": {"protocol", "maxconn"},
	"backend":  {"policy", "check", "check_uri", "check_expect", "inter", "fall", "rise", "on_marked_down", "hold"},
}

// Encode turns a configuration into a file that Decode turns back into the
// same. A section is named after what it is, as far as UCI's names can hold
// it; where they cannot, or where that name is taken, option `name` says it.
func Encode(c *config.Config) *File {
	e := encoder{file: &File{}, names: map[string]bool{}}
	global := c.Global
	e.section("global", "global", "", &global)
	for i := range c.DCS {
		d := c.DCS[i]
		e.section("dcs", d.Name, "dcs", &d)
	}
	for i := range c.Frontends {
		f := c.Frontends[i]
		e.section("frontend", f.Name, "frontend", &f)
	}
	for i := range c.Backends {
		b := c.Backends[i]
		at := e.section("backend", b.Name, "backend", &b)
		for _, s := range b.Servers {
			e.section("server", s.Name, at, &s)
		}
	}
	return e.file
}

type encoder struct {
	file  *File
	names map[string]bool // of sections
}

// section adds what src, a pointer to a section of that type, holds, and
// returns the name that the section got.
func (e *encoder) section(sectionType, name, prefix string, src any) string {
	s := Section{Type: sectionType, Name: e.name(name, prefix)}
	ref := config.Lookup(sectionType)
	for i := range ref.Keys {
		key := &ref.Keys[i]
		values := key.Values(src)
		switch {
		case len(values) == 0, key.Name == "name" && s.Name == name:
			continue
		case len(values) == 1 && values[0] == key.Default && !mustSay(src, sectionType, key.Name):
			continue
		}
		o := Option{Name: key.Name, List: key.List}
		for _, v := range values {
			o.Values = append(o.Values, Value{Text: v})
		}
		s.Options = append(s.Options, o)
	}
	e.file.Sections = append(e.file.Sections, s)
	return s.Name
}

// mustSay reports whether an option is written though it holds its default.
func mustSay(src any, sectionType, option string) bool {
	if b, is := src.(*config.Backend); is && b.Check != config.CheckHTTP && strings.HasPrefix(option, "check_") {
		return false // it has no effect
	}
	return slices.Contains(said[sectionType], option)
}

// name returns a section name that is not taken yet. Sections of all types
// share one set of names.
func (e *encoder) name(name, prefix string) string {
	fit := strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
	free := fit
	if e.names[free] {
		fit = prefix + "_" + fit
		free = fit
	}
	for n := 2; e.names[free]; n++ {
		free = fit + "_" + strconv.Itoa(n)
	}
	e.names[free] = true
	return free
}
