// Command mkpackage builds the OpenWrt packages without OpenWrt's SDK: it
// cross-compiles the program for each architecture and writes one .ipk each.
// SOURCE_DATE_EPOCH, or else the time of the last commit, is the time of all
// files, so that the same sources give the same bytes.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	version := flag.String("version", "", "version of the program, as 1.2.3")
	out := flag.String("out", "dist", "directory for the packages")
	flag.Parse()
	if err := run(targets, *version, *out, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mkpackage:", err)
		os.Exit(1)
	}
}

// run builds a package for each target and prints their sizes.
func run(targets []target, version, out string, stdout io.Writer) error {
	if version == "" {
		return fmt.Errorf("-version is needed")
	}
	when, err := sourceTime()
	if err != nil {
		return fmt.Errorf("finding the time of the sources: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "mkpackage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	fmt.Fprintln(stdout, " program   package")
	for _, t := range targets {
		program, err := t.compile(version, filepath.Join(scratch, t.architecture))
		if err != nil {
			return fmt.Errorf("compiling for %s: %w", t.architecture, err)
		}
		p := newPackage(t.architecture, version, program, when)
		var file bytes.Buffer
		if err := p.Write(&file); err != nil {
			return err
		}
		path := filepath.Join(out, p.Filename())
		if err := os.WriteFile(path, file.Bytes(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%5.2f MB  %5.2f MB  %s\n", megabytes(len(program)), megabytes(file.Len()), path)
	}
	return nil
}

func megabytes(n int) float64 { return float64(n) / 1e6 }

// sourceTime follows https://reproducible-builds.org/specs/source-date-epoch/.
func sourceTime() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.Command("git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("no SOURCE_DATE_EPOCH, and git log: %w", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return time.Unix(seconds, 0), nil
}
