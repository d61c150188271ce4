package main

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// operated is what a test's daemon answers to the verbs of everyday operation,
// and what it was asked. The daemon's mutex guards it.
type operated struct {
	holds    []control.HoldArgs
	onHold   func(job.ID)
	warning  string // of hold, release, drain, resume and requeue
	whys     map[job.ID]control.WhyReply
	drains   []control.DrainArgs
	resumes  []control.ResumeArgs
	onHosts  func()
	onShow   func()
	dead     []control.DeadShowReply
	purges   []control.DeadPurgeArgs
	requeues map[string]job.ID
	events   []control.EventRow
	asked    []control.EventsArgs
	doctor   func(control.DoctorArgs) (control.DoctorReply, error)
	faults   []control.SimulateDeviceArgs
	simulate func(control.SimulateArgs) (control.SimulateReply, error)
}

// Hold implements control.Handler as the agent does.
func (d *daemon) Hold(_ context.Context, c control.Caller, a control.HoldArgs) (control.HoldReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holds = append(d.holds, a)
	if d.onHold != nil {
		d.onHold(a.ID)
	}
	row, err := d.find(a.ID)
	if err != nil {
		return control.HoldReply{}, err
	}
	switch {
	case row.Held:
		return control.HoldReply{State: row.State}, nil
	case !holdable(row.State):
		return control.HoldReply{}, control.Errorf(control.CodeConflict, "gpuqctl kill ends it", "job %s is %s", a.ID, row.State)
	}
	row.State, row.Held, row.Reason = job.Waiting, true, "held by "+c.User+": "+a.Reason
	d.jobs[a.ID] = row
	return control.HoldReply{State: row.State, Changed: true, Warning: d.warning}, nil
}

// Release implements control.Handler as the agent does.
func (d *daemon) Release(_ context.Context, _ control.Caller, id job.ID) (control.HoldReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	row, err := d.find(id)
	if err != nil {
		return control.HoldReply{}, err
	}
	if !row.Held {
		return control.HoldReply{State: row.State}, nil
	}
	row.State, row.Held, row.Reason = job.Queued, false, ""
	d.jobs[id] = row
	return control.HoldReply{State: row.State, Changed: true, Warning: d.warning}, nil
}

// find returns a job; d.mu is held.
func (d *daemon) find(id job.ID) (control.JobRow, error) {
	if d.err != nil {
		return control.JobRow{}, d.err
	}
	row, ok := d.jobs[id]
	if !ok {
		return row, control.Errorf(control.CodeNotFound, "gpuqctl list shows the jobs there are", "there is no job %s", id)
	}
	return row, nil
}

// Why implements control.Handler.
func (d *daemon) Why(_ context.Context, _ control.Caller, id job.ID) (control.WhyReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.whys[id]; !ok && d.err == nil {
		return control.WhyReply{}, control.Errorf(control.CodeNotFound, "", "there is no job %s", id)
	}
	return d.whys[id], d.err
}

// Drain implements control.Handler for hosts and devices that the test has put in.
func (d *daemon) Drain(_ context.Context, c control.Caller, a control.DrainArgs) (control.DrainReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return control.DrainReply{}, d.err
	}
	d.drains = append(d.drains, a)
	drain := &control.Drain{Who: c.User, Reason: a.Reason, At: job.At(now), Mode: a.Mode}
	if a.Deadline > 0 || a.Mode != control.DrainFinish {
		drain.Deadline = job.At(now.Add(a.Deadline.Std()))
	}
	return d.setDrain(a.Host, a.Device, drain)
}

// Resume implements control.Handler as Drain does.
func (d *daemon) Resume(_ context.Context, _ control.Caller, a control.ResumeArgs) (control.DrainReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return control.DrainReply{}, d.err
	}
	d.resumes = append(d.resumes, a)
	return d.setDrain(a.Host, a.Device, nil)
}

// setDrain changes the drain of a host or device; d.mu is held.
func (d *daemon) setDrain(host, device string, drain *control.Drain) (control.DrainReply, error) {
	if device == "" {
		i := slices.IndexFunc(d.hosts, func(h control.HostRow) bool { return h.Name == host })
		if i < 0 {
			return control.DrainReply{}, control.Errorf(control.CodeNotFound, "gpuqctl hosts lists them", "there is no host %s", host)
		}
		reply := control.DrainReply{Host: host, Changed: drain != nil || d.hosts[i].Drained != nil, Running: d.hosts[i].Running, Warning: d.warning}
		d.hosts[i].Drained = drain
		return reply, nil
	}
	for i := range d.devices.Devices {
		if row := &d.devices.Devices[i]; row.Host == host && strings.HasPrefix(row.UUID, device) {
			reply := control.DrainReply{Host: host, Device: row.UUID, Changed: drain != nil || row.Drained != nil, Warning: d.warning}
			if row.JobID != "" {
				reply.Running = 1
			}
			row.Drained = drain
			return reply, nil
		}
	}
	return control.DrainReply{}, control.Errorf(control.CodeNotFound, "", "host %s has no device %s", host, device)
}

// DeadList implements control.Handler.
func (d *daemon) DeadList(_ context.Context, _ control.Caller, a control.DeadArgs) (control.DeadListReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reply := control.DeadListReply{More: len(d.dead) > a.Limit}
	for _, one := range d.dead[:min(len(d.dead), a.Limit)] {
		reply.Dead = append(reply.Dead, one.DeadRow)
	}
	return reply, d.err
}

// DeadShow implements control.Handler.
func (d *daemon) DeadShow(_ context.Context, _ control.Caller, id string) (control.DeadShowReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return control.DeadShowReply{}, d.err
	}
	for _, one := range d.dead {
		if strings.HasPrefix(one.ID, id) {
			return one, nil
		}
	}
	return control.DeadShowReply{}, control.Errorf(control.CodeNotFound, "gpuqctl dead list shows what there is", "nothing dead begins with %s", id)
}

// DeadRequeue implements control.Handler.
func (d *daemon) DeadRequeue(_ context.Context, _ control.Caller, id string) (control.DeadRequeueReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return control.DeadRequeueReply{}, d.err
	}
	made, again := d.requeues[id]
	if !again {
		if d.requeues == nil {
			d.requeues = map[string]job.ID{}
		}
		made = idC
		d.requeues[id] = made
	}
	return control.DeadRequeueReply{ID: made, State: job.Queued, Created: !again, Warning: d.warning}, nil
}

// DeadPurge implements control.Handler.
func (d *daemon) DeadPurge(_ context.Context, _ control.Caller, a control.DeadPurgeArgs) (control.DeadPurgeReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return control.DeadPurgeReply{}, d.err
	}
	d.purges = append(d.purges, a)
	before := len(d.dead)
	d.dead = slices.DeleteFunc(d.dead, func(one control.DeadShowReply) bool {
		named := slices.ContainsFunc(a.IDs, func(id string) bool { return strings.HasPrefix(one.ID, id) })
		return one.Kind == control.DeadMessage && (named || one.At.Before(a.Before.Time))
	})
	return control.DeadPurgeReply{Purged: before - len(d.dead)}, nil
}

// Events implements control.Handler.
func (d *daemon) Events(_ context.Context, _ control.Caller, a control.EventsArgs) (control.EventsReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, a)
	return control.EventsReply{Events: d.events, More: d.more}, d.err
}

// Doctor implements control.Handler.
func (d *daemon) Doctor(_ context.Context, _ control.Caller, a control.DoctorArgs) (control.DoctorReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil || d.doctor == nil {
		return control.DoctorReply{}, d.err
	}
	return d.doctor(a)
}

// SimulateDevice implements control.Handler for devices that the test has put in.
func (d *daemon) SimulateDevice(_ context.Context, _ control.Caller, a control.SimulateDeviceArgs) (control.SimulateDeviceReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return control.SimulateDeviceReply{}, d.err
	}
	d.faults = append(d.faults, a)
	reply := control.SimulateDeviceReply{Host: a.Host}
	for _, row := range d.devices.Devices {
		if row.Host == a.Host && !a.Fault.Kind.Whole() && (a.Fault.Device == "all" || strconv.Itoa(row.Index) == a.Fault.Device) {
			reply.Devices = append(reply.Devices, row.UUID)
		}
	}
	return reply, nil
}

// Simulate implements control.Handler.
func (d *daemon) Simulate(_ context.Context, _ control.Caller, a control.SimulateArgs) (control.SimulateReply, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil || d.simulate == nil {
		return control.SimulateReply{}, d.err
	}
	return d.simulate(a)
}
