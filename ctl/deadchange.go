package main

import (
	"context"
	"fmt"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type deadRequeueCmd struct{ *app }

func newDeadRequeue(a *app) *cobra.Command {
	c := &deadRequeueCmd{app: a}
	return &cobra.Command{
		Use:   "requeue ID...",
		Short: "Give what was set aside another chance",
		Long: `Requeue begins a dead job anew, under a UUID of its own, or takes a message in as if
it had just come. It prints the UUID of the job that goes on from there, with its
state. A second requeue of the same finds the same job.`,
		Example: `  gpuqctl dead requeue 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl dead requeue $(gpuqctl dead list --json | jq -r '.[].id')`,
		ValidArgsFunction: a.complete(deadIDs("")),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
}

func (c *deadRequeueCmd) run(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return usagef("there is no ID: give one or more, as gpuqctl dead list shows them")
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	return each(ctx, c.app, "dead requeue", "requeued", ids, func(ctx context.Context, id string) error {
		reply, err := client.DeadRequeue(ctx, id)
		if err != nil {
			return err
		}
		if reply.Warning != "" {
			c.say("%s: %s", reply.ID, reply.Warning)
		}
		if !reply.Created {
			c.say("%s had been requeued before, as %s", id, reply.ID)
		}
		return c.printState(reply.ID, reply.State)
	})
}

type deadPurgeCmd struct {
	*app
	olderThan spanFlag
	yes       bool
}

func newDeadPurge(a *app) *cobra.Command {
	c := &deadPurgeCmd{app: a}
	cmd := &cobra.Command{
		Use:   "purge ID...\n  gpuqctl dead purge --older-than DURATION",
		Short: "Forget messages that were set aside",
		Long: `Purge forgets messages for good: those named, or all that were set aside longer ago
than --older-than. On a terminal it asks first; elsewhere it needs --yes. Jobs are
never forgotten, and are left as they are. It prints how many messages it was.`,
		Example: `  gpuqctl dead purge 5f2a9c01b3d4e6f7
  gpuqctl dead purge --older-than 30d --yes`,
		ValidArgsFunction: a.complete(deadIDs(control.DeadMessage)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args, cmd.Flags().Changed("older-than"))
		},
	}
	cmd.Flags().Var(&c.olderThan, "older-than", "all that were set aside longer ago, such as 12h or 30d")
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *deadPurgeCmd) run(ctx context.Context, ids []string, byAge bool) error {
	switch {
	case byAge && len(ids) > 0:
		return usagef("IDs and --older-than do not go together: purge the ones, then the others")
	case !byAge && len(ids) == 0:
		return usagef("want IDs, as gpuqctl dead list shows them, or --older-than 30d")
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	args := control.DeadPurgeArgs{IDs: ids}
	question := fmt.Sprintf("forget %s for good", messages(len(ids)))
	if byAge {
		args.Before = job.At(c.now().Add(-time.Duration(c.olderThan)))
		if question, err = c.ageQuestion(ctx, client, args.Before); err != nil || question == "" {
			return err
		}
	}
	if !c.yes {
		if err := c.confirm(ctx, "%s", question); err != nil {
			return err
		}
	}
	finish, cancel := c.finishing(ctx)
	defer cancel()
	reply, err := client.DeadPurge(finish, args)
	if err != nil {
		return fmt.Errorf("dead purge: %w", err)
	}
	return c.printf("%s forgotten\n", messages(reply.Purged))
}

// ageQuestion counts what is older; "" says that nothing is.
func (c *deadPurgeCmd) ageQuestion(ctx context.Context, client *control.Client, before job.Time) (string, error) {
	reply, err := client.DeadList(ctx, control.DeadArgs{Limit: control.RowsMax})
	if err != nil {
		return "", fmt.Errorf("dead purge: %w", err)
	}
	n := 0
	for _, d := range reply.Dead {
		if d.Kind == control.DeadMessage && d.At.Before(before.Time) {
			n++
		}
	}
	count := messages(n)
	switch {
	case reply.More:
		count = fmt.Sprintf("%d messages or more", n)
	case n == 0:
		c.say("no message was set aside before %s", clock(before))
		return "", c.printf("%s forgotten\n", messages(0))
	}
	return fmt.Sprintf("forget %s, set aside before %s, for good", count, clock(before)), nil
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}
