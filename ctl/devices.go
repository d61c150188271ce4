package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"gpuqd/daemon/control"

	"github.com/spf13/cobra"
)

type devicesCmd struct {
	*app
	host string
	json bool
}

func newDevices(a *app) *cobra.Command {
	c := &devicesCmd{app: a}
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List devices, and what each is doing",
		Long: `Devices lists the GPUs of all hosts, or of one, with their state: free, busy,
draining, cordoned or sick. A simulated device says so beside its model. REASON
says of one that was drained, or whose host was, who did it, when and why, and
what becomes of what runs on it.`,
		Example: `  gpuqctl devices
  gpuqctl devices --host gpu7 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&c.host, "host", "", "only those of this host, by `name`")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one array of objects")
	_ = cmd.RegisterFlagCompletionFunc("host", a.complete(hostNames))
	return cmd
}

func (c *devicesCmd) run(ctx context.Context) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	reply, err := client.Devices(ctx, control.DevicesArgs{Host: c.host})
	if err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	for _, w := range reply.Warnings {
		c.say("%s", w)
	}
	if c.json {
		return c.printJSON(orEmpty(reply.Devices))
	}
	t := newTable("HOST", "INDEX", "UUID", "MODEL", "MEMORY", "STATE", "JOB", "REASON").
		alignRight("INDEX", "MEMORY").mayCut("MODEL", "REASON").mayDrop("MEMORY", "MODEL")
	drains := hostDrains(ctx, client)
	for _, d := range reply.Devices {
		model := d.Model
		if d.Simulated && !strings.Contains(strings.ToLower(model), "simulated") {
			model += " (simulated)"
		}
		index := ""
		if d.Index >= 0 {
			index = strconv.Itoa(d.Index)
		}
		reason := d.Reason
		switch host := drains[d.Host]; {
		case d.Drained != nil:
			reason = c.drainText(d.Drained)
		case reason == "" && host != nil:
			reason = "host drained: " + c.drainText(host)
		}
		t.add(d.Host, index, d.UUID, model, size(d.MemoryBytes), d.State, string(d.JobID), reason)
		t.style("STATE", deviceStyle(d.State))
	}
	return c.printTable(t)
}

// hostDrains returns the drains of whole hosts: a free device of such a host
// waits for no job. They are an extra, so nothing is said where they cannot be had.
func hostDrains(ctx context.Context, client *control.Client) map[string]*control.Drain {
	drains := map[string]*control.Drain{}
	reply, err := client.Hosts(ctx)
	if err != nil {
		return drains
	}
	for _, h := range reply.Hosts {
		drains[h.Name] = h.Drained
	}
	return drains
}
