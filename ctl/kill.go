package main

import (
	"context"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type killCmd struct {
	*app
	reason string
}

func newKill(a *app) *cobra.Command {
	c := &killCmd{app: a}
	cmd := &cobra.Command{
		Use:   "kill ID...",
		Short: "End jobs",
		Long: `Kill asks for the end of jobs, yours or, for operators, anybody's, and prints each
with its state. The request is kept in the ledger: it holds even while the job's
host is out of reach, and no attempt starts after it. A running job gets SIGTERM,
and SIGKILL after its grace; gpuqctl wait tells when it is over.`,
		Example: `  gpuqctl kill 0192f0c1-6d2e-7000-8000-00c0ffee0001 --reason "wrong data set"
  gpuqctl kill $(gpuqctl list --state queued --user ada --json | jq -r '.[].id')`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().StringVar(&c.reason, "reason", "", "why, for whoever looks at the job later")
	cmd.ValidArgsFunction = a.complete(jobIDs(notOver))
	return cmd
}

func (c *killCmd) run(ctx context.Context, args []string) error {
	return c.eachJob(ctx, "kill", "killed", args, func(ctx context.Context, client *control.Client, id job.ID) error {
		reply, err := client.Kill(ctx, control.KillArgs{ID: id, Reason: c.reason})
		if err != nil {
			return err
		}
		return c.report(id, reply)
	})
}

func (c *killCmd) report(id job.ID, r control.KillReply) error {
	switch {
	case r.Flagged && !r.State.Terminal():
		c.say("%s is %s, and its host ends it", id, r.State)
	case r.State != job.Killed:
		c.say("%s had ended before", id)
	}
	return c.printState(id, r.State)
}
