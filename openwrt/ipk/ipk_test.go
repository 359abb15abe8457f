package ipk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func example() *Package {
	return &Package{
		Name: "thing", Version: "1.2.3-r1", Architecture: "mips_24kc",
		Depends: "libc", License: "MIT", Section: "net",
		Maintainer:  "somebody <somebody@example.org>",
		Description: "Does a thing.\nAnd tells of it.\n",
		Files: []File{
			{"/usr/sbin/thing", 0o755, []byte("program")},
			{"/etc/config/thing", 0o600, []byte("config thing\n")},
			{"/etc/init.d/thing", 0o755, []byte("#!/bin/sh\n")},
			{"/etc/config-old", 0o644, nil}, // sorts between /etc/config and what is in it, as plain text does
		},
		Conffiles: []string{"/etc/config/thing"},
		Scripts:   map[string]string{"prerm": "#!/bin/sh\n", "postinst": "#!/bin/sh\nexit 0\n"},
		Time:      time.Unix(1_700_000_000, 5),
	}
}

// read lists a gzipped tar's members, one a line, and returns their contents.
func read(t *testing.T, file []byte) (list string, contents map[string][]byte) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if z.Name != "" || !z.ModTime.IsZero() {
		t.Errorf("gzip header names %q, %v", z.Name, z.ModTime)
	}
	archive := tar.NewReader(z)
	contents = map[string][]byte{}
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return list, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		contents[h.Name] = data
		list += fmt.Sprintf("%c %04o %d%s/%d%s %d %s\n", h.Typeflag, h.Mode, h.Uid, h.Uname, h.Gid, h.Gname, h.ModTime.Unix(), h.Name)
	}
}

func TestWrite(t *testing.T) {
	var file bytes.Buffer
	if err := example().Write(&file); err != nil {
		t.Fatal(err)
	}
	list, outer := read(t, file.Bytes())
	if want := `0 0644 0/0 1700000000 ./debian-binary
0 0644 0/0 1700000000 ./data.tar.gz
0 0644 0/0 1700000000 ./control.tar.gz
`; list != want {
		t.Errorf("package:\n%swant:\n%s", list, want)
	}
	if got := string(outer["./debian-binary"]); got != "2.0\n" {
		t.Errorf("debian-binary: %q", got)
	}

	list, data := read(t, outer["./data.tar.gz"])
	if want := `5 0755 0/0 1700000000 ./
5 0755 0/0 1700000000 ./etc/
5 0755 0/0 1700000000 ./etc/config/
0 0600 0/0 1700000000 ./etc/config/thing
0 0644 0/0 1700000000 ./etc/config-old
5 0755 0/0 1700000000 ./etc/init.d/
0 0755 0/0 1700000000 ./etc/init.d/thing
5 0755 0/0 1700000000 ./usr/
5 0755 0/0 1700000000 ./usr/sbin/
0 0755 0/0 1700000000 ./usr/sbin/thing
`; list != want {
		t.Errorf("data:\n%swant:\n%s", list, want)
	}
	if got := string(data["./usr/sbin/thing"]); got != "program" {
		t.Errorf("thing: %q", got)
	}

	list, control := read(t, outer["./control.tar.gz"])
	if want := `5 0755 0/0 1700000000 ./
0 0644 0/0 1700000000 ./conffiles
0 0644 0/0 1700000000 ./control
0 0755 0/0 1700000000 ./postinst
0 0755 0/0 1700000000 ./prerm
`; list != want {
		t.Errorf("control:\n%swant:\n%s", list, want)
	}
	if got := string(control["./conffiles"]); got != "/etc/config/thing\n" {
		t.Errorf("conffiles: %q", got)
	}

	z, err := gzip.NewReader(bytes.NewReader(outer["./data.tar.gz"]))
	if err != nil {
		t.Fatal(err)
	}
	installed, err := io.Copy(io.Discard, z)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(control["./control"]), fmt.Sprintf(`Package: thing
Version: 1.2.3-r1
Depends: libc
SourceName: thing
License: MIT
Section: net
SourceDateEpoch: 1700000000
Maintainer: somebody <somebody@example.org>
Architecture: mips_24kc
Installed-Size: %d
Description: Does a thing.
 And tells of it.
`, installed); got != want {
		t.Errorf("control file:\n%swant:\n%s", got, want)
	}
}

func TestWriteIsReproducible(t *testing.T) {
	var first bytes.Buffer
	if err := example().Write(&first); err != nil {
		t.Fatal(err)
	}
	// Map iteration is random: a slip would show in one of these.
	for range 20 {
		var again bytes.Buffer
		if err := example().Write(&again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), again.Bytes()) {
			t.Fatal("the same package gave other bytes")
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Package)
		want   string
	}{
		{"a name with a space", func(p *Package) { p.Name = "a b" }, `"a b"`},
		{"no architecture", func(p *Package) { p.Architecture = "" }, `""`},
		{"a relative path", func(p *Package) { p.Files[0].Path = "usr/x" }, `"usr/x"`},
		{"a path with dots", func(p *Package) { p.Files[0].Path = "/usr/../x" }, `"/usr/../x"`},
		{"a file twice", func(p *Package) { p.Files[0].Path = p.Files[1].Path }, "twice"},
		{"a conffile that is not there", func(p *Package) { p.Conffiles = []string{"/etc/other"} }, `"/etc/other"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := example()
			test.change(p)
			var file bytes.Buffer
			err := p.Write(&file)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %s", err, test.want)
			}
			if file.Len() > 0 {
				t.Error("something was written all the same")
			}
		})
	}
}

func TestFilename(t *testing.T) {
	if got, want := example().Filename(), "thing_1.2.3-r1_mips_24kc.ipk"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
