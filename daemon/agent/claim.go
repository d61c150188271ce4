package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// claimTries bounds the turns of settle; each is lost only to somebody else's
// transition of the same job.
const claimTries = 5

// settle decides what a delivery is: a job to run, which it claims and returns
// as a run that holds its devices, or a message that is done with.
func (a *Agent) settle(ctx context.Context, d *broker.Delivery, devices []string) (claimed *run) {
	ticket, err := job.ParseTicket(d.Body)
	if err != nil {
		a.setAside(ctx, d, err.Error())
		return nil
	}
	defer a.protectClaim(ctx, d, ticket.ID, &claimed)
	a.rehearsals.delivered(d, ticket.ID)
	if !d.AskLedger || bugged(DoneCacheOnRequeue) {
		if state, hit := a.done.Done(ctx, ticket.ID); hit {
			a.duplicate(ctx, d, ticket.ID, "done_cache", state)
			return nil
		}
	}
	// A run that is committing may have published the job anew: then this is the
	// new message, and the claim decides.
	if r := a.runs.ofJob(ticket.ID); r != nil && !r.committing() {
		a.redelivered(ctx, d, ticket.ID, r.offerTag(d.Tag))
		return nil
	}
	if a.drains.onHost() != nil || a.parting.reason() != "" {
		a.giveBack(ctx, d, "the host was drained meanwhile, or goes down")
		a.broker.Ring(ctx, d.Queue) // others can have it
		return nil
	}
	for range claimTries {
		r, again := a.bid(ctx, d, ticket.ID, devices)
		if !again {
			return r
		}
	}
	a.giveBack(ctx, d, "the job changes state under every claim")
	return nil
}

// bid makes one claim. It reports whether to try again.
func (a *Agent) bid(ctx context.Context, d *broker.Delivery, id job.ID, devices []string) (r *run, again bool) {
	claim := ledger.Claim{
		JobID: id, Host: a.host, Session: a.lease.current(), ClaimID: uuid.NewString(),
		Devices: devices, Now: a.now(), Slack: a.cfg.Take.Slack.Std(),
	}
	a.runs.beginClaim(claim.ClaimID, d.Tag)
	j, err := a.claim(ctx, claim)
	if err == nil {
		a.metrics.claims.Inc()
		r = a.claimed(ctx, d, j, claim)
		a.runs.endClaim(claim.ClaimID)
		return r, false
	}
	d.Tag = a.runs.endClaim(claim.ClaimID) // the message may have been redelivered meanwhile
	switch {
	case errors.Is(err, ledger.ErrNoMatch):
		a.metrics.countRefusal(j, claim.Session)
		return nil, a.refused(ctx, d, j)
	case errors.Is(err, ledger.ErrNotFound):
		a.metrics.claimsRefused.WithLabelValues("not_found").Inc()
		a.setAside(ctx, d, fmt.Sprintf("the ledger knows no job %s: submit it again", id))
	case errors.Is(err, ledger.ErrUnreadable):
		a.metrics.claimsRefused.WithLabelValues("unreadable").Inc()
		a.setAside(ctx, d, fmt.Sprintf("job %s: %v", id, err))
	default:
		// Unknown: where the claim was made all the same, checkOwn releases it.
		a.metrics.claimsRefused.WithLabelValues("unknown").Inc()
		a.ledgerFailed(err)
		a.giveBack(ctx, d, "the ledger is out of reach")
	}
	return nil, false
}

// claimed turns a won claim into a run, or releases it where it cannot start.
func (a *Agent) claimed(ctx context.Context, d *broker.Delivery, j *job.Job, c ledger.Claim) *run {
	r := newRun(a, j, c.Devices)
	r.tag = d.Tag
	a.runs.add(r)
	a.log.Info("job claimed", "job_id", j.ID, "attempt", j.Attempt, "fence", j.Fence, "queue", d.Queue)
	if j.Expired(c.Now) {
		a.work.Go(func() { r.end(ctx, expiredVerdict(j)) })
		return nil
	}
	reason := ""
	switch session, lost := c.Session, !a.lease.hasMargin(); {
	case lost:
		reason = "the host's lease has no margin left"
	case session != a.lease.current():
		reason = "the host's session changed"
	case a.parting.reason() != "":
		reason = a.parting.reason()
	case a.drains.onHost() != nil:
		reason = "the host was drained meanwhile"
	default:
		share := j.Spec.Share()
		if bugged(HalfShare) {
			share /= 2
		}
		if err := a.devices.Acquire(j.ID, j.Attempt, c.Devices, share); err != nil {
			reason = err.Error()
		}
	}
	if reason != "" {
		a.work.Go(func() { r.end(ctx, releaseVerdict(reason)) })
		return nil
	}
	return r
}

// refused deals with a message whose job could not be claimed, by what the
// ledger says of the job. It reports whether to claim again.
func (a *Agent) refused(ctx context.Context, d *broker.Delivery, j *job.Job) (again bool) {
	switch {
	case j.State.Terminal():
		a.done.Store(ctx, j.ID, j.State)
		a.duplicate(ctx, d, j.ID, "ledger", j.State)
	case j.State.Held() && j.Owner.Session == a.lease.current():
		known, ackNew := a.runs.offer(j.Owner.ClaimID, d.Tag)
		switch {
		case known:
			a.redelivered(ctx, d, j.ID, ackNew)
		case a.isOrphan(j):
			a.releaseOrphan(ctx, j, d.Tag)
		default:
			a.rehearsals.turnedAway(d, j.ID, "own")
			a.ack(ctx, d.Tag, j.ID, "held by this host")
		}
	case j.State == job.Queued:
		return true // it came back to queued between the claim and the read
	case j.State == job.Retrying:
		a.waitOn(ctx, d, j)
	case j.State == job.Waiting && bugged(MessageReleases):
		_, again, _ = a.ledger.Unpark(ctx, j.ID, "unhold-"+string(j.ID), a.host, a.now())
		return again
	default:
		// Another owner, or parked: the ledger remembers, and takeover and release
		// publish again.
		a.metrics.duplicates.WithLabelValues("held").Inc()
		a.rehearsals.turnedAway(d, j.ID, "held")
		a.ack(ctx, d.Tag, j.ID, "the ledger has it "+string(j.State)+" elsewhere")
	}
	return false
}

// waitOn sends the message of a retry that is not due, since the ladder ends
// before its delay does, through the ladder once more.
func (a *Agent) waitOn(ctx context.Context, d *broker.Delivery, j *job.Job) {
	m := message(j, j.NotBefore)
	m.Again, m.AskLedger = true, true
	// No longer than the whole delay: this host's clock may be behind.
	left := min(j.NotBefore.Sub(a.clock.Now()), j.NotBefore.Sub(j.PublishedAt.Time))
	if err := a.broker.PublishRetry(ctx, broker.RetryStep(left), m); err != nil {
		a.giveBack(ctx, d, "its wait could not be prolonged")
		a.holdOff.set(a.clock.Now(), "the broker does not take messages: "+err.Error())
		return
	}
	a.ack(ctx, d.Tag, j.ID, "its wait was prolonged")
}

// redelivered is a message of a job that this daemon works on.
func (a *Agent) redelivered(ctx context.Context, d *broker.Delivery, id job.ID, ackNew bool) {
	a.metrics.duplicates.WithLabelValues("own").Inc()
	a.rehearsals.turnedAway(d, id, "own")
	if ackNew {
		a.ack(ctx, d.Tag, id, "its run holds an earlier delivery, or is over")
	}
}

// duplicate acks a message of a job that is over.
func (a *Agent) duplicate(ctx context.Context, d *broker.Delivery, id job.ID, source string, state job.State) {
	a.metrics.duplicates.WithLabelValues(source).Inc()
	a.rehearsals.turnedAway(d, id, source)
	a.log.Info("duplicate of a finished job turned away", "job_id", id, "queue", d.Queue,
		"delivery_tag", d.Tag.Delivery, "reason", source, "state_from", state)
	a.ack(ctx, d.Tag, id, "the job is over")
}

// setAside dead-letters a message that no daemon can use: published with its
// reason first, then acked.
func (a *Agent) setAside(ctx context.Context, d *broker.Delivery, reason string) {
	a.log.Warn("message set aside", "queue", d.Queue, "delivery_tag", d.Tag.Delivery, "reason", reason)
	err := a.broker.PublishDead(ctx, broker.DeadLetter{
		Body: d.Body, MessageID: d.MessageID, Reason: reason, Source: d.Queue, UserID: d.UserID, Headers: d.Headers,
	})
	if err != nil {
		a.giveBack(ctx, d, "its dead letter could not be published")
		a.holdOff.set(a.clock.Now(), "the broker does not take dead letters: "+err.Error())
		return
	}
	a.metrics.deadLetters.Inc()
	a.ack(ctx, d.Tag, job.ID(d.MessageID), "set aside")
}

// ack is given only after a commit, a durable hand-over, or a read that names
// somebody who answers for the job; the reason says which.
func (a *Agent) ack(ctx context.Context, tag broker.Tag, id job.ID, reason string) {
	if tag == (broker.Tag{}) {
		return
	}
	if bugged(AckAcrossGenerations) {
		tag.Generation = a.generation.Load()
	}
	a.log.Debug("message acked", "job_id", id, "generation", tag.Generation, "delivery_tag", tag.Delivery, "reason", reason)
	err := a.broker.Ack(ctx, tag)
	a.metrics.countAck(err)
	if err != nil && !errors.Is(err, broker.ErrStaleTag) {
		a.log.Debug("ack was not sent; the redelivery will be answered", "job_id", id, "delivery_tag", tag.Delivery, "err", err)
	}
}

// giveBack returns a message to its queue; a connection that is lost does the
// same by itself.
func (a *Agent) giveBack(ctx context.Context, d *broker.Delivery, reason string) {
	a.log.Info("message given back", "job_id", d.MessageID, "queue", d.Queue, "generation", d.Tag.Generation, "delivery_tag", d.Tag.Delivery, "reason", reason)
	a.metrics.givenBack.Inc()
	if err := a.broker.Nack(ctx, d.Tag, true); err != nil && !errors.Is(err, broker.ErrStaleTag) {
		a.log.Debug("message could not be given back; the broker does it", "queue", d.Queue, "err", err)
	}
}

// contain turns a panic over one job, in a loop that serves all of them, into an
// error.
func (a *Agent) contain(id job.ID, step func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			a.metrics.panics.Inc()
			a.log.Error("panic while a job was looked after", "job_id", id,
				"err", fmt.Errorf("%v", cause), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error over job %s: %v", id, cause)
		}
	}()
	return step()
}

// protectClaim lets a panic over one delivery cost that job alone.
func (a *Agent) protectClaim(ctx context.Context, d *broker.Delivery, id job.ID, claimed **run) {
	cause := recover()
	if cause == nil {
		return
	}
	*claimed = nil
	a.metrics.panics.Inc()
	a.log.Error("panic while a delivery was handled; its job is refused", "job_id", id, "queue", d.Queue,
		"err", fmt.Errorf("%v", cause), "stack", string(debug.Stack()))
	verdict := panicVerdict(cause)
	if r := a.runs.ofJob(id); r != nil {
		a.work.Go(func() { r.end(ctx, verdict) })
		return
	}
	_, err := a.ledger.End(ctx, id, verdict.Class, verdict.Reason, uuid.NewString(), a.now())
	if err != nil {
		a.giveBack(ctx, d, "its refusal could not be recorded")
		return
	}
	a.ack(ctx, d.Tag, id, "refused")
}
