package agent

import (
	"context"
	"errors"
	"slices"
	"sync"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// SimulateDevice implements control.Handler, by the host whose devices they are.
// The event is recorded first: a fault that nobody is known to have asked for
// would pass for a real one.
func (a *Agent) SimulateDevice(ctx context.Context, caller control.Caller, args control.SimulateDeviceArgs) (control.SimulateDeviceReply, error) {
	if !caller.Operator {
		return control.SimulateDeviceReply{}, operatorsOnly("let faults strike devices")
	}
	if args.Host != a.host {
		reply, err := passOn[control.SimulateDeviceReply](ctx, a, caller, control.VerbSimulateDevice, args.Host, args)
		if errors.Is(err, context.DeadlineExceeded) { // the request waits there
			err = control.Errorf(control.CodeUnknownOutcome, "", "host %s has not answered, and may still do it: %v", args.Host, err)
		}
		return reply, err
	}
	reply := control.SimulateDeviceReply{Host: a.host, Devices: []string{}}
	targets, err := a.devices.Targets(args.Fault)
	if err != nil {
		return reply, a.refusedFault(err)
	}
	if !args.Fault.Kind.Whole() {
		reply.Devices = targets
	}
	l, err := a.book()
	if err != nil {
		return reply, err
	}
	if a.struck.known(args.ID) {
		return reply, nil // asked for again, since the answer was lost
	}
	target, why := a.host, args.Fault.String()
	switch {
	case len(reply.Devices) == 1:
		target += "/" + reply.Devices[0]
	case len(reply.Devices) > 1:
		why += ", on " + plural(len(reply.Devices), "device")
	}
	err = l.RecordEvent(ctx, ledger.Event{
		At: a.now(), Host: a.host, Who: caller.User, What: string(control.VerbSimulateDevice), Target: target, Why: why,
	})
	if err != nil {
		a.struck.forget(args.ID)
		return reply, a.asked(ctx, err)
	}
	a.log.Warn("fault strikes simulated devices", "host", a.host, "what", why, "who", caller.User)
	if err := a.devices.Inject(args.Fault); err != nil {
		a.struck.forget(args.ID)
		return reply, a.refusedFault(err)
	}
	return reply, nil
}

// refusedFault turns an error over a fault into one of the protocol.
func (a *Agent) refusedFault(err error) error {
	var problem *fault.Problem
	switch {
	case errors.As(err, &problem):
		return control.Errorf(control.CodeBadRequest, "gpuqctl simulate device --help lists the faults and what each needs", "%v", problem)
	case errors.Is(err, device.ErrNotSimulated):
		return control.Errorf(control.CodeConflict, `choose a host with simulated devices (gpuqctl devices), or set device.kind = "simulated" in the gpuqd.toml of a test host`,
			"host %s: %v", a.host, err)
	case errors.Is(err, device.ErrUnknown):
		return control.Errorf(control.CodeNotFound, "gpuqctl devices --host "+a.host+" lists them", "host %s has no such device", a.host)
	}
	return err
}

// struckMax is how many requests are remembered: one that is repeated comes again
// within a client's patience.
const struckMax = 256

// struck remembers which requests have been carried out.
type struck struct {
	mu  sync.Mutex
	ids []job.ID // the newest last
}

// known notes a request, and reports whether it was noted before.
func (s *struck) known(id job.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.ids, id) {
		return true
	}
	s.ids = append(s.ids[max(0, len(s.ids)-struckMax+1):], id)
	return false
}

func (s *struck) forget(id job.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = slices.DeleteFunc(s.ids, func(one job.ID) bool { return one == id })
}
