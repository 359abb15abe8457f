package page

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRefresh(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	texts := map[string]string{"bench:rows": "1\n", "bench:calls": "2", "bench:none": ""}
	for page, want := range map[string]string{
		"":          "",
		"no place":  "no place",
		"a\n" + End: "a\n" + End,
		"a\n<!-- bench:rows -->\nold\nolder\n" + End + "b\n<!-- bench:calls -->\n" + End + "c": "a\n<!-- bench:rows -->\n1\n" + End + "b\n<!-- bench:calls -->\n2\n" + End + "c",
		"<!-- bench:rows -->\n" + End + "<!-- bench:rows -->\nx\n" + End:                       "<!-- bench:rows -->\n1\n" + End + "<!-- bench:rows -->\n1\n" + End,
		"<!-- bench:none -->\nx\n" + End:                                                       "<!-- bench:none -->\nx\n" + End,
		"<!-- other:rows -->\nkept\n" + End:                                                    "<!-- other:rows -->\nkept\n" + End,
		"say `<!-- bench:rows -->` in a line\n":                                                "say `<!-- bench:rows -->` in a line\n",
	} {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time changes nothing
			if err := Refresh(path, texts); err != nil {
				t.Fatalf("%q: %v", page, err)
			}
			if got, _ := os.ReadFile(path); string(got) != want {
				t.Errorf("%q became %q, want %q", page, got, want)
			}
		}
	}
	for _, page := range []string{
		"<!-- bench:rows -->\n", "<!-- other:rows -->\n",
		"<!-- bench:rows -->\n<!-- bench:calls -->\n" + End,
		"<!-- bench:unknown -->\n" + End,
	} {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Refresh(path, texts); err == nil {
			t.Errorf("%q was written", page)
		}
		if got, _ := os.ReadFile(path); string(got) != page {
			t.Errorf("%q became %q", page, got)
		}
	}
	if err := Refresh(path+"x", texts); err == nil {
		t.Error("a page that is not there was written")
	}
}
