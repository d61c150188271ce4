package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

type logsCmd struct {
	*app
	follow  bool
	attempt int
}

func newLogs(a *app) *cobra.Command {
	c := &logsCmd{app: a}
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print what a job has written, and follow it",
		Long: `Logs prints the output, both stdout and stderr, of a job's last attempt on stdout.
With -f it goes on until the job has ended: it waits for a job that has not started
yet, goes on with the next attempt on whichever host that is, and through restarts
of gpuqd; stderr says so. Where the host that has the output is gone, what the
ledger has of its end is printed, and stderr says that too.`,
		Example: `  gpuqctl logs 0192f0c1-6d2e-7000-8000-00c0ffee0001
  gpuqctl logs -f $(gpuqctl submit -- python train.py)
  gpuqctl logs --attempt 1 0192f0c1-6d2e-7000-8000-00c0ffee0001`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&c.follow, "follow", "f", false, "go on until the job has ended")
	flags.IntVar(&c.attempt, "attempt", 0, "print that of attempt `N`, from 1; 0 is the last")
	cmd.ValidArgsFunction = a.completeOne(jobIDs(nil))
	return cmd
}

func (c *logsCmd) run(ctx context.Context, args []string) error {
	id, err := oneID(args)
	if err != nil {
		return err
	}
	if c.attempt < 0 {
		return usagef("--attempt %d: attempts count from 1", c.attempt)
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	f := &follower{logsCmd: c, client: client, id: id, attempt: c.attempt}
	for {
		over, err := f.step(ctx)
		switch {
		case ctx.Err() != nil && c.follow:
			return &exitError{code: exitInterrupted, err: fmt.Errorf("%w: job %s goes on: gpuqctl logs -f shows the rest, gpuqctl kill ends it", context.Cause(ctx), id)}
		case err != nil:
			return fmt.Errorf("logs: %w", err)
		case over:
			f.sayEnd(ctx)
			return nil
		}
		if !c.follow {
			continue
		}
		sleep(ctx, f.pause)
	}
}
