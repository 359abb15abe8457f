package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
)

// target is one architecture of OpenWrt's, and what the Go compiler calls it.
type target struct {
	architecture string
	env          []string
}

var targets = []target{
	{"mips_24kc", []string{"GOARCH=mips", "GOMIPS=softfloat"}},     // ath79; big-endian
	{"mipsel_24kc", []string{"GOARCH=mipsle", "GOMIPS=softfloat"}}, // ramips
	{"arm_cortex-a7_neon-vfpv4", []string{"GOARCH=arm", "GOARM=7"}},
	{"aarch64_cortex-a53", []string{"GOARCH=arm64"}},
	{"x86_64", []string{"GOARCH=amd64"}},
}

// compile builds the program at path, static and stripped, and returns it.
// Neither the builder's paths nor the state of its work tree go into it.
func (t target) compile(version, path string) ([]byte, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X main.version="+version, "-o", path, "pointsman/cmd/pointsman")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	cmd.Env = append(cmd.Env, t.env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(out))
	}
	return os.ReadFile(path)
}
