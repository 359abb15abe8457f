package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"pointsman/balancer/control"
)

func reloadCommand(e env) *cli.Command {
	return &cli.Command{
		Name:  "reload",
		Usage: "has the daemon read its file again, as SIGHUP does, and says what came of it",
		Flags: []cli.Flag{configFlag, socketFlag},
		Action: func(c *cli.Context) error {
			path, err := socketPath(c)
			if err != nil {
				return err
			}
			outcome, err := control.AskReload(path)
			switch {
			case err != nil:
				return err
			case outcome.Error != "":
				return errors.New("nothing was changed, the running configuration goes on:\n" + outcome.Error)
			}
			fmt.Fprintln(e.stdout, "reloaded "+outcome.File)
			for _, note := range outcome.Notes {
				fmt.Fprintln(e.stdout, note)
			}
			return nil
		},
	}
}
