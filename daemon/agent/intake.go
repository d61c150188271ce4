package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/placement"
)

const (
	// intakeWorkers bounds the submissions handled at once.
	intakeWorkers = 32
	// intakeRetry is how long a submission waits here when it could not be
	// handled; meanwhile another daemon may have it.
	intakeRetry = 2 * time.Second
)

// intake takes in what is published to gpuq.submit.
func (a *Agent) intake(ctx context.Context) error {
	return a.broker.ConsumeSubmit(ctx, intakeWorkers, a.takeIn)
}

// takeIn handles one message of gpuq.submit: it is done with once the job is in
// the ledger, or its dead letter is out.
func (a *Agent) takeIn(ctx context.Context, d *broker.Delivery) broker.Verdict {
	ctx, end := a.follow(ctx, loopIntake)
	defer end()
	var reply control.SubmitReply
	err := a.contain(job.ID(d.MessageID), func() (err error) {
		reply, err = a.submit(ctx, d.Body, a.sender(d), d.Redelivered)
		return err
	})
	if err != nil && !hopeless(err) {
		a.log.Warn("submission waits: it could not be taken in", "queue", d.Queue, "err", err)
		return broker.Requeue(intakeRetry)
	}
	if err != nil {
		a.log.Warn("submission refused", "queue", d.Queue, "reason", err.Error())
		err := a.broker.PublishDead(ctx, broker.DeadLetter{
			Body: d.Body[:min(len(d.Body), ledger.DeadBodyBytesMax)], MessageID: d.MessageID,
			Reason: err.Error(), Source: d.Queue, UserID: d.UserID, Headers: d.Headers,
		})
		if err != nil {
			a.log.Warn("dead letter could not be published; the message is given back", "queue", d.Queue, "err", err)
			return broker.Requeue(intakeRetry)
		}
		a.metrics.deadLetters.Inc()
	}
	if d.ReplyTo != "" {
		if err := a.broker.Reply(ctx, d, control.Encode(reply, submitError(err))); err != nil {
			a.log.Debug("reply could not be sent; the client asks again", "err", err)
		}
	}
	return broker.Done
}

// hopeless reports whether no daemon at no time will take the submission in.
func hopeless(err error) bool {
	return errors.Is(err, job.ErrMessage) || errors.Is(err, ledger.ErrConflict) || errors.Is(err, ledger.ErrShapesFull)
}

// submit takes a submission in: ledger first, which confirms it, then its queue.
// Where the publication does not succeed, the job waits for the sweeper, and the
// reply says so. redelivered means that an earlier taking-in may have been cut
// off between the two.
func (a *Agent) submit(ctx context.Context, body []byte, caller control.Caller, redelivered bool) (control.SubmitReply, error) {
	user := caller.User
	s, err := job.ParseSubmission(body, user)
	if err == nil {
		err = checkPool(s.Spec.Pool, caller)
	}
	if err != nil {
		a.metrics.submissions.WithLabelValues("refused").Inc()
		return control.SubmitReply{}, err
	}
	queue := s.Spec.Shape().Queue()
	if !a.shapes.has(queue) {
		if err := a.registerShape(ctx, queue); err != nil {
			return control.SubmitReply{}, err
		}
	}
	j, created, err := a.ledger.Submit(ctx, job.New(s.ID, user, s.Spec, a.now()))
	switch {
	case errors.Is(err, ledger.ErrConflict):
		a.metrics.submissions.WithLabelValues("refused").Inc()
		return control.SubmitReply{}, err
	case err != nil:
		a.metrics.submissions.WithLabelValues("unknown").Inc()
		a.ledgerFailedIn(ctx, err)
		return control.SubmitReply{}, err
	}
	reply := control.SubmitReply{ID: j.ID, Created: created, State: j.State, Warning: a.unplaceable(s.Spec)}
	if !created {
		a.metrics.submissions.WithLabelValues("existing").Inc()
	} else {
		a.metrics.submissions.WithLabelValues("created").Inc()
		a.log.Info("job submitted", "job_id", j.ID, "queue", queue, "state_to", j.State)
	}
	if j.State == job.Queued && j.Attempt == 0 && (created || redelivered && a.promiseAnew(ctx, j)) {
		if err := a.publish(ctx, message(j, j.PublishedAt)); err != nil {
			a.log.Warn("job is in the ledger, but its message could not be published; the sweeper repeats it",
				"job_id", j.ID, "queue", queue, "err", err)
			reply.Warning = "it is safe in the ledger and starts later: the broker does not take its message now"
		} else {
			a.broker.Ring(ctx, queue)
		}
	}
	return reply, nil
}

// sender is who published a submission.
func (a *Agent) sender(d *broker.Delivery) control.Caller {
	return control.Caller{User: d.UserID, Operator: slices.Contains(a.live().Control.Operators, d.UserID), Via: control.ViaBroker}
}

// checkPool refuses the pools of rehearsals to all but operators: the first host
// of a job in one of them is chosen by whoever submits it.
func checkPool(pool string, caller control.Caller) error {
	if caller.Operator || !job.IsRehearsalPool(pool) {
		return nil
	}
	return fmt.Errorf("%w: invalid: pool: %q is kept for rehearsals of operators (gpuqctl simulate): gpuqctl hosts lists the pools there are",
		job.ErrMessage, pool)
}

// promiseAnew dates the publication of a job's message that an earlier taking-in
// may not have come to. It reports whether to publish: a message that came in
// under an old date would soon look lost, and somebody else may have been first.
func (a *Agent) promiseAnew(ctx context.Context, j *job.Job) bool {
	now := a.now()
	if err := a.ledger.Republish(ctx, j, false, now); err != nil {
		if !errors.Is(err, ledger.ErrNoMatch) {
			a.ledgerFailedIn(ctx, err) // the sweeper publishes it
		}
		return false
	}
	j.PublishedAt = now
	return true
}

func (a *Agent) registerShape(ctx context.Context, queue string) error {
	err := a.ledger.RegisterShape(ctx, queue, a.cfg.Take.ShapesMax, a.now())
	if err != nil {
		if !errors.Is(err, ledger.ErrShapesFull) {
			a.ledgerFailedIn(ctx, err)
		}
		return err
	}
	a.shapes.add(queue)
	return nil
}

// unplaceable warns of a job that no host known today can run.
func (a *Agent) unplaceable(spec job.Spec) string {
	hosts := a.hosts.Load()
	if hosts == nil {
		return ""
	}
	shape := spec.Shape()
	served, most := false, 0
	for _, h := range *hosts {
		if h.Session.State == ledger.Live && slices.Contains(h.Pools, spec.Pool) {
			served = true
			most = max(most, len(h.Devices))
		}
	}
	switch {
	case !served:
		return fmt.Sprintf("it waits: no live host serves pool %s (gpuqctl hosts lists them)", spec.Pool)
	case spec.GPUs > most:
		return fmt.Sprintf("it waits: no live host of pool %s has %d devices, the largest has %d", spec.Pool, spec.GPUs, most)
	case shape.Class != job.ClassAny:
		if known := a.explained(*hosts, a.clock.Now()); !placement.Able(shape, known) {
			return "it " + placement.Explain(shape, known).Clause
		}
	}
	return ""
}

// drainDead records what was set aside, by us or by the broker, in the ledger.
func (a *Agent) drainDead(ctx context.Context) error {
	return a.broker.ConsumeDead(ctx, func(ctx context.Context, d *broker.Delivery) broker.Verdict {
		ctx, end := a.follow(ctx, loopDeadLetters)
		defer end()
		letter := ledger.DeadLetter{
			At: a.now(), Reason: d.DeadReason, Queue: d.DeadSource, User: d.UserID,
			MessageID: strings.ToValidUTF8(d.MessageID, "?"), Body: d.Body, Host: a.host,
		}
		if letter.Reason == "" {
			letter.Reason = "it came to " + d.Queue + " without a reason"
		}
		letter.Seal()
		if err := a.ledger.RecordDeadLetter(ctx, letter); err != nil {
			a.ledgerFailed(err)
			return broker.Requeue(intakeRetry)
		}
		a.metrics.deadLettersRecorded.Inc()
		a.log.Warn("dead letter recorded", "queue", letter.Queue, "reason", letter.Reason)
		return broker.Done
	})
}
