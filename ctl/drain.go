package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type drainCmd struct {
	*app
	reason   string
	mode     string
	deadline spanFlag
	wait     bool
	json     bool
}

// drained is what drain prints with --json.
type drained struct {
	control.DrainReply
	Jobs []control.JobRow `json:"jobs"` // that run there
}

func newDrain(a *app) *cobra.Command {
	c := &drainCmd{app: a}
	cmd := &cobra.Command{
		Use:   "drain HOST[/DEVICE]",
		Short: "Keep new work from a host or a device",
		Long: `Drain keeps new attempts from a host, or from one device of it, until gpuqctl
resume, over restarts and reboots too. Hosts and devices show who drained it, why
and when. A device is named by its UUID, the beginning of that, or its index.

What runs there is printed, and goes on to its end, unless --mode says otherwise:
  finish   it goes on; with --deadline, what is left then is requeued
  requeue  it is ended, at once or at --deadline, and queued again: that costs the
           job no attempt, and it starts elsewhere
  kill     its jobs are killed, at once or at --deadline

--wait returns when nothing runs there any more. Ctrl-C ends only the wait; the
same command with --wait and no --reason waits on. For operators.`,
		Example: `  gpuqctl drain gpu7 --reason "row remap pending"
  gpuqctl drain gpu7 --reason "new kernel" --deadline 2h --wait && ssh gpu7 reboot
  gpuqctl drain gpu7 --wait
  gpuqctl drain gpu7/GPU-5a01 --reason "XID 79" --mode requeue`,
		ValidArgsFunction: a.completeOne(drainTargets(false)),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&c.reason, "reason", "", "why, for whoever finds it drained; needed")
	flags.StringVar(&c.mode, "mode", string(control.DrainFinish), "finish, requeue or kill what runs there")
	flags.Var(&c.deadline, "deadline", "how long what runs there may go on, such as 90m or 1d (default no limit with finish)")
	flags.BoolVar(&c.wait, "wait", false, "return when nothing runs there any more")
	flags.BoolVar(&c.json, "json", false, "print one object: what was drained, and the jobs that run there")
	_ = cmd.RegisterFlagCompletionFunc("mode", fixed(string(control.DrainFinish), string(control.DrainRequeue), string(control.DrainKill)))
	return cmd
}

func (c *drainCmd) run(ctx context.Context, args []string) error {
	where, err := oneTarget(args)
	if err != nil {
		return err
	}
	mode := control.DrainMode(c.mode)
	switch mode {
	case control.DrainFinish, control.DrainRequeue, control.DrainKill:
	default:
		return usagef("--mode: %q is none of finish, requeue and kill", c.mode)
	}
	reason := strings.TrimSpace(c.reason)
	if reason == "" && !c.wait {
		return usagef(`there is no reason: add --reason "...", for whoever finds %s drained`, where)
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	w := &drainWait{app: c.app, client: client, target: where}
	if reason == "" {
		return w.waitOn(ctx)
	}
	if where, err = c.drain(ctx, client, where, mode, reason); err != nil || !c.wait {
		return err
	}
	w.target = where
	return w.wait(ctx)
}

// drain asks for it and prints what it came to; the target it returns has the
// device's UUID.
func (c *drainCmd) drain(ctx context.Context, client *control.Client, where target, mode control.DrainMode, reason string) (target, error) {
	finish, cancel := c.finishing(ctx)
	defer cancel()
	args := control.DrainArgs{Host: where.host, Device: where.device, Reason: reason, Mode: mode, Deadline: job.Duration(c.deadline)}
	reply, err := client.Drain(finish, args)
	if err != nil {
		return where, fmt.Errorf("drain: %w", err)
	}
	where = target{host: reply.Host, device: reply.Device}
	if reply.Warning != "" {
		c.say("%s", reply.Warning)
	}
	rows, err := newOccupants(client, where).rows(ctx)
	if err != nil {
		c.say("what runs there could not be listed: %v", err)
	}
	if c.json {
		return where, c.printJSON(drained{DrainReply: reply, Jobs: orEmpty(rows)})
	}
	if err := c.printf("%s is drained: %s\n", where, fateText(reply.Running, mode, time.Duration(c.deadline))); err != nil {
		return where, err
	}
	if len(rows) > 0 {
		if err := c.printTable(c.occupantTable(rows)); err != nil {
			return where, err
		}
	}
	c.say("gpuqctl resume %s ends the drain", where)
	return where, nil
}

func (a *app) occupantTable(rows []control.JobRow) *table {
	t := newTable("ID", "STATE", "ATTEMPT", "USER", "STARTED", "NAME").alignRight("ATTEMPT").mayCut("USER", "NAME").
		mayDrop("USER", "ATTEMPT")
	for _, j := range rows {
		t.add(string(j.ID), string(j.State), fmt.Sprint(j.Attempt), j.Submitter, age(a.now(), j.StartedAt), j.Name)
		t.style("STATE", stateStyle(j.State))
	}
	return t
}

// fateText says what becomes of the attempts that run on what is drained.
func fateText(n int, mode control.DrainMode, deadline time.Duration) string {
	if n == 0 {
		return "nothing runs there"
	}
	attempts, are := "one attempt", "is"
	if n > 1 {
		attempts, are = fmt.Sprintf("%d attempts", n), "are"
	}
	fate := are + " ended and queued again"
	if mode == control.DrainKill {
		fate = are + " killed"
	}
	switch {
	case deadline > 0 && n == 1:
		return fmt.Sprintf("%s may go on for %s; then it %s", attempts, (*spanFlag)(&deadline), fate)
	case deadline > 0:
		return fmt.Sprintf("%s may go on for %s; then they %s", attempts, (*spanFlag)(&deadline), fate)
	case mode == control.DrainFinish && n == 1:
		return attempts + " goes on to its end"
	case mode == control.DrainFinish:
		return attempts + " go on to their end"
	}
	return attempts + " " + fate
}

// target is a host, or one device of it.
type target struct {
	host   string
	device string // "": the host
}

// String returns it as the argument of drain and resume.
func (t target) String() string {
	if t.device == "" {
		return t.host
	}
	return t.host + "/" + t.device
}

// oneTarget checks the argument of drain and resume.
func oneTarget(args []string) (target, error) {
	if len(args) != 1 {
		return target{}, usagef("want one HOST or HOST/DEVICE, as gpuqctl hosts and devices show them, but %d are given", len(args))
	}
	host, device, found := strings.Cut(args[0], "/")
	if host == "" || found && device == "" {
		return target{}, usagef("%q is neither HOST nor HOST/DEVICE", args[0])
	}
	return target{host: host, device: device}, nil
}
