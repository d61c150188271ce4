package agent

import (
	"context"
	"errors"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// Hold implements control.Handler. The job's message stays where it is: whoever
// takes it finds the job waiting, and acks it.
func (a *Agent) Hold(ctx context.Context, caller control.Caller, args control.HoldArgs) (control.HoldReply, error) {
	l, _, err := a.ownJob(ctx, caller, args.ID)
	if err != nil {
		return control.HoldReply{}, err
	}
	h := job.Hold{ID: "hold-" + uuid.NewString(), Who: caller.User, Reason: args.Reason, At: a.now()}
	j, err := l.Park(ctx, args.ID, h)
	switch {
	case errors.Is(err, ledger.ErrTerminal):
		return control.HoldReply{}, control.Errorf(control.CodeConflict, "gpuqctl show "+string(args.ID)+" has its result",
			"job %s is over: it is %s", j.ID, j.State)
	case errors.Is(err, ledger.ErrNoMatch) && j.State.Held():
		return control.HoldReply{}, control.Errorf(control.CodeConflict, "kill it, or drain its host, which queues it again",
			"job %s has started: it is %s on %s", j.ID, j.State, j.Owner.Host)
	case errors.Is(err, ledger.ErrNoMatch):
		return control.HoldReply{}, control.Errorf(control.CodeConflict, "gpuqctl why "+string(args.ID)+" says more",
			"job %s is %s (%s): a person cannot hold it", j.ID, j.State, j.Reason)
	case err != nil:
		return control.HoldReply{}, a.asked(ctx, err)
	}
	reply := control.HoldReply{State: j.State, Changed: j.Wrote(h.ID)}
	if reply.Changed {
		a.recordEvent(ctx, "hold", caller.User, string(j.ID), args.Reason)
		a.log.Info("job held", "job_id", j.ID, "state_to", j.State, "reason", j.Reason)
	}
	return reply, nil
}

// Release implements control.Handler.
func (a *Agent) Release(ctx context.Context, caller control.Caller, id job.ID) (control.HoldReply, error) {
	l, before, err := a.ownJob(ctx, caller, id)
	if err != nil {
		return control.HoldReply{}, err
	}
	j, released, err := l.Unpark(ctx, id, "unhold-"+uuid.NewString(), caller.User, a.now())
	if err != nil {
		return control.HoldReply{}, a.asked(ctx, err)
	}
	reply := control.HoldReply{State: j.State, Changed: released}
	if !released {
		return reply, nil
	}
	why := ""
	if before.Hold != nil {
		why = "it was held by " + before.Hold.Who
		if before.Hold.Reason != "" {
			why += ": " + before.Hold.Reason
		}
	}
	a.recordEvent(ctx, "release", caller.User, string(id), why)
	a.log.Info("job released", "job_id", j.ID, "state_from", job.Waiting, "state_to", j.State)
	if j.State == job.Queued {
		reply.Warning = a.publishOwed(ctx, j)
	}
	return reply, nil
}

// publishOwed publishes a job that the ledger has just queued. It returns what to
// tell the person where that is a delay: the sweeper does it later.
func (a *Agent) publishOwed(ctx context.Context, j *job.Job) (warning string) {
	if !a.publishAgain(ctx, j) {
		return "it is queued in the ledger and starts later: the broker does not take its message now"
	}
	return ""
}

// ownJob returns a job that the caller may act on.
func (a *Agent) ownJob(ctx context.Context, caller control.Caller, id job.ID) (*ledger.Ledger, *job.Job, error) {
	l, err := a.book()
	if err != nil {
		return nil, nil, err
	}
	j, err := l.Job(ctx, id)
	if err != nil {
		return nil, nil, a.asked(ctx, err)
	}
	if !caller.MayAct(j.Submitter) {
		return nil, nil, forbidden(j)
	}
	return l, j, nil
}
