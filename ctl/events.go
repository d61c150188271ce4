package main

import (
	"context"
	"fmt"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type eventsCmd struct {
	*app
	since  spanFlag
	target string
	limit  int
	json   bool
}

func newEvents(a *app) *cobra.Command {
	c := &eventsCmd{app: a}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what operators have done, and daemons on their own",
		Long: `Events shows who has done what to which job, host or device, when and why, the
newest first: kills, holds, drains, takeovers and the like. What a job itself went
through is in gpuqctl show.`,
		Example: `  gpuqctl events --since 24h
  gpuqctl events --target gpu7
  gpuqctl events --target 0192f0c1-6d2e-7000-8000-00c0ffee0001 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&c.since, "since", "only what was done so long ago or later, such as 1h or 7d; 0 is all")
	flags.StringVar(&c.target, "target", "", "only what was done to this `ID, HOST or HOST/DEVICE`")
	flags.IntVar(&c.limit, "limit", control.RowsDefault, fmt.Sprintf("at most so many, up to %d", control.RowsMax))
	flags.BoolVar(&c.json, "json", false, "print one array of objects")
	_ = cmd.RegisterFlagCompletionFunc("target", a.complete(eventTargets))
	return cmd
}

func (c *eventsCmd) run(ctx context.Context) error {
	if err := checkLimit(c.limit); err != nil {
		return err
	}
	args := control.EventsArgs{Target: c.target, Limit: c.limit}
	if c.since > 0 {
		args.Since = job.At(c.now().Add(-time.Duration(c.since)))
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	reply, err := client.Events(ctx, args)
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	if reply.More {
		c.say("there are more than %d: raise --limit, or narrow with --since or --target", len(reply.Events))
	}
	if c.json {
		return c.printJSON(orEmpty(reply.Events))
	}
	if len(reply.Events) == 0 {
		c.say("no events")
		return nil
	}
	t := newTable("TIME", "WHO", "WHAT", "TARGET", "HOST", "WHY").mayCut("WHO", "WHY").mayDrop("HOST")
	for _, e := range reply.Events {
		t.add(clock(e.At), e.Who, e.What, e.Target, e.Host, e.Why)
	}
	return c.printTable(t)
}
