package agent

import (
	"context"
	"fmt"
	"slices"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// Devices implements control.Handler: this host's as they are, another's that is
// asked for by name in its own words, and the rest as of their last renewal.
func (a *Agent) Devices(ctx context.Context, caller control.Caller, args control.DevicesArgs) (control.DevicesReply, error) {
	l, err := a.book()
	if err != nil {
		return control.DevicesReply{}, err
	}
	hosts, err := l.HostList(ctx)
	if err != nil {
		return control.DevicesReply{}, a.asked(ctx, err)
	}
	if args.Host != "" {
		hosts = slices.DeleteFunc(hosts, func(h *ledger.Host) bool { return h.Name != args.Host })
		if len(hosts) == 0 {
			return control.DevicesReply{}, control.Errorf(control.CodeNotFound, "gpuqctl hosts lists them", "there is no host %s", args.Host)
		}
	}
	reply := control.DevicesReply{Devices: []control.DeviceRow{}}
	if h := hosts; args.Host != "" && args.Host != a.host && h[0].Session.State == ledger.Live && caller.Via != control.ViaForwarded {
		err := a.askHost(ctx, args.Host, control.VerbDevices, caller, args, &reply)
		if err == nil {
			return reply, nil
		}
		reply = control.DevicesReply{Devices: []control.DeviceRow{}, Warnings: []string{
			fmt.Sprintf("host %s could not be asked (%v); its devices are shown as of its last renewal", args.Host, err),
		}}
	}
	for _, h := range hosts {
		if h.Session.State != ledger.Live {
			reply.Warnings = append(reply.Warnings, fmt.Sprintf("host %s is not live (session %s); its devices are shown as last reported", h.Name, h.Session.State))
		}
		reply.Devices = append(reply.Devices, a.deviceRows(h)...)
	}
	return reply, nil
}

// deviceRows returns the rows of a host's devices, by index.
func (a *Agent) deviceRows(h *ledger.Host) []control.DeviceRow {
	if h.Name != a.host {
		rows := make([]control.DeviceRow, len(h.Devices))
		for i, d := range h.Devices {
			rows[i] = rowOfHostDevice(h, d)
			rows[i].AgeSeconds = a.age(h)
		}
		return rows
	}
	known := a.devices.Snapshot()
	rows := make([]control.DeviceRow, len(known))
	for i, one := range hostDevices(known) {
		rows[i] = rowOfHostDevice(h, one)
		addFacts(&rows[i].DeviceFacts, known[i])
	}
	return rows
}

// rowOfHostDevice is a device as its host last wrote it. What one does whose host
// is not live nobody knows.
func rowOfHostDevice(h *ledger.Host, d ledger.HostDevice) control.DeviceRow {
	row := control.DeviceRow{
		Host: h.Name, UUID: d.UUID, Index: d.Index, Model: d.Model, MemoryBytes: d.MemoryBytes,
		Simulated: d.Simulated, State: d.State, JobID: d.JobID, Attempt: d.Attempt, Reason: d.Reason,
		Drained: shownDrain(h.DrainOf(d.UUID)),
		DeviceFacts: control.DeviceFacts{
			Since: d.Since, ComputeCapability: d.ComputeCapability, ParentUUID: d.ParentUUID, MIGProfile: d.MIGProfile,
			MemoryUsedBytes: d.MemoryUsedBytes, UtilisationPercent: d.UtilisationPercent,
			TemperatureCelsius: d.TemperatureCelsius, PowerWatts: d.PowerWatts,
		},
	}
	if d.ECCUncorrected != nil {
		row.ECC = &control.DeviceECC{Uncorrected: *d.ECCUncorrected}
	}
	for _, one := range d.Holders {
		row.Holders = append(row.Holders, control.DeviceHolder{JobID: one.JobID, Attempt: one.Attempt, MemoryBytes: one.MemoryBytes})
	}
	if h.Session.State != ledger.Live {
		row.State, row.Reason, row.JobID, row.Attempt = string(device.Sick), "its host is not live", "", 0
		row.DeviceFacts = control.DeviceFacts{ComputeCapability: d.ComputeCapability, ParentUUID: d.ParentUUID, MIGProfile: d.MIGProfile}
	}
	return row
}

// addFacts adds what only the host itself knows of its device.
func addFacts(to *control.DeviceFacts, d device.Status) {
	to.PCIAddress, to.PowerLimitWatts = d.PCIAddress, d.PowerLimitWatts
	to.Throttle, to.Recovery, to.Faults = d.Throttle, string(d.Recovery), d.Faults
	if d.NUMANode != device.UnknownIndex {
		to.NUMANode = new(d.NUMANode)
	}
	if e := d.ECC; e != nil {
		to.ECC = &control.DeviceECC{
			Corrected: e.Corrected, Uncorrected: e.Uncorrected, UncorrectedAggregate: e.UncorrectedAggregate,
			RemapPending: e.RemapPending, RemapFailed: e.RemapFailed,
		}
	}
	for _, p := range d.Processes {
		to.Processes = append(to.Processes, control.DeviceProcess{PID: p.PID, MemoryUsedBytes: p.MemoryUsedBytes})
	}
}

// hostDevices is what the host's document says of its devices. It is written at
// every renewal, so what only a person wants to know who looks at one device
// stays out of it.
func hostDevices(devices []device.Status) []ledger.HostDevice {
	list := make([]ledger.HostDevice, len(devices))
	for i, d := range devices {
		list[i] = ledger.HostDevice{
			UUID: d.UUID, Index: d.Index, Model: d.Model, MemoryBytes: d.MemoryBytes, Simulated: d.Simulated,
			State: string(d.State), Reason: d.Reason, JobID: d.JobID, Attempt: d.Attempt, Since: job.At(d.Since),
			ComputeCapability: d.ComputeCapability, ParentUUID: d.ParentUUID, MIGProfile: d.MIGProfile,
			SharedBytes: d.SharedBytes(), MemoryUsedBytes: d.MemoryUsedBytes, UtilisationPercent: d.UtilisationPercent,
			TemperatureCelsius: d.TemperatureCelsius, PowerWatts: d.PowerWatts,
		}
		if d.ECC != nil {
			list[i].ECCUncorrected = new(d.ECC.Uncorrected)
		}
		for _, h := range d.Holders {
			list[i].Holders = append(list[i].Holders, ledger.DeviceHolder{JobID: h.JobID, Attempt: h.Attempt, MemoryBytes: h.MemoryBytes})
		}
	}
	return list
}
