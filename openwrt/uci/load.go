package uci

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"pointsman/config"
)

// Load reads a file of /etc/config. What is wrong in it is an Errors; a file
// that cannot be read is another error, which says what to do.
func Load(path string) (config.Config, error) {
	text, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return config.Config{}, fmt.Errorf("reading the configuration: %w; name an existing file with -c", err)
	case errors.Is(err, fs.ErrPermission):
		return config.Config{}, fmt.Errorf("reading the configuration: %w; run as root, or let this user read the file", err)
	case err != nil:
		return config.Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	return Decode(path, text)
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	// Anything else could block, or never end.
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file; name one with -c")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One byte more than Parse takes, for it to notice.
	return io.ReadAll(io.LimitReader(f, MaxSize+1))
}

// Decode turns UCI text into a checked configuration; name is only for
// messages. An error is an Errors that lists everything that is wrong. Where
// the syntax is, it says of the rest only what each option shows for itself.
func Decode(name string, text []byte) (config.Config, error) {
	file, err := Parse(name, text)
	d := decoder{
		file:     name,
		readable: err == nil,
		config:   config.Config{Global: config.NewGlobal()},
		sections: map[string][]*Section{},
		wrong:    map[optionOf]bool{},
	}
	errors.As(err, &d.errors)
	for i := range file.Sections {
		d.section(&file.Sections[i])
	}
	if d.readable && !d.enough() {
		d.whole()
	}
	if len(d.errors) > 0 {
		return config.Config{}, d.sorted()
	}
	return d.config, nil
}

type decoder struct {
	file     string
	readable bool // no line was lost to a syntax error
	config   config.Config
	servers  []config.Server
	sections map[string][]*Section // by type, in file order, as config.Check counts them
	wrong    map[optionOf]bool     // options that have an error already
	errors   Errors
}

type optionOf struct {
	section *Section
	option  string
}

// enough reports whether further errors would not be shown. It spares the time
// that suggestions take, which would add up.
func (d *decoder) enough() bool { return len(d.errors) > maxErrors }

func (d *decoder) sorted() Errors {
	slices.SortStableFunc(d.errors, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
	if len(d.errors) > maxErrors {
		d.errors = append(d.errors[:maxErrors], errorAt(d.file, 0, "too many errors; the rest is not shown"))
	}
	return d.errors
}

func (d *decoder) section(s *Section) {
	if d.enough() {
		return
	}
	switch s.Type {
	case "global":
		if first := d.sections["global"]; len(first) > 0 {
			d.fail(s, "", Value{Line: s.Line}, "a second global section; the first is on line %d", first[0].Line)
		}
		d.options(s, &d.config.Global)
	case "frontend":
		f := config.NewFrontend(s.Name)
		d.options(s, &f)
		d.config.Frontends = append(d.config.Frontends, f)
	case "backend":
		b := config.NewBackend(s.Name)
		d.options(s, &b)
		d.config.Backends = append(d.config.Backends, b)
	case "server":
		server := config.NewServer(s.Name)
		d.options(s, &server)
		d.servers = append(d.servers, server)
	case "dcs":
		dcs := config.NewDCS(s.Name)
		d.options(s, &dcs)
		d.config.DCS = append(d.config.DCS, dcs)
	default:
		text := "want one of " + strings.Join(config.SectionTypes(), ", ")
		if near := config.Nearest(s.Type, config.SectionTypes()); near != "" {
			text = "did you mean " + quote(near) + "?"
		}
		d.errors = append(d.errors, errorAt(d.file, s.Line, "unknown section type %s; %s", quote(s.Type), text))
	}
	d.sections[s.Type] = append(d.sections[s.Type], s)
}

// options sets all options of a section in dst, a pointer to its type in config.
func (d *decoder) options(s *Section, dst any) {
	ref := config.Lookup(s.Type)
	for i := range s.Options {
		o := &s.Options[i]
		key := ref.Key(o.Name)
		switch {
		case d.enough():
			return
		case key == nil:
			d.fail(s, o.Name, o.Values[0], "unknown; %s", whereKnown(ref, o.Name))
		case o.List && !key.List:
			d.fail(s, o.Name, o.Values[0], "takes one value; write 'option %s', not 'list %s'", o.Name, o.Name)
		default:
			for _, v := range o.Values {
				d.set(s, key, dst, v)
			}
		}
	}
	d.name(s, ref, dst)
	for _, again := range s.Again {
		if again.Overwrites != "" && s.Type != "global" {
			d.fail(s, "", Value{Line: again.Line}, "another %s has that name, on line %d; its option '%s' would be overwritten", s.Type, s.Line, again.Overwrites)
		}
	}
	for i := range ref.Keys {
		key := &ref.Keys[i]
		if d.readable && key.Required && s.Option(key.Name) == nil {
			d.fail(s, key.Name, Value{Line: s.Line}, "missing; want %s", plain(key.Allowed))
		}
	}
}

func (d *decoder) set(s *Section, key *config.Key, dst any, v Value) {
	err := key.Set(dst, v.Text)
	if err == nil {
		return
	}
	hint := ""
	if key.List && strings.ContainsAny(v.Text, " \t") {
		hint = fmt.Sprintf("; each value needs a 'list %s' of its own", key.Name)
	}
	d.fail(s, key.Name, v, "%s %s; want %s%s", quote(v.Text), plain(err.Error()), plain(key.Allowed), hint)
}

// name sees to it that a section that others refer to has a fit name: that of
// the section itself, where it has no option `name`.
func (d *decoder) name(s *Section, ref *config.SectionRef, dst any) {
	key := ref.Key("name")
	if key == nil || s.Option("name") != nil {
		return
	}
	if s.Name != "" {
		d.set(s, key, dst, Value{s.Name, s.Line})
	} else if d.readable {
		d.fail(s, "name", Value{Line: s.Line}, "missing; a section without a name needs it, or write 'config %s NAME'", s.Type)
	}
}

// whereKnown says what an unknown option might be instead.
func whereKnown(ref *config.SectionRef, name string) string {
	var elsewhere []string
	for i := range config.Reference {
		if config.Reference[i].Key(name) != nil {
			elsewhere = append(elsewhere, config.Reference[i].Type)
		}
	}
	if elsewhere != nil {
		return "it belongs in a section of type " + strings.Join(elsewhere, " or ")
	}
	if near := config.Nearest(name, ref.Names()); near != "" {
		return "did you mean " + quote(near) + "?"
	}
	return "a section of type " + ref.Type + " has no such option"
}

// whole adds what only the whole configuration shows to be wrong.
func (d *decoder) whole() {
	for _, p := range config.Check(&d.config, d.servers) {
		if p.Section == "" {
			d.errors = append(d.errors, errorAt(d.file, 0, "%s", plain(p.Text)))
			continue
		}
		s := d.sections[p.Section][p.Index]
		if d.wrong[optionOf{s, p.Key}] {
			continue // most likely a consequence
		}
		v, text := Value{p.Value, s.Line}, plain(p.Text)
		if o := s.Option(p.Key); o != nil {
			v = o.Values[p.Item]
		}
		if v.Text != "" {
			text = quote(v.Text) + ": " + text
		}
		d.fail(s, p.Key, v, "%s", text)
	}
}

func (d *decoder) fail(s *Section, option string, v Value, format string, args ...any) {
	if d.enough() {
		return
	}
	d.errors = append(d.errors, Error{
		File: d.file, Line: v.Line, Section: s.label(), Option: option, Value: v.Text, Text: fmt.Sprintf(format, args...),
	})
	if option != "" {
		d.wrong[optionOf{s, option}] = true
	}
}

// label names the section in messages.
func (s *Section) label() string {
	name := s.Name
	if o := s.Option("name"); name == "" && o != nil {
		name = o.Values[0].Text
	}
	if name == "" {
		return "anonymous " + s.Type
	}
	return s.Type + " " + quote(name)
}

// plain turns the reference's Markdown into what a terminal shows.
func plain(text string) string { return strings.ReplaceAll(text, "`", "'") }
