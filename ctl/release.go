package main

import (
	"context"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type releaseCmd struct{ *app }

func newRelease(a *app) *cobra.Command {
	c := &releaseCmd{app: a}
	return &cobra.Command{
		Use:   "release ID...",
		Short: "Let held jobs go on",
		Long: `Release ends what gpuqctl hold began: the jobs are queued again, and each is printed
with its state. A job that nobody holds is left as it is.`,
		Example: `  gpuqctl release 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl release $(gpuqctl list --state waiting --json | jq -r '.[] | select(.held).id')`,
		ValidArgsFunction: a.complete(jobIDs(func(s job.State) bool { return s == job.Waiting })),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
}

func (c *releaseCmd) run(ctx context.Context, args []string) error {
	return c.eachJob(ctx, "release", "released", args, func(ctx context.Context, client *control.Client, id job.ID) error {
		reply, err := client.Release(ctx, id)
		if err != nil {
			return err
		}
		if !reply.Changed {
			c.say("%s was not held: gpuqctl why %s says what it waits for", id, id)
		}
		return c.reportHold(id, reply)
	})
}
