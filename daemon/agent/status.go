package agent

import (
	"context"

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
			case device.Sick:
				row.Sick = append(row.Sick, control.SickDevice{UUID: d.UUID, Index: d.Index, Reason: d.Reason})
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
