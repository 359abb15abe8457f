// Command pointsman follows the PostgreSQL leader that Patroni elects and puts
// every TCP session onto it. One small file per command; wiring, nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"pointsman/openwrt/uci"
)

// version is set by the linker.
var version = "0.1.0-dev"

// defaultConfig is where OpenWrt keeps the file.
const defaultConfig = "/etc/config/pointsman"

// env is what the program sees of the world, so that all of it is a function
// of (env, arguments) that a test can call.
type env struct {
	stdout, stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(pointsman(ctx, env{os.Stdout, os.Stderr}, os.Args))
}

// errSilent ends the program with status 1 when everything was said already.
var errSilent = errors.New("")

// pointsman runs the program and returns its exit status.
func pointsman(ctx context.Context, e env, args []string) int {
	app := &cli.App{
		Name:            "pointsman",
		Usage:           "follows the PostgreSQL leader that Patroni elects, and puts every TCP session onto it",
		Version:         version,
		Writer:          e.stdout,
		ErrWriter:       e.stderr,
		HideHelpCommand: true,
		Commands: []*cli.Command{
			runCommand(e),
			checkCommand(e),
			statusCommand(e),
			eventsCommand(e),
			reloadCommand(e),
			importCommand(e),
			demoCommand(e),
		},
		// The caller exits; cli must not.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	err := app.RunContext(ctx, args)
	var inFile uci.Errors
	switch {
	case err == nil:
		return 0
	case errors.As(err, &inFile):
		fmt.Fprintln(e.stderr, err) // each line begins with file:line already
	case !errors.Is(err, errSilent):
		fmt.Fprintln(e.stderr, "pointsman:", err)
	}
	return 1
}
