package agent

import (
	"context"
	"fmt"
	"slices"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/ledger"
)

// Hosts implements control.Handler.
func (a *Agent) Hosts(ctx context.Context, _ control.Caller) (control.HostsReply, error) {
	l, err := a.book()
	if err != nil {
		return control.HostsReply{}, err
	}
	hosts, err := l.HostList(ctx)
	if err != nil {
		return control.HostsReply{}, a.asked(ctx, err)
	}
	held, err := l.Held(ctx)
	if err != nil {
		return control.HostsReply{}, a.asked(ctx, err)
	}
	running := map[string]int{}
	for _, j := range held {
		if j.Owner != nil {
			running[j.Owner.Host]++
		}
	}
	reply := control.HostsReply{Hosts: []control.HostRow{}}
	for _, h := range hosts {
		row := control.HostRow{
			Name: h.Name, Live: h.Session.State == ledger.Live, State: string(h.Session.State),
			RenewedAgeSeconds: a.age(h), Version: h.Version, BootID: h.BootID, Pools: h.Pools,
			DevicesTotal: len(h.Devices), Running: running[h.Name], Drained: shownDrain(h.Drain),
		}
		if h.Drain != nil {
			row.Drain = drainLine(h.Drain, row.Running)
		}
		if !row.Live {
			reply.Hosts = append(reply.Hosts, row) // what its devices do nobody knows
			continue
		}
		for _, d := range h.Devices {
			switch device.State(d.State) {
			case device.Free:
				row.DevicesFree++
			case device.Busy, device.Draining:
				row.DevicesBusy++
			}
		}
		reply.Hosts = append(reply.Hosts, row)
	}
	return reply, nil
}

// age is the time since a host's last renewal by the two hosts' wall clocks: for
// people, who want a figure, not for decisions.
func (a *Agent) age(h *ledger.Host) float64 {
	return max(0, a.clock.Now().Sub(h.Session.RenewedAt.Time).Seconds())
}

// Devices implements control.Handler: this host's as they are, the others' as of
// their last renewal.
func (a *Agent) Devices(ctx context.Context, _ control.Caller, args control.DevicesArgs) (control.DevicesReply, error) {
	l, err := a.book()
	if err != nil {
		return control.DevicesReply{}, err
	}
	hosts, err := l.HostList(ctx)
	if err != nil {
		return control.DevicesReply{}, a.asked(ctx, err)
	}
	reply := control.DevicesReply{Devices: []control.DeviceRow{}}
	for _, h := range hosts {
		if args.Host != "" && args.Host != h.Name {
			continue
		}
		devices, age := h.Devices, a.age(h)
		if h.Name == a.host {
			devices, age = hostDevices(a.devices.Snapshot()), 0
		}
		if h.Session.State != ledger.Live {
			reply.Warnings = append(reply.Warnings, fmt.Sprintf("host %s is not live (session %s); its devices are shown as last reported", h.Name, h.Session.State))
		}
		for _, d := range devices {
			if h.Session.State != ledger.Live {
				d.State, d.Reason, d.JobID, d.Attempt = string(device.Sick), "its host is not live", "", 0
			}
			reply.Devices = append(reply.Devices, control.DeviceRow{
				Host: h.Name, UUID: d.UUID, Index: d.Index, Model: d.Model, MemoryBytes: d.MemoryBytes,
				Simulated: d.Simulated, State: d.State, JobID: d.JobID, Attempt: d.Attempt, Reason: d.Reason, AgeSeconds: age,
				Drained: shownDrain(h.DrainOf(d.UUID)),
			})
		}
	}
	known := slices.ContainsFunc(hosts, func(h *ledger.Host) bool { return h.Name == args.Host })
	if args.Host != "" && !known {
		return reply, control.Errorf(control.CodeNotFound, "gpuqctl hosts lists them", "there is no host %s", args.Host)
	}
	return reply, nil
}

// Version implements control.Handler.
func (a *Agent) Version(context.Context, control.Caller) (control.VersionReply, error) {
	reply := control.VersionReply{Host: a.host, Version: a.version, Commit: a.commit, Broker: "connected"}
	if ok, why := a.broker.Healthy(); !ok {
		reply.Broker = why
	}
	if l, err := a.book(); err == nil {
		reply.Ledger, reply.LedgerID = l.Kind(), l.ID()
	}
	return reply, nil
}

// Status implements control.Handler.
func (a *Agent) Status(_ context.Context, _ control.Caller) (control.StatusReply, error) {
	reply := control.StatusReply{
		Host: a.host, Ready: a.ready.Load(), Session: a.lease.current(), Running: a.runs.len(), Missing: a.missing(),
	}
	for _, d := range a.devices.Snapshot() {
		reply.DevicesTotal++
		if d.State == device.Free {
			reply.DevicesFree++
		}
	}
	reply.Line = a.statusLine()
	return reply, nil
}
