// Package ipk writes packages in the form that OpenWrt's opkg installs: a
// gzipped tar (not an ar, as in Debian) of debian-binary, data.tar.gz and
// control.tar.gz, as OpenWrt's scripts/ipkg-build makes them. The same Package
// gives the same bytes.
package ipk

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Package is one package. Empty fields are left out of its control file.
type Package struct {
	Name         string // also of its sources
	Version      string // with the package's own release: "0.1.0-r1"
	Architecture string // OpenWrt's word, as "mips_24kc"
	Depends      string // names with commas between
	Source       string // path in the feed
	License      string // SPDX
	Section      string
	URL          string
	Maintainer   string
	Description  string // lines; the first is the summary

	Files     []File
	Conffiles []string          // paths of Files that an upgrade keeps if they were edited
	Scripts   map[string]string // by name: postinst, prerm, postinst-pkg, ...
	Time      time.Time         // of every member
}

// File is one file to install. The directories above it come by themselves.
type File struct {
	Path string // absolute and clean
	Mode fs.FileMode
	Data []byte
}

// The names that opkg tells apart from its own: scripts/ipkg-build allows these.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9_.+-]+$`)

// Filename is the name that a package feed expects.
func (p *Package) Filename() string {
	return p.Name + "_" + p.Version + "_" + p.Architecture + ".ipk"
}

// Write writes the package. It fails on a Package that opkg would refuse,
// or install wrongly, before it writes anything.
func (p *Package) Write(w io.Writer) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	data := p.tar(p.Files)
	control := []File{{"/control", 0o644, []byte(p.control(len(data)))}}
	if len(p.Conffiles) > 0 {
		list := strings.Join(slices.Sorted(slices.Values(p.Conffiles)), "\n") + "\n"
		control = append(control, File{"/conffiles", 0o644, []byte(list)})
	}
	for name, text := range p.Scripts {
		control = append(control, File{"/" + name, 0o755, []byte(text)})
	}

	// These three have an order of their own, and no directory above them.
	var outer bytes.Buffer
	t := tar.NewWriter(&outer)
	p.member(t, "./debian-binary", 0o644, []byte("2.0\n"))
	p.member(t, "./data.tar.gz", 0o644, compressed(data))
	p.member(t, "./control.tar.gz", 0o644, compressed(p.tar(control)))
	must(t.Close())
	_, err := w.Write(compressed(outer.Bytes()))
	return err
}

func (p *Package) check() error {
	for _, name := range []string{p.Name, p.Version, p.Architecture} {
		if !nameForm.MatchString(name) {
			return fmt.Errorf("%q: a name, version or architecture is of letters, digits and _.+-", name)
		}
	}
	seen := map[string]bool{}
	for _, f := range p.Files {
		switch {
		case !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/":
			return fmt.Errorf("file %q: the path is not absolute and clean", f.Path)
		case seen[f.Path]:
			return fmt.Errorf("file %q: given twice", f.Path)
		}
		seen[f.Path] = true
	}
	for _, c := range p.Conffiles {
		if !seen[c] {
			return fmt.Errorf("conffile %q: not among the files", c)
		}
	}
	return nil
}

// control is the control file. Installed-Size counts bytes, unlike Debian's.
func (p *Package) control(installed int) string {
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	field("Package", p.Name)
	field("Version", p.Version)
	field("Depends", p.Depends)
	field("Source", p.Source)
	field("SourceName", p.Name)
	field("License", p.License)
	field("Section", p.Section)
	field("SourceDateEpoch", fmt.Sprint(p.Time.Unix()))
	field("URL", p.URL)
	field("Maintainer", p.Maintainer)
	field("Architecture", p.Architecture)
	field("Installed-Size", fmt.Sprint(installed))
	// Further lines of a field start with a space.
	field("Description", strings.ReplaceAll(strings.TrimSpace(p.Description), "\n", "\n "))
	return b.String()
}

// tar returns an archive of the files and the directories above them, in the
// order of `tar --sort=name .`: each directory before what is in it.
func (p *Package) tar(files []File) []byte {
	members := map[string]File{}
	for _, f := range files {
		members["."+f.Path] = f
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			members["."+dir+"/"] = File{Mode: fs.ModeDir | 0o755}
		}
	}
	members["./"] = File{Mode: fs.ModeDir | 0o755}

	names := make([]string, 0, len(members))
	for name := range members {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, name := range names {
		p.member(t, name, members[name].Mode, members[name].Data)
	}
	must(t.Close())
	return b.Bytes()
}

// member adds a file or a directory of root's. Owners have numbers and no
// names, as `tar --numeric-owner` writes them.
func (p *Package) member(t *tar.Writer, name string, mode fs.FileMode, data []byte) {
	h := tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Mode:     int64(mode.Perm()),
		Size:     int64(len(data)),
		ModTime:  p.Time.Truncate(time.Second), // finer ones need PAX
		Format:   tar.FormatGNU,
	}
	if mode.IsDir() {
		h.Typeflag = tar.TypeDir
	}
	must(t.WriteHeader(&h))
	_, err := t.Write(data)
	must(err)
}

// compressed is what `gzip -9n` gives: no name, no time.
func compressed(data []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	must(err)
	_, err = z.Write(data)
	must(err)
	must(z.Close())
	return b.Bytes()
}

// must is for writes to memory, which cannot fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
