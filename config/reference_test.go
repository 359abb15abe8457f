package config_test

import (
	"bytes"
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"pointsman/config"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

func TestReferenceDocumentation(t *testing.T) {
	const doc = "../docs/configuration.md"
	shipped, err := os.ReadFile("../openwrt/files/pointsman.config")
	if err != nil {
		t.Fatal(err)
	}
	page := template.Must(template.New("configuration.md.tmpl").Funcs(template.FuncMap{
		"cell":    cell,
		"default": showDefault,
	}).ParseFiles("testdata/configuration.md.tmpl"))
	var want bytes.Buffer
	err = page.Execute(&want, map[string]any{
		"Shipped":  string(shipped),
		"Sections": config.Reference,
	})
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(doc, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not what the reference says; run: go test ./config -run Reference -update", doc)
	}
}

// cell fits text into a table: the forms of values are explained above it.
func cell(text string) string {
	if short, _, hasForms := strings.Cut(text, " (`500ms`"); hasForms {
		text = short
	}
	if short, _, hasForms := strings.Cut(text, " (also no/yes"); hasForms {
		text = short
	}
	return strings.ReplaceAll(text, "|", `\|`)
}

func showDefault(k config.Key) string {
	switch {
	case k.Required, k.Name == "bind":
		return "needed"
	case k.Default == "":
		return "unset"
	}
	return "`" + k.Default + "`"
}

func TestReferenceIsWhole(t *testing.T) {
	sections := map[string]any{
		"global":   new(config.Global),
		"frontend": new(config.Frontend),
		"backend":  new(config.Backend),
		"server":   new(config.Server),
		"dcs":      new(config.DCS),
	}
	if len(config.Reference) != len(sections) || len(config.SectionTypes()) != len(sections) {
		t.Errorf("the reference has %v", config.SectionTypes())
	}
	names := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	for _, ref := range config.Reference {
		dst := sections[ref.Type]
		if dst == nil || ref.Doc == "" || config.Lookup(ref.Type).Type != ref.Type {
			t.Errorf("section %s", ref.Type)
			continue
		}
		seen := map[string]bool{}
		for _, k := range ref.Keys {
			if !names.MatchString(k.Name) || seen[k.Name] {
				t.Errorf("%s.%s: the name is bad, or there twice", ref.Type, k.Name)
			}
			seen[k.Name] = true
			if k.Allowed == "" || !strings.HasSuffix(k.Doc, ".") {
				t.Errorf("%s.%s: allowed %q, documented as %q", ref.Type, k.Name, k.Allowed, k.Doc)
			}
			if k.Default != "" {
				if err := k.Set(dst, k.Default); err != nil {
					t.Errorf("%s.%s: the default %q %v", ref.Type, k.Name, k.Default, err)
				}
			}
			if k.Required && k.Default != "" || k.List && k.Default != "" {
				t.Errorf("%s.%s has a default, and may not", ref.Type, k.Name)
			}
			if got := ref.Key(k.Name); got == nil || got.Name != k.Name {
				t.Errorf("%s.%s is not found", ref.Type, k.Name)
			}
		}
		// Every field can be set, but for the servers, which Check hands out.
		fields := reflect.TypeOf(dst).Elem().NumField()
		if ref.Type == "backend" {
			fields--
		}
		if fields != len(ref.Keys) || fields != len(ref.Names()) {
			t.Errorf("%s has %d fields and %d keys", ref.Type, fields, len(ref.Keys))
		}
		if ref.Key("none") != nil {
			t.Errorf("%s has a key that it has not", ref.Type)
		}
	}
	if config.Lookup("none") != nil {
		t.Error("a section that is not there is found")
	}
}

// Setting each default changes nothing of what the constructors return.
func TestReferenceDefaults(t *testing.T) {
	global, frontend := config.NewGlobal(), config.NewFrontend("n")
	backend, server, dcs := config.NewBackend("n"), config.NewServer("n"), config.NewDCS("n")
	for sectionType, dst := range map[string]any{"global": &global, "frontend": &frontend, "backend": &backend, "server": &server, "dcs": &dcs} {
		before := reflect.ValueOf(dst).Elem().Interface()
		for _, k := range config.Lookup(sectionType).Keys {
			if k.Default == "" {
				continue
			}
			if err := k.Set(dst, k.Default); err != nil {
				t.Error(err)
			}
		}
		if after := reflect.ValueOf(dst).Elem().Interface(); !reflect.DeepEqual(before, after) {
			t.Errorf("%s: %+v became %+v", sectionType, before, after)
		}
	}
	if frontend.Name != "n" || backend.Name != "n" || server.Name != "n" || dcs.Name != "n" {
		t.Error("the section's name is not the default of the name")
	}
}
