package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"pointsman/openwrt/uci"
)

func checkCommand(e env) *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "validate a file: every error with its line; exit 1",
		Flags: []cli.Flag{configFlag},
		Action: func(c *cli.Context) error {
			file := c.String("config")
			cfg, err := uci.Load(file)
			if err != nil {
				return err
			}
			servers := 0
			for _, b := range cfg.Backends {
				servers += len(b.Servers)
			}
			fmt.Fprintf(e.stdout, "%s is valid; frontends: %d, backends: %d, servers: %d\n", file, len(cfg.Frontends), len(cfg.Backends), servers)
			if !cfg.Global.Enabled {
				fmt.Fprintln(e.stdout, "`option enabled '0'`: the service does not start")
			}
			return nil
		},
	}
}
