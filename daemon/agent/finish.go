package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

// logTailBytes is how much of the output the result carries.
const logTailBytes = 8 << 10

// finish commits the attempt's result and acks the message, in this order: a
// crash between the two must find the job done, not lose it.
func (r *run) finish(ctx context.Context, exit *runner.Exit) {
	if r.rehearseExit() {
		return
	}
	r.a.metrics.countExit(exit)
	r.a.noteShutdownOf(r, exit)
	if !exit.StopReason.Commits() {
		r.discard(ctx, string(exit.StopReason)+": "+exit.StopDetail)
		return
	}
	r.weighDevices(ctx, exit)
	if ctx.Err() != nil {
		return // the journal has all that the next daemon needs
	}
	if bugged(DrainCharged) && exit.Class == job.ClassDrained {
		exit.Class = job.ClassUser
	}
	verdict := job.Decide(r.job.Spec, job.Ended{
		Class: exit.Class, ExitCode: exit.Code, Started: true,
		Failures: r.job.Failures, Requeues: r.job.Requeues, Lost: r.job.Lost,
	})
	verdict.Reason = joinReasons(exit.Reason, verdict.Reason)
	if exit.StopReason == runner.StopKilled && exit.StopDetail != "" {
		verdict.Reason = exit.StopDetail
	}
	r.commit(ctx, verdict, r.result(exit))
}

func joinReasons(first, second string) string {
	if first == "" || second == "" {
		return first + second
	}
	return first + "; " + second
}

func (r *run) result(exit *runner.Exit) *job.Result {
	tail, err := r.attempt.LogTail(logTailBytes)
	if err != nil {
		r.a.log.Warn("output could not be read for the result", "job_id", r.hold.JobID, "attempt", r.number, "err", err)
	}
	return &job.Result{
		Attempt: r.number, Host: r.a.host, ExitCode: exit.Code, Signal: exit.Signal, Reason: exit.Reason,
		StartedAt: job.At(exit.Started), EndedAt: job.At(exit.Ended),
		GPUSeconds: exit.DurationSeconds * r.devicesHeld(),
		CPUSeconds: exit.UserCPUSeconds + exit.SystemCPUSeconds, MemoryBytesMax: exit.MemoryBytesMax,
		Devices: r.devices, LogTail: cleanTail(tail), LogDroppedBytes: exit.LogDroppedBytes,
		JournalDroppedLines: exit.JournalDroppedLines,
	}
}

// devicesHeld is how many devices the attempt has kept from others: of a shared one
// it is the part that its share is of the memory, so that a device's jobs never come
// to more than its time.
func (r *run) devicesHeld() float64 {
	share := r.job.Spec.Share()
	if share == 0 || len(r.devices) != 1 {
		return float64(len(r.devices))
	}
	all := r.a.devices.MemoryBytes(r.devices[0])
	if all < share {
		return 1 // it is not known any more
	}
	return float64(share) / float64(all)
}

// cleanTail makes text of bytes that were cut anywhere.
func cleanTail(tail []byte) string {
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(string(tail), "\uFFFD"), "\x00", "\uFFFD")
}

// end commits a verdict for a claim without a finished attempt: a release, or an
// ending before the start. The device grant goes with it.
func (r *run) end(ctx context.Context, v job.Verdict) {
	r.a.devices.Release(r.hold.JobID, r.number)
	r.a.wakeUp()
	var result *job.Result
	if v.State.Terminal() {
		result = &job.Result{
			Attempt: r.number, Host: r.a.host, ExitCode: -1, Reason: v.Reason, EndedAt: r.a.now(), Devices: r.devices,
		}
	}
	r.commit(ctx, v, result)
}

// commit writes the verdict until the ledger has taken or refused it, then does
// what follows from the job's new state, and acks. When ctx ends first, the
// journal has all that the next daemon needs.
func (r *run) commit(ctx context.Context, v job.Verdict, result *job.Result) {
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	if bugged(AckBeforeCommit) {
		r.a.ack(ctx, r.takeTag(), r.hold.JobID, "committed")
	}
	c := ledger.Commit{ID: r.commitID, Verdict: v, Result: result, Now: r.a.now()}
	var j *job.Job
	refused := false
	err := r.a.persist(ctx, "commit the result", func(ctx context.Context) (err error) {
		j, err = r.a.ledger.Commit(ctx, r.hold, c)
		refused = errors.Is(err, ledger.ErrNoMatch) || errors.Is(err, ledger.ErrNotFound)
		if refused {
			return nil
		}
		r.a.ledgerFailed(err)
		return err
	})
	if err != nil {
		return
	}
	if refused {
		r.a.metrics.commitsRefused.Inc()
		r.discard(ctx, "the ledger refused it: the job is no longer this attempt's")
		return
	}
	r.committed(ctx, c, j)
}

// committed does what follows from a commit. Each part may fail: the sweeper
// and the next daemon make up for it.
func (r *run) committed(ctx context.Context, c ledger.Commit, j *job.Job) {
	// Another daemon may have moved the job on since; what this commit did is in
	// the verdict, or, where a kill turned it, in the document.
	state := c.Verdict.State
	if !state.Terminal() && j.State == job.Killed {
		state = job.Killed
	}
	r.a.log.Info("attempt finished", "job_id", r.hold.JobID, "attempt", r.number, "fence", r.hold.Fence,
		"state_from", job.Running, "state_to", state, "reason", c.Verdict.Reason, "submitter", r.job.Submitter)
	r.a.metrics.countCommit(state, c.Verdict.Class)
	if r.attempt != nil {
		if err := r.attempt.MarkCommitted(c.ID); err != nil {
			r.a.log.Warn("commit could not be noted; it is recognised when repeated", "job_id", r.hold.JobID, "err", err)
		}
	}
	if bugged(DoneCacheOnRequeue) {
		r.a.done.Store(ctx, r.hold.JobID, job.Succeeded)
	}
	switch {
	case state.Terminal():
		r.a.done.Store(ctx, r.hold.JobID, state)
		r.a.dropWorkdir(r.hold.JobID)
	case state == job.Retrying:
		r.a.publishRetry(ctx, j, c.Verdict)
	default:
		r.a.publishAgain(ctx, j)
	}
	r.close(ctx)
}

// close acks the message and forgets the run.
func (r *run) close(ctx context.Context) {
	if r.rehearseCommitted() {
		return
	}
	r.a.ack(ctx, r.takeTag(), r.hold.JobID, "committed")
	r.forget()
}

func (r *run) forget() {
	r.a.usage.end(r.a.clock.Now(), r)
	r.a.devices.Release(r.hold.JobID, r.number)
	r.a.runs.remove(r)
	r.a.wakeUp()
}

// discard keeps the files of a result that has no right to be committed. The
// delivery that it holds may be of a later turn of the job, so it goes back to
// its queue; the claim that follows decides.
func (r *run) discard(ctx context.Context, reason string) {
	defer r.forget()
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	if tag := r.takeTag(); tag != (broker.Tag{}) {
		r.a.giveBack(ctx, &broker.Delivery{Tag: tag, Queue: r.job.Queue, MessageID: string(r.hold.JobID)}, "the attempt's result was discarded")
	}
	r.a.metrics.attempts.WithLabelValues("discarded").Inc()
	r.a.log.Warn("attempt's result discarded", "job_id", r.hold.JobID, "attempt", r.number, "fence", r.hold.Fence, "reason", reason)
	if r.attempt == nil {
		return
	}
	if err := r.attempt.MarkDiscarded(reason); err != nil {
		r.a.log.Warn("discard could not be noted", "job_id", r.hold.JobID, "attempt", r.number, "err", err)
	}
}

// publishAgain puts a job into its again queue. When that does not succeed, the
// sweeper does it later: the job is queued in the ledger.
func (a *Agent) publishAgain(ctx context.Context, j *job.Job) (published bool) {
	m := message(j, j.PublishedAt)
	m.Again, m.AskLedger = true, true
	if err := a.publish(ctx, m); err != nil {
		a.log.Warn("job could not be published again; the sweeper repeats it", "job_id", j.ID, "queue", j.Queue, "err", err)
		return false
	}
	a.broker.Ring(ctx, j.Queue)
	return true
}

// publishRetry puts a job into the retry queue of its delay.
func (a *Agent) publishRetry(ctx context.Context, j *job.Job, v job.Verdict) {
	m := message(j, j.NotBefore)
	m.Again, m.AskLedger = true, true
	step := broker.RetryStep(v.Delay)
	if err := a.broker.PublishRetry(ctx, step, m); err != nil {
		a.log.Warn("retry could not be published; the sweeper does it when it is due", "job_id", j.ID, "queue", j.Queue, "err", err)
		return
	}
	// The broker moves the message without a word. Should this daemon be gone by
	// then, the next tick of any host finds it.
	time.AfterFunc(step+retryBellDelay, func() {
		if ctx.Err() == nil {
			a.broker.Ring(ctx, j.Queue)
		}
	})
}

// retryBellDelay leaves the broker the time to move a message to its queue.
const retryBellDelay = 50 * time.Millisecond

// publish declares the queue where the broker does not have it.
func (a *Agent) publish(ctx context.Context, m broker.Message) error {
	err := a.broker.Publish(ctx, m)
	if !errors.Is(err, broker.ErrUnroutable) {
		return err
	}
	if err := a.broker.DeclareShape(ctx, m.Queue); err != nil {
		return err
	}
	return a.broker.Publish(ctx, m)
}

// message is a job's message; enqueuedAt is when it reaches the work queue at
// the earliest.
func message(j *job.Job, enqueuedAt job.Time) broker.Message {
	return broker.Message{
		Queue: j.Queue, MessageID: string(j.ID),
		Body: job.Ticket{ID: j.ID, EnqueuedAt: enqueuedAt}.Encode(),
	}
}

// releaseOrphan gives back a job that the ledger says this session holds, but
// that no run, claim or journal entry here knows of. The delivery that showed
// it, if one did, is acked after that.
func (a *Agent) releaseOrphan(ctx context.Context, j *job.Job, tag broker.Tag) {
	a.log.Warn("own claim that nothing knows of; releasing it", "job_id", j.ID, "attempt", j.Attempt, "fence", j.Fence)
	r := newRun(a, j, j.Owner.Devices)
	r.commitID, r.tag = "release-"+j.Owner.ClaimID, tag
	a.runs.add(r)
	ctx = apart(ctx)
	a.work.Go(func() { r.end(ctx, releaseVerdict("its claim was made, but nothing was started")) })
}

func releaseVerdict(reason string) job.Verdict {
	return job.Verdict{State: job.Queued, Reason: "released: " + reason}
}

func expiredVerdict(j *job.Job) job.Verdict {
	return job.Verdict{
		State: job.Dead, Class: job.ClassExpired,
		Reason: fmt.Sprintf("it expired at %s before it could start", j.ExpiresAt),
	}
}

func panicVerdict(cause any) job.Verdict {
	return job.Verdict{
		State: job.Dead, Class: job.ClassRefused,
		Reason: fmt.Sprintf("gpuqd could not handle it: internal error: %v", cause),
	}
}

// journalled is the job as the journal keeps it: what a later daemon needs to
// commit without having seen the claim.
func journalled(j *job.Job) json.RawMessage {
	lean := *j
	lean.History = nil
	doc, err := json.Marshal(lean)
	if err != nil {
		panic("a job is plain data: " + err.Error())
	}
	return doc
}

// workdir is the job's own directory, kept across its attempts.
func (a *Agent) workdir(id job.ID) string {
	root := a.cfg.Runner.WorkRoot
	if root == "" {
		root = filepath.Join(a.cfg.Host.StateDir, "work")
	}
	return filepath.Join(root, string(id))
}
