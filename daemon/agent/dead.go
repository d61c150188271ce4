package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// deadJobsMin is how many dead jobs a list looks at at least: the ledger sorts
// them by their submission, the list by their end.
const deadJobsMin = 1000

// DeadList implements control.Handler.
func (a *Agent) DeadList(ctx context.Context, caller control.Caller, args control.DeadArgs) (control.DeadListReply, error) {
	l, err := a.book()
	if err != nil {
		return control.DeadListReply{}, err
	}
	letters, err := l.DeadLetterRows(ctx, onlyOf(caller), args.Limit+1)
	if err != nil {
		return control.DeadListReply{}, a.asked(ctx, err)
	}
	jobs, err := l.JobList(ctx, ledger.JobFilter{
		States: []job.State{job.Dead}, Submitter: onlyOf(caller), Limit: max(args.Limit+1, deadJobsMin),
	})
	if err != nil {
		return control.DeadListReply{}, a.asked(ctx, err)
	}
	var rows []control.DeadRow
	for _, d := range letters {
		rows = append(rows, letterRow(d))
	}
	for _, j := range jobs {
		rows = append(rows, deadJobRow(j))
	}
	slices.SortFunc(rows, func(a, b control.DeadRow) int {
		return cmp.Or(b.At.Compare(a.At.Time), cmp.Compare(a.ID, b.ID))
	})
	return control.DeadListReply{Dead: rows[:min(len(rows), args.Limit)], More: len(rows) > args.Limit}, nil
}

// onlyOf returns the user whose things the caller may see; "" is everybody's.
func onlyOf(caller control.Caller) string {
	if caller.Operator {
		return ""
	}
	return caller.User
}

func letterRow(d *ledger.DeadLetter) control.DeadRow {
	return control.DeadRow{
		ID: d.ID, Kind: control.DeadMessage, At: d.At, Reason: d.Reason, User: d.User, Queue: d.Queue, Bytes: d.BodyBytes,
	}
}

func deadJobRow(j *job.Job) control.DeadRow {
	row := control.DeadRow{
		ID: string(j.ID), Kind: control.DeadJob, At: j.SubmittedAt, Reason: j.Reason, User: j.Submitter, Queue: j.Queue,
	}
	if j.Result != nil {
		row.At = j.Result.EndedAt
	}
	return row
}

// DeadShow implements control.Handler.
func (a *Agent) DeadShow(ctx context.Context, caller control.Caller, id string) (control.DeadShowReply, error) {
	if jobID, err := job.ParseID(id); err == nil {
		_, j, err := a.ownJob(ctx, caller, jobID)
		if err == nil && j.State != job.Dead {
			err = control.Errorf(control.CodeNotFound, "gpuqctl show "+id+" has it", "job %s is %s, not dead", id, j.State)
		}
		if err != nil {
			return control.DeadShowReply{}, err
		}
		return control.DeadShowReply{DeadRow: deadJobRow(j), Job: j}, nil
	}
	_, d, err := a.ownLetter(ctx, caller, id)
	if err != nil {
		return control.DeadShowReply{}, err
	}
	return control.DeadShowReply{
		DeadRow: letterRow(d), MessageID: d.MessageID, Host: d.Host, Body: d.Body, Cut: isCut(d),
	}, nil
}

func isCut(d *ledger.DeadLetter) bool { return d.BodyBytes > len(d.Body) }

// ownLetter returns a letter that the caller may act on.
func (a *Agent) ownLetter(ctx context.Context, caller control.Caller, id string) (*ledger.Ledger, *ledger.DeadLetter, error) {
	l, err := a.book()
	if err != nil {
		return nil, nil, err
	}
	d, err := l.DeadLetter(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return nil, nil, control.Errorf(control.CodeNotFound, "gpuqctl dead list shows what there is", "nothing that was set aside has an ID that begins with %s", id)
	case errors.Is(err, ledger.ErrConflict):
		return nil, nil, control.Errorf(control.CodeBadRequest, "give more of it", "several dead letters have IDs that begin with %s", id)
	case err != nil:
		return nil, nil, a.asked(ctx, err)
	case !caller.MayAct(d.User):
		return nil, nil, control.Errorf(control.CodeForbidden, "ask an operator", "dead letter %.12s is not yours", d.ID)
	}
	return l, d, nil
}

// DeadRequeue implements control.Handler.
func (a *Agent) DeadRequeue(ctx context.Context, caller control.Caller, id string) (control.DeadRequeueReply, error) {
	var reply control.DeadRequeueReply
	jobID, err := job.ParseID(id)
	if err == nil {
		reply, err = a.requeueJob(ctx, caller, jobID)
	} else {
		reply, err = a.requeueLetter(ctx, caller, id)
	}
	if err == nil {
		a.recordEvent(ctx, "dead_requeue", caller.User, id, fmt.Sprintf("it goes on as job %s", reply.ID))
	}
	return reply, err
}

// requeueJob begins a job anew that is over, as a job of its own.
func (a *Agent) requeueJob(ctx context.Context, caller control.Caller, id job.ID) (control.DeadRequeueReply, error) {
	l, old, err := a.ownJob(ctx, caller, id)
	switch {
	case err != nil:
		return control.DeadRequeueReply{}, err
	case !old.State.Terminal():
		return control.DeadRequeueReply{}, control.Errorf(control.CodeConflict, "gpuqctl why "+string(id)+" says what it waits for",
			"job %s is not over: it is %s", id, old.State)
	case old.State == job.Succeeded:
		return control.DeadRequeueReply{}, control.Errorf(control.CodeConflict, "submit it again where it shall run twice",
			"job %s has succeeded", id)
	}
	j, created, err := l.Submit(ctx, job.Requeue(old, a.now()))
	if err != nil {
		return control.DeadRequeueReply{}, submitError(err)
	}
	reply := control.DeadRequeueReply{ID: j.ID, State: j.State, Created: created}
	if j.State == job.Queued && j.Attempt == 0 && (created || a.promiseAnew(ctx, j)) {
		reply.Warning = a.publishOwed(ctx, j)
	}
	a.log.Info("job requeued", "job_id", j.ID, "reason", "requeue of "+string(id))
	return reply, nil
}

// requeueLetter does with a message what would have been done with it, had it not
// been set aside; then it is forgotten.
func (a *Agent) requeueLetter(ctx context.Context, caller control.Caller, id string) (control.DeadRequeueReply, error) {
	l, d, err := a.ownLetter(ctx, caller, id)
	if err != nil {
		return control.DeadRequeueReply{}, err
	}
	if isCut(d) {
		return control.DeadRequeueReply{}, control.Errorf(control.CodeConflict, "submit the job again",
			"only %d of its %d bytes were kept", len(d.Body), d.BodyBytes)
	}
	var reply control.DeadRequeueReply
	if isSubmission(d) {
		reply, err = a.requeueSubmission(ctx, d)
	} else {
		reply, err = a.requeueTicket(ctx, l, d)
	}
	if err != nil {
		return control.DeadRequeueReply{}, err
	}
	if err := l.ForgetDeadLetter(ctx, d.ID); err != nil {
		a.log.Warn("dead letter could not be forgotten; a second requeue finds the same job", "err", err)
		reply.Warning = joinReasons(reply.Warning, "the letter could not be removed from the list")
	}
	return reply, nil
}

// isSubmission reports whether a letter came the way of submissions.
func isSubmission(d *ledger.DeadLetter) bool { return d.Queue == broker.QueueSubmit }

// requeueSubmission takes a submission in for the user who sent it.
func (a *Agent) requeueSubmission(ctx context.Context, d *ledger.DeadLetter) (control.DeadRequeueReply, error) {
	s, err := a.submit(ctx, d.Body, a.sender(&broker.Delivery{UserID: d.User}), true)
	if err != nil && hopeless(err) {
		return control.DeadRequeueReply{}, control.Errorf(control.CodeConflict, "submit the job again, mended; gpuqctl dead purge removes this",
			"it is refused again: %v", err)
	}
	if err != nil {
		return control.DeadRequeueReply{}, submitError(err)
	}
	return control.DeadRequeueReply{ID: s.ID, State: s.State, Created: s.Created, Warning: s.Warning}, nil
}

// requeueTicket publishes the message of a job again, where the job still needs
// one.
func (a *Agent) requeueTicket(ctx context.Context, l *ledger.Ledger, d *ledger.DeadLetter) (control.DeadRequeueReply, error) {
	t, err := job.ParseTicket(d.Body)
	if err != nil {
		return control.DeadRequeueReply{}, control.Errorf(control.CodeConflict, "nothing can be made of it: gpuqctl dead purge removes it",
			"it came from %s and names no job: %v", d.Queue, err)
	}
	j, err := l.Job(ctx, t.ID)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return control.DeadRequeueReply{}, control.Errorf(control.CodeConflict, "submit the job again; gpuqctl dead purge removes this",
			"it is a message of job %s, which the ledger does not know", t.ID)
	case err != nil:
		return control.DeadRequeueReply{}, a.asked(ctx, err)
	case j.State.Terminal():
		return control.DeadRequeueReply{}, control.Errorf(control.CodeConflict,
			fmt.Sprintf("gpuqctl dead requeue %s begins the job anew, unless it has succeeded; gpuqctl dead purge removes this", j.ID),
			"it is a message of job %s, which is %s", j.ID, j.State)
	}
	reply := control.DeadRequeueReply{ID: j.ID, State: j.State}
	switch {
	case j.State.Held():
		reply.Warning = fmt.Sprintf("the job is %s on %s and needs no message", j.State, j.Owner.Host)
	case j.State == job.Waiting:
		reply.Warning = "the job waits and needs no message before it is released"
	case a.promiseAnew(ctx, j):
		reply.Warning = a.publishOwed(ctx, j)
	default:
		reply.Warning = "somebody else has just published it, or the ledger does not answer: then the sweeper publishes it"
	}
	return reply, nil
}

// DeadPurge implements control.Handler. All IDs are looked up before the first is
// forgotten.
func (a *Agent) DeadPurge(ctx context.Context, caller control.Caller, args control.DeadPurgeArgs) (control.DeadPurgeReply, error) {
	l, err := a.book()
	if err != nil {
		return control.DeadPurgeReply{}, err
	}
	n, target := 0, "letters before "+args.Before.String()
	switch {
	case len(args.IDs) > 0:
		n, target, err = a.purgeNamed(ctx, caller, args.IDs)
	case caller.Operator:
		n, err = l.ForgetDeadLettersBefore(ctx, args.Before)
	default:
		n, err = a.purgeOwn(ctx, l, caller, args.Before)
	}
	if n > 0 {
		a.recordEvent(ctx, "dead_purge", caller.User, target, fmt.Sprintf("%d forgotten", n))
	}
	var refusal *control.Error
	if err != nil && !errors.As(err, &refusal) {
		err = a.asked(ctx, err)
	}
	return control.DeadPurgeReply{Purged: n}, err
}

func (a *Agent) purgeNamed(ctx context.Context, caller control.Caller, ids []string) (n int, target string, err error) {
	var letters []*ledger.DeadLetter
	var l *ledger.Ledger
	for _, id := range ids {
		if _, err := job.ParseID(id); err == nil {
			return 0, "", control.Errorf(control.CodeBadRequest, "leave it out: its document is the record of what became of it",
				"%s is a job, and jobs are never forgotten", id)
		}
		var d *ledger.DeadLetter
		l, d, err = a.ownLetter(ctx, caller, id)
		if err != nil {
			return 0, "", err
		}
		letters = append(letters, d)
	}
	target = letters[0].ID
	if len(letters) > 1 {
		target = fmt.Sprintf("%d letters", len(letters))
	}
	for _, d := range letters {
		if err := l.ForgetDeadLetter(ctx, d.ID); err != nil {
			return n, target, err
		}
		n++
	}
	return n, target, nil
}

// purgeOwn forgets a user's own letters, the newest that are old enough first.
func (a *Agent) purgeOwn(ctx context.Context, l *ledger.Ledger, caller control.Caller, before job.Time) (n int, err error) {
	letters, err := l.DeadLetterRows(ctx, caller.User, 0)
	if err != nil {
		return 0, err
	}
	for _, d := range letters {
		if !d.At.Before(before.Time) {
			continue
		}
		if err := l.ForgetDeadLetter(ctx, d.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
