package main

import (
	"context"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type holdCmd struct {
	*app
	reason string
}

func newHold(a *app) *cobra.Command {
	c := &holdCmd{app: a}
	cmd := &cobra.Command{
		Use:   "hold ID...",
		Short: "Keep jobs from starting until they are released",
		Long: `Hold keeps jobs, yours or, for operators, anybody's, from starting until gpuqctl
release, and prints each with its state. It is kept in the ledger with who asked,
why and when; show and list tell. A job that has started cannot be held: kill
ends it.`,
		Example: `  gpuqctl hold 0192f0c1-6d2e-7000-8000-00c0ffee0001 --reason "the data is being mended"
  gpuqctl hold $(gpuqctl list --state queued --user ada --json | jq -r '.[].id')`,
		ValidArgsFunction: a.complete(jobIDs(holdable)),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().StringVar(&c.reason, "reason", "", "why, for whoever wonders why it waits")
	return cmd
}

func (c *holdCmd) run(ctx context.Context, args []string) error {
	return c.eachJob(ctx, "hold", "held", args, func(ctx context.Context, client *control.Client, id job.ID) error {
		reply, err := client.Hold(ctx, control.HoldArgs{ID: id, Reason: c.reason})
		if err != nil {
			return err
		}
		if !reply.Changed {
			c.say("%s was held before", id)
		}
		return c.reportHold(id, reply)
	})
}

// reportHold prints what hold or release came to.
func (a *app) reportHold(id job.ID, r control.HoldReply) error {
	if r.Warning != "" {
		a.say("%s: %s", id, r.Warning)
	}
	return a.printState(id, r.State)
}
