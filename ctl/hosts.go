package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/control"

	"github.com/spf13/cobra"
)

type hostsCmd struct {
	*app
	json bool
}

func newHosts(a *app) *cobra.Command {
	c := &hostsCmd{app: a}
	cmd := &cobra.Command{
		Use:   "hosts",
		Short: "List hosts, and which of them are alive",
		Long: `Hosts lists every host that the ledger knows. LIVE says whether its session may run
jobs, RENEWED how long ago it last renewed its lease, SICK which of its devices
take no work since something is wrong with them, DRAIN why it takes no new work,
who drained it and when, and what becomes of what runs there.`,
		Example: `  gpuqctl hosts
  gpuqctl hosts --json | jq -r '.[] | select(.live | not).name'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print one array of objects")
	return cmd
}

func (c *hostsCmd) run(ctx context.Context) error {
	client, err := c.connect()
	if err != nil {
		return err
	}
	reply, err := client.Hosts(ctx)
	if err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	if c.json {
		return c.printJSON(orEmpty(reply.Hosts))
	}
	t := newTable("NAME", "LIVE", "SESSION", "RENEWED", "DEVICES", "FREE", "BUSY", "RUNNING", "POOLS", "VERSION", "SICK", "DRAIN").
		alignRight("DEVICES", "FREE", "BUSY", "RUNNING").mayCut("POOLS", "VERSION", "SICK", "DRAIN").
		mayDrop("VERSION", "POOLS", "SESSION", "DEVICES")
	for _, h := range reply.Hosts {
		drain := h.Drain
		if h.Drained != nil {
			drain = c.drainText(h.Drained)
		}
		t.add(h.Name, yesNo(h.Live), h.State, renewed(h.RenewedAgeSeconds), strconv.Itoa(h.DevicesTotal), strconv.Itoa(h.DevicesFree),
			strconv.Itoa(h.DevicesBusy), strconv.Itoa(h.Running), strings.Join(h.Pools, ","), h.Version, sickText(h.Sick), drain)
		t.style("LIVE", map[bool]style{true: good, false: bad}[h.Live])
		if len(h.Sick) > 0 {
			t.style("SICK", bad)
		}
		t.style("DRAIN", middle)
	}
	return c.printTable(t)
}

// sickText names the devices of a host that are sick, with the reason of each.
func sickText(devices []control.SickDevice) string {
	parts := make([]string, len(devices))
	for i, d := range devices {
		parts[i] = cmp.Or(indexCell(d.Index), d.UUID) + ": " + d.Reason
	}
	return strings.Join(parts, "; ")
}

// drainText says on one line why something is drained, by whom, since when, and
// what becomes of what runs there.
func (a *app) drainText(d *control.Drain) string {
	facts := []string{"by " + d.Who}
	switch text := age(a.now(), d.At); text {
	case "":
	case "now":
		facts[0] += " just now"
	default:
		facts[0] += " " + text + " ago"
	}
	left := d.Deadline.Sub(a.now())
	switch {
	case d.Deadline.IsZero(): // what runs goes on to its end
	case d.Mode == control.DrainKill && left > 0:
		facts = append(facts, "kill in "+span(left))
	case d.Mode == control.DrainKill:
		facts = append(facts, "kill")
	case left > 0:
		facts = append(facts, "requeue in "+span(left))
	default:
		facts = append(facts, "requeue")
	}
	return d.Reason + " (" + strings.Join(facts, "; ") + ")"
}

func renewed(seconds float64) string {
	if seconds < 0 {
		return "never"
	}
	return span(time.Duration(seconds * float64(time.Second)))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
