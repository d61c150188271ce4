package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/control"

	"github.com/spf13/cobra"
)

type devicesCmd struct {
	*app
	host   string
	device string
	json   bool
}

func newDevices(a *app) *cobra.Command {
	c := &devicesCmd{app: a}
	cmd := &cobra.Command{
		Use:   "devices [HOST[/DEVICE]]",
		Short: "List devices, what each is doing, and why one takes no work",
		Long: `Devices lists the GPUs and MIG instances of all hosts, or of one, with their
state: free, busy, checking, draining, cordoned or sick. One that is being checked
has just been left by a job and must be clean before the next. SINCE says for how
long it has been in that state, ECC counts uncorrected memory errors, JOB has a
line for each job of a device that is shared, with its share. A simulated device
says so beside its model.

REASON says why a device takes no work: what is wrong with it and what to do, or
who drained it or its host, when and why, and what becomes of what runs on it.

One device alone, by its index, its UUID or the beginning of that, is shown with
all that is known of it: its clocks, recovery action and the processes on it, too.
Hosts that are not named show what they wrote at their last renewal.`,
		Example: `  gpuqctl devices
  gpuqctl devices gpu7/3
  gpuqctl devices --host gpu7 --device GPU-5a01
  gpuqctl devices --json | jq -r '.[] | select(.state == "sick") | .host + " " + .reason'`,
		ValidArgsFunction: a.completeOne(drainTargets(false)),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&c.host, "host", "", "only those of this host, by `name`")
	cmd.Flags().StringVar(&c.device, "device", "", "of that host only this one, by `index` or UUID")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one array of objects")
	_ = cmd.RegisterFlagCompletionFunc("host", a.complete(hostNames))
	return cmd
}

// where settles the argument and the flags.
func (c *devicesCmd) where(args []string) (target, error) {
	if len(args) == 0 {
		if c.device != "" && c.host == "" {
			return target{}, usagef("--device: name its host, too: --host HOST --device %s", c.device)
		}
		return target{host: c.host, device: c.device}, nil
	}
	if c.host != "" || c.device != "" {
		return target{}, usagef("give HOST/DEVICE or the flags --host and --device, not both")
	}
	return oneTarget(args)
}

func (c *devicesCmd) run(ctx context.Context, args []string) error {
	where, err := c.where(args)
	if err != nil {
		return err
	}
	client, err := c.connect()
	if err != nil {
		return err
	}
	reply, err := client.Devices(ctx, control.DevicesArgs{Host: where.host})
	if err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	for _, w := range reply.Warnings {
		c.say("%s", w)
	}
	rows := reply.Devices
	if where.device != "" {
		if rows, err = oneDevice(rows, where); err != nil {
			return err
		}
	}
	if c.json {
		return c.printJSON(orEmpty(rows))
	}
	drains := hostDrains(ctx, client)
	if where.device != "" {
		return c.printf("%s", c.deviceText(rows[0], drains))
	}
	return c.printTable(c.deviceTable(rows, drains))
}

// oneDevice returns the row of the device that a person has named.
func oneDevice(rows []control.DeviceRow, where target) ([]control.DeviceRow, error) {
	index, err := strconv.Atoi(where.device)
	isIndex := err == nil && index >= 0
	found := slices.DeleteFunc(slices.Clone(rows), func(d control.DeviceRow) bool {
		return d.UUID != where.device && !(isIndex && d.Index == index) && (isIndex || !strings.HasPrefix(d.UUID, where.device))
	})
	switch {
	case len(found) == 0:
		return nil, &exitError{code: exitNotFound, err: fmt.Errorf("devices: host %s has no device %s: gpuqctl devices %s lists them", where.host, where.device, where.host)}
	case len(found) > 1:
		return nil, &exitError{code: exitUsage, err: errors.New("devices: " + where.device + " begins several UUIDs: give more of it")}
	}
	return found, nil
}

func (a *app) deviceTable(rows []control.DeviceRow, drains map[string]*control.Drain) *table {
	t := newTable("HOST", "INDEX", "UUID", "MODEL", "USED", "MEMORY", "UTIL", "TEMP", "POWER", "ECC", "STATE", "SINCE", "JOB", "REASON").
		alignRight("INDEX", "USED", "MEMORY", "UTIL", "TEMP", "POWER", "ECC").mayCut("MODEL", "REASON").
		mayDrop("UUID", "POWER", "TEMP", "ECC", "UTIL", "SINCE", "USED", "MEMORY", "MODEL")
	for _, d := range rows {
		jobs := jobCells(d)
		t.add(d.Host, indexCell(d.Index), d.UUID, modelText(d), size(d.MemoryUsedBytes), size(d.MemoryBytes),
			cellOf("%d%%", d.UtilisationPercent), cellOf("%d C", d.TemperatureCelsius), cellOf("%.0f W", d.PowerWatts), eccCell(d.ECC),
			d.State, age(a.now(), d.Since), jobs[0], a.whyIdle(d, drains))
		t.style("STATE", deviceStyle(d.State))
		if d.ECC != nil && d.ECC.Uncorrected > 0 {
			t.style("ECC", bad)
		}
		for _, more := range jobs[1:] {
			t.more("JOB", more)
		}
	}
	return t
}

// whyIdle says why a device takes no work, as far as anybody knows.
func (a *app) whyIdle(d control.DeviceRow, drains map[string]*control.Drain) string {
	switch host := drains[d.Host]; {
	case d.Drained != nil && d.State != "sick":
		return a.drainText(d.Drained)
	case d.Reason == "" && host != nil:
		return "host drained: " + a.drainText(host)
	case d.Reason == "" && len(d.Throttle) > 0:
		return "its clocks are held down: " + strings.Join(d.Throttle, ", ")
	}
	return d.Reason
}

// jobCells has a cell for each job that holds the device, one at least.
func jobCells(d control.DeviceRow) []string {
	if len(d.Holders) < 2 && (len(d.Holders) == 0 || d.Holders[0].MemoryBytes == 0) {
		return []string{string(d.JobID)}
	}
	cells := make([]string, len(d.Holders))
	for i, h := range d.Holders {
		cells[i] = string(h.JobID)
		if h.MemoryBytes > 0 {
			cells[i] += " " + size(h.MemoryBytes)
		}
	}
	return cells
}

func modelText(d control.DeviceRow) string {
	model := d.Model
	if d.MIGProfile != "" {
		model += " MIG " + d.MIGProfile
	}
	if d.Simulated && !strings.Contains(strings.ToLower(model), "simulated") {
		model += " (simulated)"
	}
	return model
}

func indexCell(index int) string {
	if index < 0 {
		return ""
	}
	return strconv.Itoa(index)
}

func cellOf[N int | float64](format string, n *N) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf(format, *n)
}

func eccCell(e *control.DeviceECC) string {
	if e == nil {
		return ""
	}
	return strconv.FormatUint(e.Uncorrected, 10)
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
