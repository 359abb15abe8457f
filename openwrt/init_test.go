package openwrt_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pointsman/openwrt"
)

// rcCommon stands for OpenWrt's /etc/rc.common and procd.sh: what they would
// tell procd is printed instead. Arguments: the init script, the action, and
// a stand-in for the program. Environment: ENABLED, RUNNING.
const rcCommon = `
initscript=$1 action=$2 stand_in=$3
shift 3

extra_command() { :; }
config_load() { loaded=$1; }
config_foreach() { "$1" cfg01; }
config_get_bool() {
	[ "$loaded $2 $3" = "pointsman cfg01 enabled" ] || exit 3
	eval "$1=${ENABLED:-$4}"
}
logger() { sed "s/^/logged: /"; }
procd_running() { [ "$1 ${RUNNING:-}" = "pointsman 1" ]; }
procd_open_service() { :; }
procd_open_instance() { echo open; }
procd_set_param() { echo "$*"; }
procd_close_instance() { echo close; }
procd_add_reload_trigger() { echo "trigger $*"; }
procd_close_service() { service_triggers; echo sent; }
stop() { echo killed; }
start() { procd_open_service; start_service "$@"; procd_close_service; }
reload() { reload_service "$@"; }
restart() { exit 4; }

. "$initscript"
PROG=$stand_in
"$action" "$@"
`

// The program's stand-in: valid files hold the word "good".
const program = `#!/bin/sh
[ "$*" = "check -c /etc/config/pointsman" ] || exit 9
echo checked >>"$0.calls"
[ "$FILE" = good ] || { echo "/etc/config/pointsman:3: bad"; exit 1; }
`

// What procd is told where the daemon shall run.
const instance = `open
command PROG run -c /etc/config/pointsman
file /etc/config/pointsman
reload_signal HUP
limits nofile=65536 65536
term_timeout 60
respawn 3600 5 0
stdout 1
stderr 1
close
trigger pointsman
sent
`

const (
	refused = "logged: /etc/config/pointsman:3: bad\n"
	nothing = "trigger pointsman\nsent\n" // a service without instances: procd stops what runs
)

func TestInitScript(t *testing.T) {
	tests := []struct {
		name, action, file, enabled, running string

		want   string // what procd is told, and what is logged
		status int
		checks int // runs of the program; it is several megabytes in flash
	}{
		{"start", "start", "good", "1", "", instance, 0, 1},
		{"start is the default", "start", "good", "", "", instance, 0, 1},
		{"start, switched off", "start", "good", "0", "", nothing, 0, 0},
		{"start on a bad file", "start", "bad", "1", "", refused + nothing, 0, 1},
		{"start on a bad file while it runs", "start", "bad", "1", "1", refused, 1, 1},
		{"reload", "reload", "good", "1", "1", instance, 0, 1},
		{"reload where none runs", "reload", "good", "1", "", instance, 0, 1},
		{"reload of a bad file", "reload", "bad", "1", "1", refused, 1, 1},
		{"reload, switched off", "reload", "good", "0", "1", nothing, 0, 0},
		{"reload of a bad file, switched off", "reload", "bad", "0", "1", nothing, 0, 0},
		{"restart", "restart", "good", "1", "1", "killed\n" + instance, 0, 1},
		{"restart on a bad file", "restart", "bad", "1", "1", refused, 1, 1},
		{"check", "check", "good", "1", "1", "", 0, 1},
		{"check of a bad file", "check", "bad", "0", "", "/etc/config/pointsman:3: bad\n", 1, 1},
	}
	for _, shell := range [][]string{{"busybox", "ash"}, {"dash"}} {
		if _, err := exec.LookPath(shell[0]); err != nil {
			if os.Getenv("CI") == "true" {
				t.Error(err)
			}
			t.Logf("not tried with %s: %v", shell[0], err)
			continue
		}
		for _, test := range tests {
			t.Run(shell[0]+"/"+test.name, func(t *testing.T) {
				dir := t.TempDir()
				write := func(name, text string) string {
					path := filepath.Join(dir, name)
					if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
						t.Fatal(err)
					}
					return path
				}
				prog := write("pointsman", program)
				cmd := exec.Command(shell[0], append(shell[1:],
					write("rc.common", rcCommon), write("init", string(openwrt.Init)), test.action, prog)...)
				cmd.Env = append(os.Environ(), "FILE="+test.file, "ENABLED="+test.enabled, "RUNNING="+test.running)
				out, err := cmd.CombinedOutput()

				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				if got := cmd.ProcessState.ExitCode(); got != test.status {
					t.Errorf("status %d, want %d", got, test.status)
				}
				if got := strings.ReplaceAll(string(out), prog, "PROG"); got != test.want {
					t.Errorf("got:\n%swant:\n%s", got, test.want)
				}
				calls, _ := os.ReadFile(prog + ".calls")
				if got := bytes.Count(calls, []byte("\n")); got != test.checks {
					t.Errorf("the program ran %d times, want %d", got, test.checks)
				}
			})
		}
	}
}
