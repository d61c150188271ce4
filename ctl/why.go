package main

import (
	"context"
	"fmt"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type whyCmd struct {
	*app
	hosts bool
	json  bool
}

func newWhy(a *app) *cobra.Command {
	c := &whyCmd{app: a}
	cmd := &cobra.Command{
		Use:   "why ID...",
		Short: "Say in one sentence what a job waits for",
		Long: `Why says in one sentence what a job waits for, or what became of it; of several
jobs, one line each with its ID. With --hosts it adds how many jobs are looked at
before it, and why each host of its pool does not start it now.`,
		Example: `  gpuqctl why 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl why --hosts 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl why $(gpuqctl list --state waiting,queued --json | jq -r '.[].id')`,
		ValidArgsFunction: a.complete(jobIDs(notOver)),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVarP(&c.hosts, "hosts", "v", false, "say it of each host too")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one array of objects, in the order given")
	return cmd
}

func (c *whyCmd) run(ctx context.Context, args []string) error {
	ids, err := parseIDs(args)
	if err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	replies := make([]control.WhyReply, 0, len(ids))
	err = each(ctx, c.app, "why", "asked about", ids, func(ctx context.Context, id job.ID) error {
		reply, err := client.Why(ctx, id)
		if err != nil {
			return err
		}
		if c.json {
			replies = append(replies, reply)
			return nil
		}
		return c.print(reply, len(ids) > 1)
	})
	if c.json {
		if err := c.printJSON(replies); err != nil {
			return err
		}
	}
	return err
}

func (c *whyCmd) print(r control.WhyReply, named bool) error {
	line := clean(r.Sentence)
	if named {
		line = string(r.ID) + "  " + line
	}
	if err := c.printf("%s\n", line); err != nil || !c.hosts {
		return err
	}
	if r.State == job.Queued {
		if err := c.printf("%s\n", ahead(r)); err != nil {
			return err
		}
	}
	if len(r.Hosts) == 0 {
		return nil
	}
	t := newTable("HOST", "REASON").mayCut("REASON")
	for _, h := range r.Hosts {
		t.add(h.Host, h.Reason)
	}
	return c.printTable(t)
}

func ahead(r control.WhyReply) string {
	switch {
	case r.AheadMore:
		return fmt.Sprintf("More than %d jobs are looked at before it.", r.Ahead)
	case r.Ahead == 0:
		return "No job is looked at before it."
	case r.Ahead == 1:
		return "One job is looked at before it."
	}
	return fmt.Sprintf("%d jobs are looked at before it.", r.Ahead)
}
