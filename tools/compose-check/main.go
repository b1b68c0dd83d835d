// Reads compose files with the library that Docker Compose v2 reads them with (compose-go; its version in go.mod is the one that Docker
// Compose v2.40.3 is built with), and prints the whole model as JSON; exit status 1 and its complaint where it is refused.
//
//	compose-check [--profile NAME]... FILE...
//
// It is not `docker compose config`, which takes four minutes to build: what Docker Compose does besides that library, and what a Docker
// engine makes of the model, is not asked.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var profiles []string
	flag.Func("profile", "a profile that is enabled", func(name string) error {
		profiles = append(profiles, name)
		return nil
	})
	flag.Parse()
	options, err := cli.NewProjectOptions(
		flag.Args(), cli.WithOsEnv, cli.WithDotEnv, cli.WithProfiles(profiles), cli.WithInterpolation(true),
		cli.WithResolvedPaths(true), cli.WithNormalization(true), cli.WithConsistency(true),
	)
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	model, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(model, '\n'))
	return err
}
