package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type listCmd struct {
	*app
	states []string
	user   string
	since  spanFlag
	limit  int
	json   bool
}

func newList(a *app) *cobra.Command {
	c := &listCmd{app: a}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List jobs, those submitted last first",
		Long: `List shows jobs, those submitted last first. The states are waiting, queued,
claimed, running and retrying for jobs that are not over; succeeded, failed,
killed and dead for those that are. A job that a person holds is "waiting (held)".`,
		Example: `  gpuqctl list --state queued,running
  gpuqctl list --user ada --since 24h --limit 1000
  gpuqctl list --state failed --json | jq -r '.[].id'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVar(&c.states, "state", nil, "only jobs in these `states`, with commas between")
	flags.StringVar(&c.user, "user", "", "only jobs of this `submitter`")
	flags.Var(&c.since, "since", "only jobs submitted so long ago or later, such as 90m, 24h or 7d; 0 is all")
	flags.IntVar(&c.limit, "limit", control.RowsDefault, fmt.Sprintf("at most so many, up to %d", control.RowsMax))
	flags.BoolVar(&c.json, "json", false, "print one array of objects")
	_ = cmd.RegisterFlagCompletionFunc("state", listOf(stateNames()...))
	_ = cmd.RegisterFlagCompletionFunc("user", a.complete(submitters))
	return cmd
}

func (c *listCmd) run(ctx context.Context) error {
	args, err := c.args()
	if err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	reply, err := client.List(ctx, args)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if reply.More {
		c.say("there are more than %d: raise --limit, or narrow with --state, --user or --since", len(reply.Jobs))
	}
	if c.json {
		return c.printJSON(orEmpty(reply.Jobs))
	}
	if len(reply.Jobs) == 0 {
		c.say("no jobs")
		return nil
	}
	return c.printTable(c.table(reply.Jobs))
}

func (c *listCmd) args() (control.ListArgs, error) {
	args := control.ListArgs{User: c.user, Limit: c.limit}
	if err := checkLimit(c.limit); err != nil {
		return args, err
	}
	if c.since > 0 {
		args.Since = job.At(c.now().Add(-time.Duration(c.since)))
	}
	for _, name := range c.states {
		state := job.State(strings.TrimSpace(name))
		if !state.Valid() {
			return args, usagef("--state: %q is no state: want any of %s", name, joinStates())
		}
		args.States = append(args.States, state)
	}
	return args, nil
}

// checkLimit checks the --limit of a list.
func checkLimit(limit int) error {
	if limit < 1 || limit > control.RowsMax {
		return usagef("--limit %d: want 1 to %d", limit, control.RowsMax)
	}
	return nil
}

func joinStates() string { return strings.Join(stateNames(), ", ") }

func stateNames() []string {
	names := make([]string, 0, len(job.States))
	for _, s := range job.States {
		names = append(names, string(s))
	}
	return names
}

func (c *listCmd) table(jobs []control.JobRow) *table {
	t := newTable("ID", "STATE", "ATTEMPT", "GPUS", "PRIORITY", "USER", "HOST", "SUBMITTED", "NAME", "REASON").
		alignRight("ATTEMPT", "GPUS").mayCut("USER", "NAME", "REASON").
		mayDrop("PRIORITY", "GPUS", "ATTEMPT", "SUBMITTED", "USER", "HOST")
	for _, j := range jobs {
		t.add(string(j.ID), stateText(j), strconv.Itoa(j.Attempt), gpusText(j), string(j.Priority),
			j.Submitter, j.Host, age(c.now(), j.SubmittedAt), j.Name, rowReason(j))
		t.style("STATE", stateStyle(j.State))
	}
	return t
}

// gpusText is the number of GPUs, or how much of one.
func gpusText(j control.JobRow) string {
	if j.GPUMemory > 0 {
		return size(uint64(j.GPUMemory))
	}
	return strconv.Itoa(j.GPUs)
}

// stateText tells a job that a person holds from one that waits for another reason.
func stateText(j control.JobRow) string {
	if j.Held {
		return string(j.State) + " (held)"
	}
	return string(j.State)
}

// rowReason is the last column: why it is where it is, or how it ended.
func rowReason(j control.JobRow) string {
	if j.State == job.Failed {
		return strings.TrimPrefix(describe(j), string(j.State)+" ")
	}
	return j.Reason
}
