package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"pointsman/config/haproxy"
	"pointsman/openwrt/uci"
)

func importCommand(e env) *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "turn a haproxy.cfg into a configuration, written to standard output; what cannot be carried over is an error with its line",
		ArgsUsage: "FILE",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return errors.New("import wants one file, as /etc/haproxy.cfg")
			}
			name := c.Args().First()
			text, err := readImport(name)
			if err != nil {
				return err
			}
			cfg, notes, err := haproxy.Import(name, text)
			for _, n := range notes {
				fmt.Fprintln(e.stderr, n)
			}
			if err != nil {
				fmt.Fprintln(e.stderr, err) // each line begins with file:line already
				return errSilent
			}
			_, err = io.WriteString(e.stdout, uci.Encode(&cfg).Text())
			return err
		},
	}
}

func readImport(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading a haproxy.cfg: %w", err)
	}
	defer f.Close()
	// One byte more than Import takes, for it to notice.
	text, err := io.ReadAll(io.LimitReader(f, haproxy.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading a haproxy.cfg: %w", err)
	}
	return text, nil
}
