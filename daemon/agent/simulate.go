package agent

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/control"
	"gpuqd/daemon/ledger"
)

// Simulate implements control.Handler, by the host that is to be rehearsed at.
func (a *Agent) Simulate(ctx context.Context, caller control.Caller, args control.SimulateArgs) (control.SimulateReply, error) {
	if !caller.Operator {
		return control.SimulateReply{}, operatorsOnly("rehearse faults")
	}
	if args.Host != a.host {
		return passOn[control.SimulateReply](ctx, a, caller, control.VerbSimulate, args.Host, args)
	}
	if a.rehearsals == nil {
		return control.SimulateReply{}, control.Errorf(control.CodeConflict,
			"set allowed = true below [simulate] in its gpuqd.toml and restart gpuqd, which leaves running jobs running",
			"host %s does not allow rehearsals", a.host)
	}
	var err error
	switch args.Action {
	case control.SimulateArm:
		err = a.armRehearsal(ctx, caller, args)
	case control.SimulateWedge:
		return control.SimulateReply{Host: a.host, Daemon: a.rehearsals.daemon}, a.wedge(ctx, caller, args.Loop)
	case control.SimulateDisarm:
		a.rehearsals.disarm(args.Job)
	}
	return a.rehearsals.status(a.host, args.Job), err
}

// passOn asks the host that a request names, on behalf of the caller.
func passOn[R any](ctx context.Context, a *Agent, caller control.Caller, verb control.Verb, host string, args any) (reply R, err error) {
	if caller.Via == control.ViaForwarded {
		return reply, control.Errorf(control.CodeNotFound, "", "this is host %s, not %s", a.host, host)
	}
	l, err := a.book()
	if err != nil {
		return reply, err
	}
	if _, err := l.Host(ctx, host); err != nil {
		return reply, a.askedOfHost(ctx, host, err)
	}
	err = a.askHost(ctx, host, verb, caller, args, &reply)
	return reply, err
}

// wedge makes a loop block for good. The watchdog is to find it, and the service
// manager to start the daemon again.
func (a *Agent) wedge(ctx context.Context, caller control.Caller, loop string) error {
	if !a.managed || a.watchdog == 0 {
		return control.Errorf(control.CodeConflict, "run gpuqd as gpuqd.service, which sets WatchdogSec=",
			"nothing would find the stuck loop: the daemon on %s has no watchdog", a.host)
	}
	if !slices.Contains(a.progress.names(), loop) {
		return control.Errorf(control.CodeBadRequest, "it has "+strings.Join(a.progress.names(), ", "), "the daemon has no loop %q", loop)
	}
	l, err := a.book()
	if err != nil {
		return err
	}
	err = l.RecordEvent(ctx, ledger.Event{
		At: a.now(), Host: a.host, Who: caller.User, What: "simulate", Target: a.host, Why: "its loop " + loop + " blocks",
	})
	if err != nil {
		return a.asked(ctx, err)
	}
	a.log.Warn("rehearsal: a loop blocks from its next step on", "step", loop, "who", caller.User)
	a.progress.wedge(loop)
	return nil
}

// armRehearsal records who rehearses what, and sets the fault up.
func (a *Agent) armRehearsal(ctx context.Context, caller control.Caller, args control.SimulateArgs) error {
	if !a.ready.Load() {
		return control.Errorf(control.CodeUnavailable, "try again in a moment", "the daemon on %s is starting", a.host)
	}
	if why := a.mayTake(); why != "" {
		return control.Errorf(control.CodeConflict, "choose another host, or wait until this one does (gpuqctl hosts)",
			"host %s takes no work now: %s", a.host, why)
	}
	if a.rehearsals.known(args.Job) {
		return nil // asked for again, since the answer was lost
	}
	if busy := a.rehearsals.arm(args); busy != "" {
		return control.Errorf(control.CodeConflict, fmt.Sprintf("wait for its end, at most %s, or choose another host", armedTime),
			"another rehearsal, of job %s, is under way on host %s", busy, a.host)
	}
	scenario := strconv.Itoa(int(args.Scenario))
	err := a.ledger.RecordEvent(ctx, ledger.Event{
		At: a.now(), Host: a.host, Who: caller.User, What: "simulate", Target: string(args.Job),
		Why: fmt.Sprintf("scenario %s at host %s", scenario, a.host),
	})
	if err != nil {
		a.rehearsals.cancel(args.Job)
		return a.asked(ctx, err)
	}
	a.metrics.rehearsals.WithLabelValues(scenario).Inc()
	a.log.Warn("rehearsal begins", "job_id", args.Job, "scenario", int(args.Scenario), "who", caller.User)
	return nil
}
