package agent

import (
	"context"
	"errors"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// Logs implements control.Handler: from this host's file, from another host's
// daemon, or, where neither can be had, the tail in the ledger.
func (a *Agent) Logs(ctx context.Context, caller control.Caller, args control.LogsArgs) (control.LogsReply, error) {
	l, err := a.book()
	if err != nil {
		return control.LogsReply{}, err
	}
	j, err := l.Job(ctx, args.ID)
	if err != nil {
		return control.LogsReply{}, a.asked(ctx, err)
	}
	if !caller.MayAct(j.Submitter) {
		return control.LogsReply{}, forbidden(j)
	}
	reply := control.LogsReply{Attempt: args.Attempt, Offset: args.Offset, NextOffset: args.Offset, State: j.State, LastAttempt: j.Attempt}
	if reply.Attempt == 0 {
		reply.Attempt = j.Attempt
	}
	if reply.Attempt > j.Attempt {
		return control.LogsReply{}, control.Errorf(control.CodeNotFound, "leave --attempt out for the last one",
			"job %s has no attempt %d, the last one is %d", j.ID, args.Attempt, j.Attempt)
	}
	if reply.Attempt == 0 {
		reply.End = j.State.Terminal()
		return reply, nil
	}
	reply.Host = attemptHost(j, reply.Attempt)
	if reply.Host == a.host {
		err = a.readLog(&reply, j, args.Max)
	} else if caller.Via != control.ViaForwarded {
		remote := args
		remote.Attempt = reply.Attempt
		err = a.askHost(ctx, reply.Host, control.VerbLogs, caller, remote, &reply)
	} else {
		err = runner.ErrNotFound
	}
	if err == nil {
		return reply, nil
	}
	return a.storedLog(reply, j, err)
}

// attemptHost returns the host that claimed the n-th attempt.
func attemptHost(j *job.Job, n int) string {
	for _, change := range j.History {
		if change.State != job.Claimed {
			continue
		}
		if n--; n == 0 {
			return change.Host
		}
	}
	return ""
}

func (a *Agent) readLog(reply *control.LogsReply, j *job.Job, most int) error {
	attempt, err := a.runner.Get(runner.Key{JobID: j.ID, Attempt: reply.Attempt})
	if errors.Is(err, runner.ErrNotFound) && j.State.Held() && j.Attempt == reply.Attempt {
		return nil // claimed, and not begun yet
	}
	if err != nil {
		return err
	}
	if j.State.Held() && j.Attempt == reply.Attempt && attempt.Intent().ClaimID != j.Owner.ClaimID {
		return nil // the same: this one is of before the ledger was restored
	}
	exit, ended, err := attempt.Exit() // first: what is read after it is the whole
	if err != nil {
		return err
	}
	data, err := attempt.ReadLog(reply.Offset, most)
	if err != nil {
		return err
	}
	_, revoked, err := attempt.Revoked()
	if err != nil {
		return err
	}
	reply.Data, reply.NextOffset = data, reply.Offset+int64(len(data))
	reply.End = (ended || revoked) && len(data) < most
	if ended {
		reply.Dropped = exit.LogDroppedBytes
	}
	return nil
}

// storedLog answers from the result's log tail, where it is that attempt's.
func (a *Agent) storedLog(reply control.LogsReply, j *job.Job, cause error) (control.LogsReply, error) {
	if j.Result == nil || j.Result.Attempt != reply.Attempt {
		hint := "its output is only there; try again when it is back"
		if errors.Is(cause, runner.ErrNotFound) {
			hint = "its files were removed after their time, or were lost with the disk"
		}
		return reply, control.Errorf(control.CodeNoHost, hint, "the output of attempt %d is on host %s, which does not give it now: %v",
			reply.Attempt, reply.Host, cause)
	}
	reply.Stored, reply.End = true, true
	reply.Data, reply.NextOffset = nil, reply.Offset
	if reply.Offset == 0 {
		reply.Data = []byte(j.Result.LogTail)
		reply.NextOffset = int64(len(reply.Data))
	}
	return reply, nil
}
