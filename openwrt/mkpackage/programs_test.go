//go:build package

package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pointsman/openwrt"
)

// processors says what each target's program must be, and which command of
// qemu-user runs it, as the processor that the architecture is named after.
// An empty command is this machine itself.
var processors = map[string]struct {
	machine elf.Machine
	class   elf.Class
	data    elf.Data
	qemu    []string
}{
	"mips_24kc":                {elf.EM_MIPS, elf.ELFCLASS32, elf.ELFDATA2MSB, []string{"qemu-mips", "-cpu", "24Kc"}},
	"mipsel_24kc":              {elf.EM_MIPS, elf.ELFCLASS32, elf.ELFDATA2LSB, []string{"qemu-mipsel", "-cpu", "24Kc"}},
	"arm_cortex-a7_neon-vfpv4": {elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB, []string{"qemu-arm", "-cpu", "cortex-a7"}},
	"aarch64_cortex-a53":       {elf.EM_AARCH64, elf.ELFCLASS64, elf.ELFDATA2LSB, []string{"qemu-aarch64", "-cpu", "cortex-a53"}},
	"x86_64":                   {elf.EM_X86_64, elf.ELFCLASS64, elf.ELFDATA2LSB, nil},
}

// TestPackages builds every package twice, reads it back, and runs its
// program. It is behind a build tag because compiling takes minutes.
func TestPackages(t *testing.T) {
	const version = "1.2.3"
	when := time.Unix(1_700_000_000, 0)
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")

	for i, target := range targets {
		t.Run(target.architecture, func(t *testing.T) {
			out, again := t.TempDir(), t.TempDir()
			var sizes bytes.Buffer
			for _, dir := range []string{out, again} {
				sizes.Reset()
				if err := run(targets[i:i+1], version, dir, &sizes); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("\n%s", strings.ReplaceAll(sizes.String(), again+"/", ""))
			name := newPackage(target.architecture, version, nil, when).Filename()
			if readFile(t, filepath.Join(out, name)) != readFile(t, filepath.Join(again, name)) {
				t.Error("the same sources gave other bytes")
			}
			dir := t.TempDir()
			unpackPackage(t, filepath.Join(out, name), dir, when)
			data := filepath.Join(dir, "data")
			for path, want := range map[string][]byte{
				"etc/config/pointsman": openwrt.Config,
				"etc/init.d/pointsman": openwrt.Init,
			} {
				if got := readFile(t, filepath.Join(data, path)); got != string(want) {
					t.Errorf("%s is not as in the sources", path)
				}
			}
			program := filepath.Join(data, "usr/sbin/pointsman")
			checkProgram(t, target.architecture, program)
			command := append(processor(t, target.architecture), program)
			runProgram(t, command, version, filepath.Join(data, "etc/config/pointsman"))
			runDaemon(t, command)
		})
	}
}

// checkProgram looks at what the program is: for the right processor, static,
// stripped, and without a trace of where it was built.
func checkProgram(t *testing.T, architecture, path string) {
	t.Helper()
	want := processors[architecture]
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != want.machine || f.Class != want.class || f.Data != want.data {
		t.Errorf("the program is for %v, %v, %v; want %v, %v, %v", f.Machine, f.Class, f.Data, want.machine, want.class, want.data)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program is not static")
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
		t.Error("the program is not stripped")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(filepath.Dir(here))
	if strings.Contains(readFile(t, path), root+"/") {
		t.Errorf("the program names %s, where it was built", root)
	}
}

// processor returns the command that runs an architecture's programs, nothing
// for this machine's own, and skips where there is none.
func processor(t *testing.T, architecture string) []string {
	t.Helper()
	qemu := processors[architecture].qemu
	if len(qemu) == 0 {
		return nil
	}
	if _, err := exec.LookPath(qemu[0]); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return slices.Clone(qemu)
}

// runProgram runs the commands that an installation needs first.
func runProgram(t *testing.T, command []string, version, shipped string) {
	t.Helper()
	broken := filepath.Join(t.TempDir(), "broken")
	text := strings.Replace(string(openwrt.Config), "option check_uri ", "option chek_uri ", 1)
	if err := os.WriteFile(broken, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	line := 1 + strings.Count(text[:strings.Index(text, "chek_uri")], "\n")

	tests := []struct {
		args   []string
		status int
		want   string // part of the output
	}{
		{[]string{"--version"}, 0, version},
		{[]string{"check", "-c", shipped}, 0, ""},
		{[]string{"check", "-c", broken}, 1, fmt.Sprintf("%s:%d:", broken, line)},
		{[]string{"check", "-c", broken}, 1, "'check_uri'"},
		{[]string{"check", "-c", broken + "-none"}, 1, broken + "-none"},
	}
	for _, test := range tests {
		args := append(slices.Clone(command), test.args...)
		cmd := exec.Command(args[0], args[1:]...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != test.status || !strings.Contains(string(out), test.want) {
			t.Errorf("%q: status %d, want %d and %q in:\n%s", test.args, got, test.status, test.want, out)
		}
	}
}
