package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// Drain implements control.Handler. It is durable before the host is told, which
// also finds it at its next renewal.
func (a *Agent) Drain(ctx context.Context, caller control.Caller, args control.DrainArgs) (control.DrainReply, error) {
	now := a.now()
	d := &ledger.Drain{ID: "drain-" + uuid.NewString(), Who: caller.User, Reason: args.Reason, At: now, Mode: string(args.Mode)}
	if args.Deadline > 0 || args.Mode != control.DrainFinish {
		d.Deadline = job.At(now.Add(args.Deadline.Std()))
	}
	return a.changeDrain(ctx, caller, drainChange{verb: control.VerbDrain, host: args.Host, device: args.Device, drain: d, args: args})
}

// Resume implements control.Handler. Attempts that are being ended stay so.
func (a *Agent) Resume(ctx context.Context, caller control.Caller, args control.ResumeArgs) (control.DrainReply, error) {
	return a.changeDrain(ctx, caller, drainChange{verb: control.VerbResume, host: args.Host, device: args.Device, args: args})
}

// drainChange is one request to drain or resume.
type drainChange struct {
	verb         control.Verb
	host, device string        // device as the person wrote it
	drain        *ledger.Drain // nil: resume
	args         any           // as they came, for the host itself
}

func (a *Agent) changeDrain(ctx context.Context, caller control.Caller, c drainChange) (control.DrainReply, error) {
	if !caller.Operator {
		return control.DrainReply{}, operatorsOnly(string(c.verb))
	}
	l, err := a.book()
	if err != nil {
		return control.DrainReply{}, err
	}
	h, err := l.Host(ctx, c.host)
	if err != nil {
		return control.DrainReply{}, a.askedOfHost(ctx, c.host, err)
	}
	if caller.Via == control.ViaForwarded {
		return a.obeyDrain(h, caller, c)
	}
	device, err := a.findDevice(h, c.device)
	if err != nil {
		return control.DrainReply{}, err
	}
	before := h.DrainOf(device)
	h, changed, err := l.SetDrain(ctx, c.host, device, c.drain)
	if err != nil {
		return control.DrainReply{}, a.askedOfHost(ctx, c.host, err)
	}
	// Before the host is told: a drain may end what runs there at once.
	running, runningErr := a.runningOn(ctx, l, h.Name, device)
	told := a.tellDrain(ctx, caller, c, h, device)
	if changed || told.Changed {
		a.recordDrain(ctx, caller, c, device, before, told.Changed)
	}
	reply := control.DrainReply{Host: h.Name, Device: device, Changed: changed || told.Changed, Running: running}
	if runningErr != nil {
		return reply, a.asked(ctx, runningErr)
	}
	reply.Warning = joinReasons(told.Warning, stillDrained(h, device, c.drain))
	return reply, nil
}

// obeyDrain is for the daemon of the drained host, which another one asks: what
// the ledger says is done, it has to take it in.
func (a *Agent) obeyDrain(h *ledger.Host, caller control.Caller, c drainChange) (control.DrainReply, error) {
	if h.Name != a.host {
		return control.DrainReply{}, control.Errorf(control.CodeNotFound, "", "this is host %s, not %s", a.host, h.Name)
	}
	device, err := a.findDevice(h, c.device)
	if err != nil {
		return control.DrainReply{}, err
	}
	return a.takeDrain(h, caller, c, device), nil
}

// takeDrain takes a drain or resume of this host in. Its reply is about what only
// the host knows: whether there was a quarantine or breaker to end.
func (a *Agent) takeDrain(h *ledger.Host, caller control.Caller, c drainChange, device string) control.DrainReply {
	a.learnDrains(h)
	reply := control.DrainReply{Host: h.Name, Device: device}
	if c.drain == nil {
		reply.Changed = a.devices.Resume(device, caller.User)
		reply.Warning = a.stillSick(device)
	}
	return reply
}

// stillSick warns who resumes a device that is sick for other reasons.
func (a *Agent) stillSick(uuid string) string {
	for _, d := range a.devices.Snapshot() {
		if d.UUID == uuid && d.State == device.Sick {
			return fmt.Sprintf("device %s stays sick: %s", uuid, d.Reason)
		}
	}
	return ""
}

// tellDrain lets the drained host know at once. It returns what the host says, or
// what the person should know where it says nothing.
func (a *Agent) tellDrain(ctx context.Context, caller control.Caller, c drainChange, h *ledger.Host, device string) (reply control.DrainReply) {
	if h.Name == a.host {
		return a.takeDrain(h, caller, c, device)
	}
	if h.Session.State != ledger.Live {
		reply.Warning = fmt.Sprintf("host %s is not live (its session is %s): this is in force when it comes back", h.Name, h.Session.State)
		return a.leaveResume(ctx, caller, c, h, device, reply)
	}
	if err := a.askHost(ctx, h.Name, c.verb, caller, c.args, &reply); err != nil {
		a.log.Info("host could not be told of its drain; its next renewal finds it", "host", h.Name, "err", err)
		reply.Warning = fmt.Sprintf("host %s could not be told (%v): it finds this at its next renewal", h.Name, err)
		return a.leaveResume(ctx, caller, c, h, device, reply)
	}
	return reply
}

// leaveResume leaves a resume for a host that could not be told, where it has
// something sick that it may be about: its next renewal finds it.
func (a *Agent) leaveResume(ctx context.Context, caller control.Caller, c drainChange, h *ledger.Host, uuid string, reply control.DrainReply) control.DrainReply {
	sick := slices.ContainsFunc(h.Devices, func(d ledger.HostDevice) bool {
		return (uuid == "" || d.UUID == uuid) && device.State(d.State) == device.Sick
	})
	if c.drain != nil || !sick {
		return reply
	}
	if err := a.ledger.AskResume(ctx, h.Name, ledger.Resume{Device: uuid, Who: caller.User, At: a.now()}); err != nil {
		reply.Warning = joinReasons(reply.Warning, fmt.Sprintf("its quarantine could not be ended: %v; try again", err))
		return reply
	}
	reply.Changed = true
	return reply
}

// stillDrained warns who resumes one thing that another drain still covers.
func stillDrained(h *ledger.Host, device string, d *ledger.Drain) string {
	switch {
	case d != nil:
		return ""
	case device != "" && h.Drain != nil:
		return fmt.Sprintf("host %s itself stays %s", h.Name, drainedBy(h.Drain))
	case device == "" && len(h.DeviceDrains) > 0:
		first := h.DeviceDrains[0]
		return fmt.Sprintf("%d of its devices stay drained, such as %s, %s", len(h.DeviceDrains), first.Device, drainedBy(&first.Drain))
	}
	return ""
}

func (a *Agent) recordDrain(ctx context.Context, caller control.Caller, c drainChange, device string, before *ledger.Drain, quarantine bool) {
	target, why := c.host, "it was not drained"
	if device != "" {
		target += "/" + device
	}
	switch {
	case c.drain != nil:
		why = fmt.Sprintf("%s (%s)", c.drain.Reason, drainTerms(c.drain))
	case before != nil:
		why = "it was " + drainedBy(before)
	}
	if quarantine && c.drain == nil {
		why = joinReasons(why, "what kept its devices from work was ended")
	}
	a.recordEvent(ctx, string(c.verb), caller.User, target, why)
	a.log.Info("drains changed", "host", c.host, "device_uuid", device, "who", caller.User, "what", c.verb, "reason", why)
}

// drainTerms says what becomes of what runs.
func drainTerms(d *ledger.Drain) string {
	_, ends := interruptsIn(d, d.At.Time)
	switch {
	case !ends:
		return "what runs may end by itself"
	case control.DrainMode(d.Mode) == control.DrainKill:
		return "what runs is killed " + drainWhen(d)
	}
	return "what runs is queued again " + drainWhen(d)
}

func drainWhen(d *ledger.Drain) string {
	if !d.Deadline.After(d.At.Time) {
		return "at once"
	}
	return "at " + d.Deadline.String()
}

// runningOn counts the attempts on what is drained.
func (a *Agent) runningOn(ctx context.Context, l *ledger.Ledger, host, device string) (n int, err error) {
	held, err := l.Held(ctx)
	if err != nil {
		return 0, err
	}
	for _, j := range held {
		if j.Owner != nil && j.Owner.Host == host && (device == "" || slices.Contains(j.Owner.Devices, device)) {
			n++
		}
	}
	return n, nil
}

// findDevice returns the UUID of a device that a person has named: by its UUID,
// the unique beginning of one, or its index. "" is the host itself.
func (a *Agent) findDevice(h *ledger.Host, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	devices := h.Devices
	if h.Name == a.host {
		devices = hostDevices(a.devices.Snapshot())
	}
	for _, d := range h.DeviceDrains { // one that is gone can be resumed
		devices = append(devices, ledger.HostDevice{UUID: d.Device, Index: -1})
	}
	index, err := strconv.Atoi(name)
	isIndex := err == nil && index >= 0
	var found []string
	for _, d := range devices {
		switch {
		case d.UUID == name:
			return d.UUID, nil
		case strings.HasPrefix(d.UUID, name), isIndex && d.Index == index:
			if !slices.Contains(found, d.UUID) {
				found = append(found, d.UUID)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", control.Errorf(control.CodeNotFound, "gpuqctl devices --host "+h.Name+" lists them", "host %s has no device %s", h.Name, name)
	}
	return "", control.Errorf(control.CodeBadRequest, "give more of the UUID", "%s is %s", name, strings.Join(found, " or "))
}

// askedOfHost is asked for errors over a host.
func (a *Agent) askedOfHost(ctx context.Context, host string, err error) error {
	if errors.Is(err, ledger.ErrNotFound) {
		return control.Errorf(control.CodeNotFound, "gpuqctl hosts lists them", "there is no host %s", host)
	}
	return a.asked(ctx, err)
}

// shownDrain is a drain as rows show it.
func shownDrain(d *ledger.Drain) *control.Drain {
	if d == nil {
		return nil
	}
	return &control.Drain{Who: d.Who, Reason: d.Reason, At: d.At, Mode: control.DrainMode(d.Mode), Deadline: d.Deadline}
}

// recordEvent notes what somebody did. A list that misses one is no harm: the
// document that was changed has it, too.
func (a *Agent) recordEvent(ctx context.Context, what, who, target, why string) {
	err := a.ledger.RecordEvent(ctx, ledger.Event{At: a.now(), Host: a.host, Who: who, What: what, Target: target, Why: why})
	if err != nil {
		a.log.Warn("event could not be recorded", "what", what, "target", target, "err", err)
	}
}
