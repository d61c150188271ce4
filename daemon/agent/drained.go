package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

// drains are what operators have drained of this host, as the ledger last said:
// it does so with every renewal, the first of which comes before the first take.
type drains struct {
	changed chan struct{} // capacity 1: a signal not yet read covers the next

	mu      sync.Mutex
	seq     int64                    // DrainSeq of what follows
	host    *ledger.Drain            // nil: the host takes work
	devices map[string]*ledger.Drain // by UUID
}

func newDrains() *drains { return &drains{changed: make(chan struct{}, 1)} }

// onHost returns the drain of the host itself, nil where there is none.
func (d *drains) onHost() *ledger.Drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.host
}

// onDevice returns the drain of a device.
func (d *drains) onDevice(uuid string) *ledger.Drain {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.devices[uuid]
}

// over returns the drains that an attempt on these devices is under.
func (d *drains) over(devices []string) []scopedDrain {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []scopedDrain
	if d.host != nil {
		list = append(list, scopedDrain{d.host, ""})
	}
	for _, uuid := range devices {
		if one := d.devices[uuid]; one != nil {
			list = append(list, scopedDrain{one, uuid})
		}
	}
	return list
}

// scopedDrain is a drain with what it is of: a device, or "", the host.
type scopedDrain struct {
	*ledger.Drain
	device string
}

// learnDrains takes in what the ledger says of this host. It may be called from
// any goroutine; an answer that is older than what is known changes nothing.
func (a *Agent) learnDrains(h *ledger.Host) {
	d := a.drains
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.DrainSeq < d.seq {
		return
	}
	before, changed := d.devices, h.DrainSeq != d.seq
	d.seq, d.host, d.devices = h.DrainSeq, h.Drain, map[string]*ledger.Drain{}
	for i := range h.DeviceDrains {
		d.devices[h.DeviceDrains[i].Device] = &h.DeviceDrains[i].Drain
	}
	// One that the host does not have (yet) is passed over by the view, and tried
	// again with the next renewal.
	for uuid := range before {
		if d.devices[uuid] == nil {
			_ = a.devices.Uncordon(uuid)
		}
	}
	for uuid, one := range d.devices {
		_ = a.devices.Cordon(uuid, drainedBy(one), one.Who)
	}
	a.devices.TakeOrders(resumeOrders(h.Resumes))
	if !changed {
		return
	}
	a.logDrains()
	select {
	case d.changed <- struct{}{}:
	default:
	}
	a.wakeUp() // what was resumed can work
}

// resumeOrders are what operators have left for this host to resume.
func resumeOrders(list []ledger.Resume) []device.Order {
	orders := make([]device.Order, len(list))
	for i, r := range list {
		orders[i] = device.Order{Seq: r.Seq, UUID: r.Device, Who: r.Who}
	}
	return orders
}

// logDrains says what is in force; d.mu is held.
func (a *Agent) logDrains() {
	if a.drains.host == nil && len(a.drains.devices) == 0 {
		a.log.Info("nothing of this host is drained any more")
	}
	if one := a.drains.host; one != nil {
		a.log.Info("host is drained", "host", a.host, "who", one.Who, "reason", one.Reason, "mode", one.Mode, "deadline", one.Deadline)
	}
	for _, uuid := range slices.Sorted(maps.Keys(a.drains.devices)) {
		one := a.drains.devices[uuid]
		a.log.Info("device is drained", "device_uuid", uuid, "who", one.Who, "reason", one.Reason, "mode", one.Mode, "deadline", one.Deadline)
	}
}

// drainedBy says of a drain what everybody is told who asks why nothing starts.
func drainedBy(d *ledger.Drain) string { return "drained " + byWhom(d) }

// byWhom fits into one line, whatever was given for a reason.
func byWhom(d *ledger.Drain) string {
	return fmt.Sprintf("by %s: %s", d.Who, strings.Join(strings.Fields(d.Reason), " "))
}

// drainLine says how far a drain of the host has come.
func drainLine(d *ledger.Drain, running int) string {
	if running == 0 {
		return drainedBy(d)
	}
	return "draining " + byWhom(d)
}

// drainLookMax bounds the wait for a deadline: the wall clock, which decides, may
// be set meanwhile.
const drainLookMax = time.Minute

// drainLoop ends what runs on what is drained when it is time. It holds nothing
// of its own: a daemon that starts anew goes on from the ledger's drains and the
// attempts that it has adopted.
func (a *Agent) drainLoop(ctx context.Context) error {
	for ctx.Err() == nil {
		beat(ctx)
		a.awaitDrains(ctx, a.endDrained(ctx))
	}
	return nil
}

// awaitDrains returns when the drains have changed, or after next, where that is
// not 0.
func (a *Agent) awaitDrains(ctx context.Context, next time.Duration) {
	timer := time.NewTimer(next)
	defer timer.Stop()
	if next == 0 {
		timer.Stop()
		defer rest(ctx)()
	}
	select {
	case <-ctx.Done():
	case <-a.drains.changed:
	case <-timer.C:
	}
}

// endDrained ends the attempts whose time is over, and returns when to look
// again; 0 is not before the drains change.
func (a *Agent) endDrained(ctx context.Context) (next time.Duration) {
	soon := func(d time.Duration) {
		if next == 0 || d < next {
			next = d
		}
	}
	for _, r := range a.runs.all() {
		beat(ctx)
		due, left := dueDrain(a.drains.over(r.devices), a.clock.Now())
		switch {
		case r.committing():
		case due.Drain != nil:
			a.endUnder(ctx, r, due)
			soon(a.cfg.Lease.Renew.Std()) // until it is gone
		case left > 0:
			soon(min(left, drainLookMax))
		}
	}
	return next
}

// dueDrain picks, of the drains that an attempt is under, one that ends it now,
// a kill first; else left is the time until one does, 0 for never.
func dueDrain(list []scopedDrain, now time.Time) (due scopedDrain, left time.Duration) {
	for _, d := range list {
		wait, ends := interruptsIn(d.Drain, now)
		switch {
		case !ends:
		case wait > 0:
			if left == 0 || wait < left {
				left = wait
			}
		case due.Drain == nil || control.DrainMode(d.Mode) == control.DrainKill:
			due = d
		}
	}
	return due, left
}

// interruptsIn returns the time until a drain interrupts what runs; ends is false
// where it never does. One without a respite does so at once, whatever this
// host's clock says: who set it meant now.
func interruptsIn(d *ledger.Drain, now time.Time) (wait time.Duration, ends bool) {
	switch {
	case d.Deadline.IsZero():
		return 0, false
	case !d.Deadline.After(d.At.Time):
		return 0, true
	}
	return max(0, d.Deadline.Sub(now)), true
}

// endUnder ends an attempt as its drain says. It is called again until the
// attempt is gone.
func (a *Agent) endUnder(ctx context.Context, r *run, d scopedDrain) {
	what := "host " + a.host
	if d.device != "" {
		what = fmt.Sprintf("device %s of host %s", d.device, a.host)
	}
	if control.DrainMode(d.Mode) == control.DrainKill {
		a.killUnder(ctx, r, d, what)
		return
	}
	if wish := r.wish(); wish != nil && wish.Reason != runner.StopDrained {
		return // it is being ended for another reason
	}
	r.stop(runner.Stop{Reason: runner.StopDrained, Detail: what + ", " + byWhom(d.Drain)})
}

// killUnder flags the job to be killed, which is durable, and tells the run. The
// ledger is asked first whose the job is: it may be another host's by now.
func (a *Agent) killUnder(ctx context.Context, r *run, d scopedDrain, what string) {
	if wish := r.wish(); wish != nil && wish.Reason != runner.StopDrained {
		return // it is being ended for another reason
	}
	j, err := a.ledger.Job(ctx, r.hold.JobID)
	if err == nil && (!r.owned(j) || j.Kill != nil) {
		return // the look at the own jobs passes a kill on
	}
	k := job.Kill{
		ID: "kill-" + d.ID, Who: d.Who, At: a.now(),
		Reason: fmt.Sprintf("killed by %s with the drain of %s: %s", d.Who, what, d.Reason),
	}
	if err == nil {
		j, err = a.ledger.Kill(ctx, r.hold.JobID, k)
	}
	switch {
	case errors.Is(err, ledger.ErrTerminal):
		return
	case err != nil:
		a.ledgerFailedIn(ctx, err)
		return // the next look tries again
	}
	if j.Kill == nil {
		return
	}
	if j.Kill.ID == k.ID {
		a.recordEvent(ctx, "kill", d.Who, string(j.ID), k.Reason)
	}
	r.kill(*j.Kill)
}

// drainLines say for the status line what of this host is drained.
func (a *Agent) drainLines() []string {
	var lines []string
	if d := a.drains.onHost(); d != nil {
		lines = append(lines, drainLine(d, a.runs.len()))
	}
	for _, s := range a.devices.Snapshot() {
		if d := a.drains.onDevice(s.UUID); d != nil {
			lines = append(lines, fmt.Sprintf("device %d %s", s.Index, drainedBy(d)))
		}
	}
	return lines
}

// wish returns the stop that was asked for, nil before any.
func (r *run) wish() *runner.Stop {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopWish
}
