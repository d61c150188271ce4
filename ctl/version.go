package main

import (
	"context"
	"fmt"

	"gpuqd/daemon/control"
	"gpuqd/daemon/version"

	"github.com/spf13/cobra"
)

type versionCmd struct {
	*app
	only bool
	json bool
}

// versions is what the verb prints with --json.
type versions struct {
	Client version.Info          `json:"client"`
	Daemon *control.VersionReply `json:"daemon"` // null with --client, or when none answers
}

func newVersion(a *app) *cobra.Command {
	c := &versionCmd{app: a}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of gpuqctl and of the daemon that answers",
		Long: `Version shows what this gpuqctl is, and which gpuqd answers: its host, its
version, its ledger and whether it reaches the broker. Where none answers the
first is still printed, and the exit code is 3.`,
		Example: `  gpuqctl version
  gpuqctl version --client`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&c.only, "client", false, "show only this program's own, and ask nobody")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one object")
	return cmd
}

func (c *versionCmd) run(ctx context.Context) error {
	v := versions{Client: version.Get()}
	var failure error
	if !c.only {
		v.Daemon, failure = c.daemon(ctx)
	}
	if c.json {
		if err := c.printJSON(v); err != nil {
			return err
		}
		return failure
	}
	var s sheet
	s.line("gpuqctl", "%s", v.Client)
	if d := v.Daemon; d != nil {
		s.line("gpuqd", "%s", version.Info{Version: d.Version, Commit: d.Commit})
		s.line("Host", "%s", d.Host)
		s.line("Ledger", "%s, %s", d.Ledger, d.LedgerID)
		s.line("Broker", "%s", d.Broker)
	}
	if err := c.printf("%s", s.String()); err != nil {
		return err
	}
	return failure
}

func (c *versionCmd) daemon(ctx context.Context) (*control.VersionReply, error) {
	client, err := c.connect()
	if err != nil {
		return nil, err
	}
	reply, err := client.Version(ctx)
	if err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	return &reply, nil
}
