package campaign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// leftovers says what is still there when all jobs are over: messages, devices
// that are held, processes, cgroups. Each gets a while to go.
func (c *campaign) leftovers(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, quietTimeout)
	defer cancel()
	var left []string
	for {
		left = slices.Concat(c.heldDevices(ctx), c.leftProcesses(), c.leftMessages(ctx))
		if len(left) == 0 {
			break
		}
		if pause(ctx, 2*time.Second) != nil {
			break
		}
	}
	return append(left, c.leftCgroups()...)
}

func (c *campaign) leftMessages(ctx context.Context) (left []string) {
	rows, err := c.queues(ctx)
	if err != nil {
		return []string{"messages cannot be counted: " + err.Error()}
	}
	for _, row := range rows {
		left = append(left, fmt.Sprintf("queue %s has %d messages and %d that are not acked", row.name, row.ready, row.unacked))
	}
	return left
}

func (c *campaign) heldDevices(ctx context.Context) (left []string) {
	hosts, err := c.clients.any().Hosts(ctx)
	var devices control.DevicesReply
	if err == nil {
		devices, err = c.clients.any().Devices(ctx, control.DevicesArgs{})
	}
	if err == nil && len(devices.Warnings) > 0 {
		err = errors.New(strings.Join(devices.Warnings, ", "))
	}
	if err != nil {
		return []string{"devices cannot be looked at: " + err.Error()}
	}
	for _, h := range hosts.Hosts {
		if !h.Live || h.Running > 0 {
			left = append(left, fmt.Sprintf("host %s is %s and runs %d attempts", h.Name, h.State, h.Running))
		}
	}
	for _, d := range devices.Devices {
		if d.State != "free" || d.JobID != "" {
			left = append(left, fmt.Sprintf("device %s of %s is %s (job %s)", d.UUID, d.Host, d.State, d.JobID))
		}
	}
	return left
}

// leftProcesses finds shims and what they have started.
func (c *campaign) leftProcesses() (left []string) {
	shims, err := c.rig.attempts()
	if err != nil {
		return []string{err.Error()}
	}
	for _, l := range shims {
		left = append(left, "shim of "+l.key.String()+" on "+l.worker)
	}
	all, err := proctree.All()
	if err != nil {
		return append(left, err.Error())
	}
	ours := map[string]bool{}
	for _, id := range c.ids() {
		ours[runner.EnvJobID+"="+string(id)] = true
	}
	for pid, stat := range all {
		if !stat.Alive() {
			continue
		}
		for _, v := range strings.Split(readProc(pid, "environ"), "\x00") {
			if ours[v] {
				left = append(left, fmt.Sprintf("process %d of %s", pid, v))
			}
		}
	}
	return left
}

// leftCgroups finds the cgroups of attempts, which are below that of the daemons,
// and ours.
func (c *campaign) leftCgroups() (left []string) {
	for _, worker := range c.rig.Workers() {
		entries, err := os.ReadDir(filepath.Join(c.rig.StateDir(worker), "attempts"))
		if err != nil {
			return append(left, err.Error())
		}
		for _, e := range entries {
			key, err := runner.ParseKey(e.Name())
			if err != nil {
				left = append(left, fmt.Sprintf("%q in the journal of %s", e.Name(), worker))
			} else if cgroup := proctree.FindCgroup(key.CgroupName()); cgroup != "" {
				left = append(left, "cgroup "+string(cgroup))
			}
		}
	}
	return left
}
