package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"gpuqd/daemon/control"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"

	"github.com/spf13/cobra"
)

type simulateDeviceCmd struct {
	*app
	fault  fault.Fault
	memory string
	length spanFlag
}

func newSimulateDevice(a *app) *cobra.Command {
	c := &simulateDeviceCmd{app: a}
	cmd := &cobra.Command{
		Use:   "device HOST DEVICE FAULT",
		Short: "Let a fault strike a simulated device, and see what becomes of its jobs",
		Long: `Device lets a fault strike a simulated device of a host, at once. The daemon treats
it as a real one: jobs on it are ended or go on, it takes work or does not, and
gpuqctl devices and events say why. DEVICE is an index, a UUID or the beginning of
one, or all; of faults of the driver it is all.

` + faultHelp() + `
A fault lasts until --for is over, until what ends it, or until clear; an XID and
memory errors have no end: what they did to the device is ended by gpuqctl resume.
With --quiet memory errors are not told of as they happen: the next look at the
device, as that after a job, finds them counted. The event is recorded with your
name. Hosts with real devices refuse. For operators.`,
		Example: `  gpuqctl simulate device worker_2 0 xid --xid 79
  gpuqctl simulate device worker_2 0 process --pid 4711 --memory 3GiB
  gpuqctl simulate device worker_2 1 memory --memory 500MiB --for 1m
  gpuqctl simulate device worker_2 all silent --for 2m
  gpuqctl simulate device worker_2 all clear`,
		ValidArgsFunction: c.complete,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&c.fault.XID, fault.ParamXID, 0, "code of the XID error, such as 79")
	flags.IntVar(&c.fault.Count, fault.ParamCount, 0, "how many errors (default 1)")
	flags.BoolVar(&c.fault.Quiet, fault.ParamQuiet, false, "count the errors and report none: the next look at the device finds them")
	flags.IntVar(&c.fault.PID, fault.ParamPID, 0, "process of that host that shows on the device")
	flags.StringVar(&c.memory, "memory", "", "how much is in use, as a `size` such as 3GiB")
	flags.StringVar(&c.fault.Action, fault.ParamAction, "", strings.Join(fault.Recoveries, ", "))
	flags.IntVar(&c.fault.Celsius, fault.ParamDegree, 0, "degrees that the sensor reads")
	flags.StringVar(&c.fault.Reason, fault.ParamReason, "", "why the device is sick or its clocks are held down")
	flags.Var(&c.length, fault.ParamFor, "end it by itself after so long, such as 90s or 10m")
	_ = cmd.RegisterFlagCompletionFunc(fault.ParamAction, fixed(fault.Recoveries...))
	return cmd
}

// faultHelp lists the faults, a line each, with the flags that each needs.
func faultHelp() string {
	var b strings.Builder
	for _, k := range fault.Kinds {
		var needs []string
		for _, param := range k.Needs() {
			needs = append(needs, "--"+flagOf(param))
		}
		fmt.Fprintf(&b, "  %-15s %-14s %s\n", k, strings.Join(needs, " "), k.Does())
	}
	return b.String()
}

// flagOf is the flag that sets a parameter.
func flagOf(param string) string {
	if param == fault.ParamMemory {
		return "memory"
	}
	return param
}

func (c *simulateDeviceCmd) run(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return usagef("want HOST, DEVICE and FAULT, such as worker_2 0 lost, but %d are given: gpuqctl simulate device --help lists the faults", len(args))
	}
	host := args[0]
	if err := c.settle(args); err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	finish, cancel := c.finishing(ctx)
	defer cancel()
	reply, err := client.SimulateDevice(finish, control.SimulateDeviceArgs{Host: host, Fault: c.fault})
	if err != nil {
		return fmt.Errorf("simulate device: %w", err)
	}
	if c.fault.Kind.Lasts() && c.fault.For == 0 {
		c.say("gpuqctl simulate device %s %s %s ends it", host, c.fault.Device, endOf(c.fault.Kind))
	}
	if c.fault.Kind.Whole() {
		return c.printf("%s: %s\n", host, c.fault)
	}
	for _, uuid := range reply.Devices {
		if err := c.printf("%s/%s: %s\n", host, uuid, c.fault); err != nil {
			return err
		}
	}
	return nil
}

// settle makes a fault of the command line, or says which word of it is wrong.
func (c *simulateDeviceCmd) settle(args []string) error {
	c.fault.Device, c.fault.Kind, c.fault.For = args[1], fault.Kind(args[2]), job.Duration(c.length)
	memory, err := parseSize("--memory", c.memory)
	if err != nil {
		return usagef("%w", err)
	}
	c.fault.MemoryBytes = uint64(memory)
	var problem *fault.Problem
	if !errors.As(c.fault.Check(), &problem) {
		return nil
	}
	switch problem.Param {
	case fault.ParamKind:
		return usagef("%s: gpuqctl simulate device --help says what each does", problem.Text)
	case fault.ParamDevice:
		return usagef("device %q: %s", args[1], problem.Text)
	}
	return usagef("--%s: %s", flagOf(problem.Param), problem.Text)
}

// endOf returns the fault that ends one, and nothing else where there is such.
func endOf(kind fault.Kind) fault.Kind {
	for _, k := range fault.Kinds {
		if k.Ends() == kind {
			return k
		}
	}
	return fault.Clear
}

// complete offers hosts with simulated devices, their devices, and the faults.
func (c *simulateDeviceCmd) complete(cmd *cobra.Command, args []string, sofar string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch len(args) {
	case 0, 1:
		return c.app.complete(func(ctx context.Context, client *control.Client, _ string) []cobra.Completion {
			return simulatedTargets(ctx, client, args)
		})(cmd, nil, sofar)
	case 2:
		var list []cobra.Completion
		for _, k := range fault.Kinds {
			if k.Whole() && args[1] != fault.AllDevices || !strings.HasPrefix(string(k), sofar) {
				continue
			}
			list = append(list, described(string(k), "%s", k.Does()))
		}
		return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// simulatedTargets offers the hosts that have simulated devices, or those of the
// host that is there already.
func simulatedTargets(ctx context.Context, client *control.Client, args []string) []cobra.Completion {
	var of control.DevicesArgs
	if len(args) > 0 {
		of.Host = args[0]
	}
	reply, err := client.Devices(ctx, of)
	if err != nil {
		return nil
	}
	var list []cobra.Completion
	if of.Host != "" {
		list = append(list, described(fault.AllDevices, "all devices of %s", of.Host))
	}
	seen := map[string]bool{}
	for _, d := range reply.Devices {
		switch {
		case !d.Simulated:
		case of.Host != "":
			list = append(list, described(indexCell(d.Index), "%s %s", modelText(d), d.State))
		case !seen[d.Host]:
			seen[d.Host] = true
			list = append(list, d.Host)
		}
	}
	return list
}
