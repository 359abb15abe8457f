package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// unpack extracts a gzipped tar with the system's tar, so that another
// program than ours reads what ours wrote, and returns tar's verbose list.
func unpack(t *testing.T, file, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--numeric-owner", "--full-time", "--utc", "--no-same-owner", "-C", dir, "-xvvzf", file)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return string(out)
}

// unpackPackage extracts an .ipk and its two archives, into dir/data and
// dir/control, and checks what holds for every package of ours.
func unpackPackage(t *testing.T, file, dir string, when time.Time) {
	t.Helper()
	lists := unpack(t, file, dir) +
		unpack(t, filepath.Join(dir, "control.tar.gz"), filepath.Join(dir, "control")) +
		unpack(t, filepath.Join(dir, "data.tar.gz"), filepath.Join(dir, "data"))
	var got []string
	for line := range strings.Lines(lists) {
		field := strings.Fields(line) // mode owner size date time name
		if stamp := field[3] + " " + field[4]; stamp != when.UTC().Format(time.DateTime) {
			t.Errorf("%s is of %s, want %s", field[5], stamp, when.UTC())
		}
		got = append(got, field[0]+" "+field[1]+" "+field[5])
	}
	want := `-rw-r--r-- 0/0 ./debian-binary
-rw-r--r-- 0/0 ./data.tar.gz
-rw-r--r-- 0/0 ./control.tar.gz
drwxr-xr-x 0/0 ./
-rw-r--r-- 0/0 ./conffiles
-rw-r--r-- 0/0 ./control
-rwxr-xr-x 0/0 ./postinst
-rwxr-xr-x 0/0 ./prerm
drwxr-xr-x 0/0 ./
drwxr-xr-x 0/0 ./etc/
drwxr-xr-x 0/0 ./etc/config/
-rw------- 0/0 ./etc/config/pointsman
drwxr-xr-x 0/0 ./etc/init.d/
-rwxr-xr-x 0/0 ./etc/init.d/pointsman
drwxr-xr-x 0/0 ./usr/
drwxr-xr-x 0/0 ./usr/sbin/
-rwxr-xr-x 0/0 ./usr/sbin/pointsman`
	if list := strings.Join(got, "\n"); list != want {
		t.Errorf("members:\n%s\nwant:\n%s", list, want)
	}
}

func TestPackageReadBack(t *testing.T) {
	when := time.Unix(1_700_000_000, 0)
	p := newPackage("mips_24kc", "1.2.3", []byte("a program"), when)
	var file bytes.Buffer
	if err := p.Write(&file); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, p.Filename())
	if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := p.Filename(), "pointsman_1.2.3-r1_mips_24kc.ipk"; got != want {
		t.Errorf("named %s, want %s", got, want)
	}
	unpackPackage(t, path, dir, when)

	for name, want := range map[string]string{
		"debian-binary":           "2.0\n",
		"data/usr/sbin/pointsman": "a program",
		"control/conffiles":       "/etc/config/pointsman\n",
	} {
		if got := readFile(t, filepath.Join(dir, name)); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	control := readFile(t, filepath.Join(dir, "control/control"))
	for _, line := range []string{
		"Package: pointsman\n", "Version: 1.2.3-r1\n", "Architecture: mips_24kc\n",
		"Depends: libc\n", "License: MIT\n", "\nDescription: Follows ",
	} {
		if !strings.Contains(control, line) {
			t.Errorf("control lacks %q:\n%s", line, control)
		}
	}
}

// TestScripts runs the package's scripts with a stand-in for OpenWrt's
// functions.sh, as opkg does: by path, with what happens as argument.
func TestScripts(t *testing.T) {
	const functions = `default_postinst() { echo "postinst $*"; }
default_prerm() { echo "prerm $*"; return 3; }
`
	tests := []struct {
		name, script, env string
		noFunctions       bool
		want              string
		status            int
	}{
		{"install", postinst, "", false, "postinst SCRIPT configure\n", 0},
		{"install without scripts", postinst, "IPKG_NO_SCRIPT=1", false, "", 0},
		{"install into a bare root", postinst, "", true, "", 0},
		{"remove", prerm, "", false, "prerm SCRIPT configure\n", 3},
		{"remove from a bare root", prerm, "", true, "", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			script := filepath.Join(root, "script")
			if err := os.WriteFile(script, []byte(test.script), 0o755); err != nil {
				t.Fatal(err)
			}
			if !test.noFunctions {
				lib := filepath.Join(root, "lib")
				if err := os.Mkdir(lib, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(lib, "functions.sh"), []byte(functions), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(script, "configure")
			cmd.Env = append(os.Environ(), "IPKG_INSTROOT="+root, test.env)
			out, _ := cmd.CombinedOutput()
			if got := strings.ReplaceAll(string(out), script, "SCRIPT"); got != test.want {
				t.Errorf("printed %q, want %q", got, test.want)
			}
			if got := cmd.ProcessState.ExitCode(); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
		})
	}
}

func TestSourceTime(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	if got, err := sourceTime(); err != nil || got.Unix() != 1_700_000_000 {
		t.Errorf("%v, %v", got, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if got, err := sourceTime(); err == nil {
		t.Errorf("yesterday is taken as %v", got)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
