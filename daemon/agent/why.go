package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/placement"
)

// aheadMax bounds the count of the jobs before one that waits.
const aheadMax = 1000

// Why implements control.Handler: from the job's document, what the hosts last
// reported, and what this host knows of itself.
func (a *Agent) Why(ctx context.Context, _ control.Caller, id job.ID) (control.WhyReply, error) {
	l, err := a.book()
	if err != nil {
		return control.WhyReply{}, err
	}
	j, err := l.Job(ctx, id)
	if err != nil {
		return control.WhyReply{}, a.asked(ctx, err)
	}
	f := facts{job: j, now: a.clock.Now()}
	reply := control.WhyReply{ID: j.ID, State: j.State}
	switch {
	case j.State.Held():
		f.owner, err = a.ownerOf(ctx, l, j)
	case j.State == job.Queued, j.State == job.Retrying && !f.now.Before(j.NotBefore.Time):
		err = a.explain(ctx, l, &f)
		for _, h := range f.waits.Hosts {
			reply.Hosts = append(reply.Hosts, control.WhyHost{Host: h.Name, Reason: h.Reason})
		}
		if j.State == job.Queued {
			reply.Ahead, reply.AheadMore = f.ahead, f.aheadMore
		}
	}
	if err != nil {
		return control.WhyReply{}, a.asked(ctx, err)
	}
	reply.Sentence = f.sentence()
	return reply, nil
}

// explain finds out what a job waits for that could start.
func (a *Agent) explain(ctx context.Context, l *ledger.Ledger, f *facts) error {
	hosts, err := l.HostList(ctx)
	if err != nil {
		return err
	}
	shape := f.job.Spec.Shape()
	known := a.explained(hosts, f.now)
	f.waits = placement.Explain(shape, known)
	if ok, why := a.broker.Healthy(); !ok {
		f.broker = fmt.Sprintf("%s does not reach the broker: %s", a.host, why)
	}
	if f.job.State != job.Queued {
		return nil
	}
	f.ahead, f.aheadMore, err = a.aheadOf(ctx, l, f.job, known)
	return err
}

// aheadOf counts the queued jobs that hosts look at before this one: all of the
// shapes that come first and that a host of the pool has the devices for, and
// the older ones of its own shape.
func (a *Agent) aheadOf(ctx context.Context, l *ledger.Ledger, j *job.Job, hosts []placement.Host) (n int, more bool, err error) {
	own := j.Spec.Shape()
	n, more, err = l.Ahead(ctx, own.Queue(), j.PublishedAt, aheadMax)
	for _, s := range a.shapes.list() {
		if err != nil || more {
			break
		}
		if s.Pool != own.Pool || !placement.Able(s, hosts) || !placement.Before(s, own) {
			continue
		}
		var count int
		count, more, err = l.Ahead(ctx, s.Queue(), job.Time{}, aheadMax-n)
		n += count
	}
	return n, more, err
}

// explained turns the ledger's hosts into what an explanation looks at: this one
// as it is, the others as they last reported.
func (a *Agent) explained(hosts []*ledger.Host, now time.Time) []placement.Host {
	list := make([]placement.Host, len(hosts))
	for i, h := range hosts {
		devices := h.Devices
		list[i] = placement.Host{Name: h.Name, Pools: h.Pools, Slots: placement.SlotsUnknown}
		if h.Session.State != ledger.Live {
			list[i].Session = string(h.Session.State)
		}
		if h.Name == a.host {
			devices = hostDevices(a.devices.Snapshot())
			list[i].Refuses, list[i].Slots = a.refuses(), a.cfg.Host.SlotsWithoutGPU-a.runs.slotsUsed()
		} else {
			list[i].Age = max(now.Sub(h.Session.RenewedAt.Time), time.Millisecond)
			list[i].Refuses = remoteRefuses(h, list[i].Age)
		}
		list[i].Devices = explainedDevices(h, devices)
	}
	return list
}

func explainedDevices(h *ledger.Host, devices []ledger.HostDevice) []placement.HostDevice {
	list := make([]placement.HostDevice, len(devices))
	for i, d := range devices {
		list[i] = explainedDevice(h, d)
	}
	return list
}

// explainedDevice is a device of a host; a drain counts before the host has
// taken it in.
func explainedDevice(h *ledger.Host, d ledger.HostDevice) placement.HostDevice {
	one := placement.HostDevice{
		Name: strconv.Itoa(d.Index), State: d.State, Reason: d.Reason, Shared: d.SharedBytes > 0,
		Device: placement.Device{
			UUID: d.UUID, Index: d.Index, Model: d.Model, MemoryBytes: d.MemoryBytes, ComputeCapability: d.ComputeCapability,
		},
	}
	if one.Shared && d.SharedBytes < d.MemoryBytes {
		one.RoomBytes = d.MemoryBytes - d.SharedBytes
	}
	if d.Index < 0 {
		one.Name = d.UUID
	}
	drain := h.DrainOf(d.UUID)
	switch state := device.State(d.State); {
	case drain == nil:
	case state == device.Free, state == device.Checking:
		one.State, one.Reason = string(device.Cordoned), drainedBy(drain)
	case state == device.Busy:
		one.State, one.Reason = string(device.Draining), drainedBy(drain)
	}
	return one
}

// refuses says of this host why it takes nothing.
func (a *Agent) refuses() string {
	if d := a.drains.onHost(); d != nil {
		return "is " + drainedBy(d)
	}
	if !a.ready.Load() {
		return "is starting"
	}
	if why := a.mayTake(); why != "" {
		return "takes no work now: " + why
	}
	if ok, why := a.broker.Healthy(); !ok {
		return "does not reach the broker: " + why
	}
	return ""
}

// remoteRefuses says of another host why it takes nothing, as far as the ledger
// tells.
func remoteRefuses(h *ledger.Host, age time.Duration) string {
	if h.Drain != nil {
		return "is " + drainedBy(h.Drain)
	}
	if ttl := h.Session.TTL.Std(); age > ttl*4/5 {
		return fmt.Sprintf("last renewed its lease of %s, by the clocks of both hosts, %s ago: it takes nothing until it has", ttl, lasting(age))
	}
	return ""
}

// ownerOf finds out how the host fares that holds the job.
func (a *Agent) ownerOf(ctx context.Context, l *ledger.Ledger, j *job.Job) (owner, error) {
	h, err := l.Host(ctx, j.Owner.Host)
	if errors.Is(err, ledger.ErrNotFound) {
		return owner{over: "it is gone from the ledger"}, nil
	}
	if err != nil {
		return owner{}, err
	}
	o := owner{ttl: h.Session.TTL.Std(), silent: a.clock.Now().Sub(h.Session.RenewedAt.Time)}
	if h.Session.ID != j.Owner.Session {
		o.over = "it has begun another session"
	} else if h.Session.State != ledger.Live {
		o.over = "its session is " + string(h.Session.State)
	}
	if h.Drain != nil {
		o.drains = append(o.drains, scopedDrain{h.Drain, ""})
	}
	for _, uuid := range j.Owner.Devices {
		if d := h.DrainOf(uuid); d != nil {
			o.drains = append(o.drains, scopedDrain{d, uuid})
		}
	}
	return o, nil
}
