package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type waitCmd struct {
	*app
	json bool
}

func newWait(a *app) *cobra.Command {
	c := &waitCmd{app: a}
	cmd := &cobra.Command{
		Use:   "wait ID...",
		Short: "Wait until jobs have ended, and exit as they did",
		Long: `Wait returns when every job has ended, and prints each with its state as it ends.
It goes on through restarts of gpuqd. Ctrl-C ends the wait, not the jobs.

` + waitCodesHelp(),
		Example: `  gpuqctl wait $(gpuqctl submit -f sweep.toml) && ./compare.sh
  gpuqctl wait --json 0192f0c1-6d2e-7000-8000-00c0ffee0001 | jq '.[].gpus'`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print one array of objects, in the order given, when all have ended")
	cmd.ValidArgsFunction = a.complete(jobIDs(notOver))
	return cmd
}

func (c *waitCmd) run(ctx context.Context, args []string) error {
	ids, err := parseIDs(args)
	if err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return ownFailure(ctx, err)
	}
	rows := map[job.ID]control.JobRow{}
	err = c.await(ctx, client, ids, func(row control.JobRow) error {
		rows[row.ID] = row
		if c.json {
			return nil
		}
		return c.printf("%s %s\n", row.ID, c.paint(stateStyle(row.State), string(row.State)))
	})
	if c.json && len(rows) > 0 {
		list := make([]control.JobRow, 0, len(ids))
		for _, id := range ids {
			if row, ok := rows[id]; ok {
				list = append(list, row)
			}
		}
		err = errors.Join(err, c.printJSON(list))
	}
	return ownFailure(ctx, err)
}

// parseIDs checks the arguments of a verb that takes jobs, and drops repeats.
func parseIDs(args []string) ([]job.ID, error) {
	if len(args) == 0 {
		return nil, usagef("there is no job ID: give one or more, as gpuqctl submit prints them")
	}
	var ids []job.ID
	for _, arg := range args {
		id, err := job.ParseID(arg)
		if err != nil {
			return nil, usagef("%w", err)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// ownFailure gives an error that is not the outcome of a job the code that wait
// and submit --wait keep for it; a wrong request and an interrupt keep theirs.
func ownFailure(ctx context.Context, err error) error {
	var exit *exitError
	switch {
	case err == nil || errors.As(err, &exit):
		return err
	case errors.Is(err, control.ErrBadRequest):
		return &exitError{code: exitUsage, err: err}
	case ctx.Err() != nil:
		return &exitError{code: exitInterrupted, err: err}
	}
	return &exitError{code: exitNoOutcome, err: err}
}

const (
	// awaitBatchMax is how many jobs one request is about.
	awaitBatchMax = 1000
	// awaitEvery is the least time between two questions of which the first
	// brought nothing.
	awaitEvery = time.Second
)

// The pause between two questions when no daemon answers.
const (
	awaitPauseMin = 200 * time.Millisecond
	awaitPauseMax = 5 * time.Second
)

// await calls ended for each job as it ends, and returns when all have. The
// error is the outcome of the first, in the order of ids, that did not succeed.
func (a *app) await(ctx context.Context, client *control.Client, ids []job.ID, ended func(control.JobRow) error) error {
	rows := make(map[job.ID]control.JobRow, len(ids))
	open := slices.Clone(ids)
	pause := awaitPauseMin
	for len(open) > 0 {
		// A daemon holds the answer until one of them ends, so one request for
		// all of them costs nobody a poll.
		batch := open[:min(len(open), awaitBatchMax)]
		asked := time.Now()
		reply, err := client.States(ctx, batch, control.StatesWaitMax)
		switch {
		case ctx.Err() != nil:
			return a.interrupted(ctx, open)
		case errors.Is(err, control.ErrUnavailable):
			if pause == awaitPauseMin {
				a.say("%v; the jobs go on, and so does the wait", err)
			}
			sleep(ctx, pause)
			pause = min(2*pause, awaitPauseMax)
			continue
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case len(reply.Missing) > 0:
			return fmt.Errorf("wait: there is no job %s", reply.Missing[0])
		}
		pause = awaitPauseMin
		for _, row := range reply.Jobs {
			if !row.State.Terminal() {
				continue
			}
			rows[row.ID] = row
			if err := ended(row); err != nil {
				return err
			}
		}
		before := len(open)
		open = slices.DeleteFunc(open, func(id job.ID) bool { _, over := rows[id]; return over })
		if len(open) == before {
			sleep(ctx, awaitEvery-time.Since(asked)) // a busy daemon answers without holding
		}
	}
	return a.firstFailure(ids, rows)
}

func (a *app) interrupted(ctx context.Context, open []job.ID) error {
	return &exitError{code: exitInterrupted, err: fmt.Errorf(
		"%w: not ended, and going on: %s: gpuqctl wait goes on waiting, gpuqctl kill ends them", context.Cause(ctx), shortIDs(open))}
}

// firstFailure says how each job that did not succeed ended, and returns the
// code of the first.
func (a *app) firstFailure(ids []job.ID, rows map[job.ID]control.JobRow) error {
	code := exitOK
	for _, id := range slices.Backward(ids) {
		if c := outcome(rows[id]); c != exitOK {
			code = c
		}
	}
	for _, id := range ids {
		if outcome(rows[id]) != exitOK {
			a.say("%s %s", id, describe(rows[id]))
		}
	}
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}

// sleep pauses until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
