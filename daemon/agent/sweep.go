package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/placement"

	"github.com/google/uuid"
)

const (
	// sweepBatch bounds the jobs of one kind that a sweep acts on; the next one
	// goes on.
	sweepBatch = 500
	// tidyInterval is how often settled attempts are looked through for removal.
	tidyInterval = 10 * time.Minute
)

// sweepLoop mends what got lost on the way: jobs that the ledger holds as queued
// or retrying, but whose message is gone; and it ends what has expired. Daemons
// sweep at random offsets, and the republisher first wins a compare-and-set.
func (a *Agent) sweepLoop(ctx context.Context) error {
	slack := a.cfg.Take.Slack.Std()
	var tidied time.Time
	for {
		beat(ctx)
		if err := a.sleep(ctx, slack/4+a.jitter("sweep", slack/2)); err != nil {
			return nil
		}
		beat(ctx)
		if a.reach.trouble() != "" {
			a.metrics.queueOldest.Forget()
		} else if err := a.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("sweep left something out; the next one goes on", "err", err)
		}
		beat(ctx)
		if now := a.clock.Now(); now.Sub(tidied) > tidyInterval {
			tidied = now
			a.tidy()
		}
	}
}

// tidy removes the files of settled attempts that are past their time.
func (a *Agent) tidy() {
	removed, err := a.runner.Sweep(a.live().Runner.KeepLogs.Std(), a.live().Runner.KeepLogsBytes)
	if err != nil {
		a.log.Warn("old attempts could not all be removed", "err", err)
	}
	if removed > 0 {
		a.log.Info("files of old attempts removed", "attempts", removed)
	}
}

// sweepOnce does what it can, whatever part of it fails.
func (a *Agent) sweepOnce(ctx context.Context) error {
	off := a.clockOff()
	a.metrics.clockOff.Set(off.Seconds())
	if off != 0 {
		// Ages that nobody brings up to date would be taken for those of now.
		a.metrics.queueOldest.Forget()
		return fmt.Errorf("this host's clock differs from the others' by about %s: it leaves sweeping to them; mend its time service", off)
	}
	now := a.now()
	errs := []error{a.endExpired(ctx, now), a.sweepFuture(ctx)}
	a.refreshShapes(ctx)
	for _, shape := range a.shapes.list() {
		beat(ctx)
		if err := a.sweepShape(ctx, shape); err != nil {
			errs = append(errs, fmt.Errorf("sweep %s: %w", shape.Queue(), err))
		}
	}
	return errors.Join(errs...)
}

// clockOff compares this host's wall clock with the times at which the others
// say they renewed: stamps of jobs compare only among clocks that agree. Where
// most of the live hosts agree with each other and not with this one, it returns
// how far off this one is, else 0: somebody must sweep, so a host that is alone
// with its clock steps back, and where there is no majority nobody does.
func (a *Agent) clockOff() time.Duration {
	hosts := a.hosts.Load()
	if hosts == nil {
		return 0
	}
	// How far the others' last renewals lie in the past; a live session's was
	// within its lease.
	slack := a.cfg.Take.Slack.Std()
	early, late := -slack, slack+a.cfg.Lease.TTL.Std()
	var strange []time.Duration // of those that do not agree with this host
	live := 1
	for _, h := range *hosts {
		if h.Name == a.host || h.Session.State != ledger.Live {
			continue
		}
		live++
		if behind := a.clock.Now().Sub(h.Session.RenewedAt.Time); behind < early || behind > late {
			strange = append(strange, behind)
		}
	}
	slices.Sort(strange)
	majority := live/2 + 1
	for i := 0; i+majority <= len(strange); i++ {
		if strange[i+majority-1]-strange[i] <= late-early {
			return strange[i+majority/2]
		}
	}
	return 0
}

func (a *Agent) endExpired(ctx context.Context, now job.Time) error {
	expired, err := a.ledger.ExpiredBy(ctx, now, sweepBatch)
	if err != nil {
		return err
	}
	for _, j := range expired {
		beat(ctx)
		v := expiredVerdict(j)
		after, err := a.ledger.End(ctx, j.ID, v.Class, v.Reason, uuid.NewString(), now)
		if errors.Is(err, ledger.ErrNoMatch) {
			continue // it has just started
		}
		if err != nil {
			return err
		}
		a.metrics.jobsExpired.Inc()
		a.log.Info("job expired", "job_id", j.ID, "state_from", j.State, "state_to", after.State, "reason", after.Reason)
	}
	return nil
}

// sweepFuture publishes jobs again whose published_at lies ahead: the clock that
// made it was wrong, and no evidence can be compared with it. The clock is read
// again after the ledger: this daemon may have stood still, and not the others.
func (a *Agent) sweepFuture(ctx context.Context) error {
	slack := a.cfg.Take.Slack.Std()
	ahead, err := a.ledger.FromFuture(ctx, job.At(a.clock.Now().Add(slack)), sweepBatch)
	if err != nil {
		return err
	}
	bound := a.clock.Now().Add(slack)
	for _, j := range ahead {
		beat(ctx)
		if !j.PublishedAt.After(bound) {
			continue
		}
		if err := a.contain(j.ID, func() error { return a.republish(ctx, j) }); err != nil {
			return err
		}
	}
	return nil
}

// sweepShape publishes again what is lost of the overdue jobs of one shape. A
// job's message can be in either of the shape's queues, so both must show it.
func (a *Agent) sweepShape(ctx context.Context, shape job.Shape) error {
	now, slack := a.now(), a.cfg.Take.Slack.Std()
	plain, again := shape.Queue(), shape.AgainQueue()
	overdue, err := a.ledger.Overdue(ctx, plain, job.At(now.Add(-slack)), 1)
	if err != nil {
		return err
	}
	a.metrics.countOldest(plain, now, overdue)
	if len(overdue) == 0 {
		return nil
	}
	for _, queue := range []string{again, plain} {
		beat(ctx)
		if err := a.probeQueue(ctx, shape, queue); err != nil {
			return err
		}
	}
	bound := earlier(a.evidence.lostBefore(plain), a.evidence.lostBefore(again))
	if bound.IsZero() {
		return nil
	}
	lost, err := a.ledger.Overdue(ctx, plain, job.At(bound), sweepBatch)
	if err != nil {
		return err
	}
	for _, j := range lost {
		beat(ctx)
		if j.State == job.Retrying && !bound.After(j.NotBefore.Time) {
			continue // its message enters the queue when it is due
		}
		if err := a.contain(j.ID, func() error { return a.republish(ctx, j) }); err != nil {
			return err
		}
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// probeQueue takes one message to learn of a queue that this host has not taken
// from for a slack. What it can start it starts; the rest goes back to its place
// at the head of the queue (docs/decisions/0006).
func (a *Agent) probeQueue(ctx context.Context, shape job.Shape, queue string) error {
	now := a.clock.Now()
	if !a.evidence.stale(queue, now) || a.avoided.has(queue, now) {
		return nil
	}
	if err := a.broker.DeclareShape(ctx, shape.Queue()); err != nil {
		return err
	}
	d, err := a.get(ctx, queue)
	if err != nil {
		a.avoid(queue, err)
		return err
	}
	if d == nil {
		return nil
	}
	if a.mayTake() == "" {
		v := a.view()
		v.Queues = []job.Shape{shape}
		if takes := placement.Plan(v); len(takes) > 0 && a.promise(takes[0]) {
			a.start(ctx, d, takes[0])
			return nil
		}
	}
	return a.broker.Nack(ctx, d.Tag, true)
}

func (a *Agent) republish(ctx context.Context, j *job.Job) error {
	now := a.now()
	err := a.ledger.Republish(ctx, j, true, now)
	if errors.Is(err, ledger.ErrNoMatch) {
		return nil // another sweeper won, or the job has moved on
	}
	if err != nil {
		return err
	}
	a.metrics.republished.Inc()
	a.log.Warn("message of a queued job is not in its queue; publishing it again", "job_id", j.ID, "queue", j.Queue, "state_from", j.State)
	j.PublishedAt = now
	a.publishAgain(ctx, j)
	return nil
}
