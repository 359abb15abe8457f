// Package page writes figures into pages that people wrote: the text between
// two marks is made anew, and the rest stays as it is.
package page

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A mark is a comment, on a line of its own: `<!-- bench:rows -->` begins the
// place "bench:rows", and End ends it.
const End = "<!-- end -->\n"

var mark = regexp.MustCompile(`(?m)^<!-- ([a-z]+:[a-z0-9-]+) -->\n`)

// Refresh writes the texts into their places, in the page at path. A place may
// come more than once, or not at all; one whose text is empty stays as it is. A
// place that is not closed is an error, and so is one whose kind, the word
// before the colon, is among the texts' but which none of them is for; the page
// is then left as it was.
func Refresh(path string, texts map[string]string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("writing figures into a page: %w", err)
	}
	fresh, err := refresh(string(old), texts)
	if err != nil {
		return fmt.Errorf("writing figures into %s: %w", path, err)
	}
	if fresh == string(old) {
		return nil
	}
	if err := os.WriteFile(path, []byte(fresh), 0o644); err != nil {
		return fmt.Errorf("writing figures into a page: %w", err)
	}
	return nil
}

func refresh(rest string, texts map[string]string) (string, error) {
	kinds := map[string]bool{}
	for name := range texts {
		kind, _, _ := strings.Cut(name, ":")
		kinds[kind] = true
	}
	var out strings.Builder
	for {
		at := mark.FindStringSubmatchIndex(rest)
		if at == nil {
			out.WriteString(rest)
			return out.String(), nil
		}
		name := rest[at[2]:at[3]]
		out.WriteString(rest[:at[1]])
		rest = rest[at[1]:]
		inside, after, closed := strings.Cut(rest, End)
		if !closed || mark.MatchString(inside) {
			return "", fmt.Errorf("the place %q is not closed", name)
		}
		text, known := texts[name]
		kind, _, _ := strings.Cut(name, ":")
		switch {
		case !known && kinds[kind]:
			return "", fmt.Errorf("there is nothing for the place %q", name)
		case text == "":
			text = inside
		case !strings.HasSuffix(text, "\n"):
			text += "\n"
		}
		out.WriteString(text + End)
		rest = after
	}
}
