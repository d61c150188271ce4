package main

import (
	"context"
	"fmt"

	"gpuqd/daemon/control"

	"github.com/spf13/cobra"
)

type resumeCmd struct{ *app }

func newResume(a *app) *cobra.Command {
	c := &resumeCmd{app: a}
	return &cobra.Command{
		Use:   "resume HOST[/DEVICE]",
		Short: "Let a drained or quarantined host or device take work again",
		Long: `Resume ends what gpuqctl drain began. A device that was drained by itself stays so
when its host is resumed: name it too.

It also ends the quarantine of a device that is named, over an XID or memory errors:
see to what gpuqctl devices says of it first. The device is looked at before it gets
work. Of a host that is named it ends the breakers, and the quarantines that concern
the whole host. For operators.`,
		Example: `  gpuqctl resume gpu7
  gpuqctl resume gpu7/GPU-5a01`,
		ValidArgsFunction: a.completeOne(drainTargets(true)),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
}

func (c *resumeCmd) run(ctx context.Context, args []string) error {
	where, err := oneTarget(args)
	if err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	finish, cancel := c.finishing(ctx)
	defer cancel()
	reply, err := client.Resume(finish, control.ResumeArgs{Host: where.host, Device: where.device})
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	where = target{host: reply.Host, device: reply.Device}
	if reply.Warning != "" {
		c.say("%s", reply.Warning)
	}
	text := "takes work again"
	if !reply.Changed {
		text = "was not drained, and nothing else that a resume ends kept it from work"
	}
	return c.printf("%s %s\n", where, text)
}
