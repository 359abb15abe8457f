package uci

import "strings"

// Text returns the file as libuci writes it, but for section types that would
// not be read back as they are: those are quoted here.
func (f *File) Text() string {
	var b strings.Builder
	for i := range f.Sections {
		s := &f.Sections[i]
		b.WriteString("\nconfig ")
		if strings.ContainsAny(s.Type, "'\"\\#;") {
			writeQuoted(&b, s.Type)
		} else {
			b.WriteString(s.Type)
		}
		if s.Name != "" {
			b.WriteByte(' ')
			writeQuoted(&b, s.Name)
		}
		b.WriteByte('\n')
		for _, o := range s.Options {
			command := "\toption "
			if o.List {
				command = "\tlist "
			}
			for _, v := range o.Values {
				b.WriteString(command)
				b.WriteString(o.Name)
				b.WriteByte(' ')
				writeQuoted(&b, v.Text)
				b.WriteByte('\n')
			}
		}
	}
	b.WriteByte('\n')
	return b.String()
}

func writeQuoted(b *strings.Builder, text string) {
	b.WriteByte('\'')
	b.WriteString(strings.ReplaceAll(text, "'", `'\''`))
	b.WriteByte('\'')
}
