package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

// run is one claimed job on this host, from the claim to the commit. One
// goroutine drives it; the other methods may be called from any.
type run struct {
	a       *Agent
	hold    ledger.Hold
	number  int      // of the attempt
	job     *job.Job // as claimed: its counters do not change while it is held
	devices []string
	// heldSince is when this daemon learned of the claim, for usage.
	heldSince time.Time
	counted   bool // usage has it whole; usage.mu guards this
	adopted   bool // found in the journal: it was begun by an earlier daemon
	// commitID is the same for each daemon that commits this attempt; a release
	// of an orphan has another, so that it is not taken for the commit.
	commitID string

	mu       sync.Mutex
	attempt  Attempt      // nil until it is begun
	stopWish *runner.Stop // the first stop asked for
	tag      broker.Tag   // of the delivery to ack after the commit
	ending   bool         // the attempt is over; the commit is under way
	closed   bool         // the tag was taken for the last ack
}

func newRun(a *Agent, j *job.Job, devices []string) *run {
	return &run{
		a: a, job: j, number: j.Attempt, devices: devices, heldSince: a.clock.Now(), commitID: "commit-" + j.Owner.ClaimID,
		hold: ledger.Hold{JobID: j.ID, ClaimID: j.Owner.ClaimID, Fence: j.Fence, Host: a.host},
	}
}

// owned reports whether the ledger's document names this claim as the owner.
func (r *run) owned(j *job.Job) bool {
	return j.State.Held() && j.Owner != nil && j.Owner.ClaimID == r.hold.ClaimID && j.Fence == r.hold.Fence
}

func (r *run) committing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ending
}

// offerTag gives the run another delivery of its message. It reports whether
// that one is to be acked now, since the run holds one of the same generation.
func (r *run) offerTag(tag broker.Tag) (ackNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return true // its job is settled in the ledger
	}
	r.tag, ackNew = better(r.tag, tag)
	return ackNew
}

// better returns which of two deliveries of a message to hold, and whether the
// second is to be acked now: of one generation the first stays, else the later
// generation's. An earlier generation's is stale, whenever its turn comes.
func better(held, offered broker.Tag) (hold broker.Tag, ackOffered bool) {
	switch {
	case held == (broker.Tag{}), offered.Generation > held.Generation:
		return offered, false
	case offered.Generation == held.Generation:
		return held, offered != held
	}
	return held, false
}

func (r *run) takeTag() broker.Tag {
	r.mu.Lock()
	defer r.mu.Unlock()
	tag := r.tag
	r.tag, r.closed = broker.Tag{}, true
	return tag
}

// stop asks the shim to end the attempt. Before the attempt is begun, the wish
// is kept for its start.
func (r *run) stop(s runner.Stop) {
	r.mu.Lock()
	attempt := r.attempt
	if r.stopWish == nil {
		r.stopWish = &s
	}
	r.mu.Unlock()
	if attempt == nil {
		return
	}
	if err := attempt.RequestStop(s); err != nil {
		r.a.log.Error("stop could not be requested; it is repeated with the next renewal",
			"job_id", r.hold.JobID, "attempt", r.number, "reason", s.Reason, "err", err)
	}
}

// kill passes a person's request on.
func (r *run) kill(k job.Kill) {
	r.stop(runner.Stop{Reason: runner.StopKilled, Detail: k.Reason})
}

// begun makes the attempt known and returns a stop that was wished for before.
func (r *run) begun(attempt Attempt) *runner.Stop {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.attempt = attempt
	return r.stopWish
}

// drive takes the run to its end. When ctx ends it leaves: the attempt goes on
// under its shim, and the next daemon adopts it.
func (r *run) drive(ctx context.Context) {
	defer r.protect(ctx)
	if !r.adopted && !r.launch(ctx) {
		return
	}
	confirm := r.confirmRunning(ctx)
	if r.rehearseMidJob(ctx) {
		confirm()
		return
	}
	exit := r.awaitExit(ctx)
	confirm() // the start must not be recorded after the commit
	if exit == nil {
		return
	}
	// Nothing of the attempt is left: its devices can work on.
	r.a.devices.Release(r.hold.JobID, r.number)
	r.a.wakeUp()
	r.finish(ctx, exit)
}

// launch begins and starts the attempt. Where it returns false the run is over,
// or left to the next daemon.
func (r *run) launch(ctx context.Context) bool {
	attempt, err := r.begin(ctx)
	if ctx.Err() != nil && err != nil {
		return false
	}
	if err != nil {
		r.startImpossible(ctx, "begun", err)
		return false
	}
	if wish := r.begun(attempt); wish != nil {
		r.stop(*wish)
	}
	began := time.Now()
	err = r.a.runner.Start(ctx, attempt)
	r.a.metrics.countStart(ctx, err, time.Since(began))
	if err == nil {
		if r.number == 1 {
			r.a.metrics.jobWait.Observe(max(0, r.a.now().Sub(r.job.SubmittedAt.Time).Seconds()))
		}
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	return r.startFailed(ctx, attempt, err)
}

// begin journals the attempt, with the account that it runs as.
func (r *run) begin(ctx context.Context) (Attempt, error) {
	in, err := r.intent()
	if err != nil {
		return nil, err
	}
	if r.a.accounts != nil {
		who := r.job.Submitter
		if job.IsRehearsalPool(r.job.Spec.Pool) {
			// Operators rehearse, root among them, and it needs no rights.
			who = rehearsalAccount
		}
		account, err := r.a.accounts(ctx, who)
		if err != nil {
			return nil, err
		}
		in.Account = account
	}
	return r.a.runner.Begin(in)
}

// rehearsalAccount is whom the jobs of rehearsals run as, where jobs run as anybody
// in particular.
const rehearsalAccount = "nobody"

// startFailed settles a start that did not return success. It reports whether
// the command runs all the same.
func (r *run) startFailed(ctx context.Context, attempt Attempt, cause error) bool {
	err := r.revoke(ctx, attempt)
	switch {
	case isFatal(err):
		return true
	case err != nil:
		return false
	}
	r.mu.Lock()
	wish := r.stopWish
	r.mu.Unlock()
	switch {
	case wish != nil && wish.Reason == runner.StopKilled:
		r.end(ctx, job.Verdict{State: job.Killed, Class: job.ClassKilled, Reason: wish.Detail})
	case wish != nil:
		r.end(ctx, releaseVerdict("it was stopped before its start: "+wish.Detail))
	default:
		r.startImpossible(ctx, "started", cause)
	}
	return false
}

// revoke makes sure that the attempt never runs. The error is fatal where it does
// run; any other means that ctx ended.
func (r *run) revoke(ctx context.Context, attempt Attempt) error {
	return r.a.persist(ctx, "revoke attempt", func(context.Context) error {
		err := attempt.Revoke()
		if errors.Is(err, runner.ErrStarted) {
			return fatal{err} // no waiting changes that
		}
		return err
	})
}

// startImpossible gives the job back because this host cannot start it, and
// takes no work for a while. It counts as a requeue: a job that no host can start
// must come to an end.
func (r *run) startImpossible(ctx context.Context, what string, cause error) {
	r.a.holdOff.set(r.a.clock.Now(), cause.Error())
	r.a.log.Error("attempt is impossible here; taking no work for a while", "job_id", r.hold.JobID,
		"attempt", r.number, "reason", "it could not be "+what, "duration_seconds", holdOffTime.Seconds(), "err", cause)
	v := job.Decide(r.job.Spec, job.Ended{Class: job.ClassHostLost, Started: true, Requeues: r.job.Requeues, Lost: r.job.Lost})
	v.Reason = joinReasons(fmt.Sprintf("%s: it could not be %s: %v", r.a.host, what, cause), v.Reason)
	r.end(ctx, v)
}

// confirmRunning records the start in the ledger, in the background if that does
// not succeed at once. The function it returns ends the trying.
func (r *run) confirmRunning(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(apart(ctx))
	done := make(chan struct{})
	r.a.work.Go(func() {
		defer close(done)
		_ = r.a.persist(ctx, "record the start", r.recordStart) // ended by ctx only
	})
	return func() {
		select {
		case <-done: // a start in time is part of the history
		case <-time.After(startRecordWait):
		}
		cancel()
		<-done
	}
}

// startRecordWait is how long a finished attempt waits for the record of its
// start; a commit without it is legal.
const startRecordWait = 50 * time.Millisecond

func (r *run) recordStart(ctx context.Context) error {
	j, err := r.a.ledger.Start(ctx, r.hold, r.a.now())
	switch {
	case err == nil:
		r.a.log.Info("attempt started", "job_id", r.hold.JobID, "attempt", r.number, "fence", r.hold.Fence,
			"state_from", job.Claimed, "state_to", job.Running)
	case errors.Is(err, ledger.ErrNoMatch) && r.owned(j): // recorded by the daemon before this one
	case errors.Is(err, ledger.ErrNoMatch), errors.Is(err, ledger.ErrNotFound):
		if !r.committing() {
			r.stop(runner.Stop{Reason: runner.StopFenced, Detail: "the job was given to another host", Grace: -1})
		}
		return nil
	default:
		r.a.ledgerFailed(err)
		return err
	}
	if j.Kill != nil {
		r.kill(*j.Kill)
	}
	return nil
}

// awaitExit waits for the end of the attempt and returns its exit record, or nil
// when ctx ended first. A shim that died without one is recorded as lost, once
// nothing of the attempt is left.
func (r *run) awaitExit(ctx context.Context) *runner.Exit {
	var exit *runner.Exit
	err := r.a.persist(ctx, "wait for the attempt", func(ctx context.Context) (err error) {
		exit, err = r.attempt.Wait(ctx)
		if errors.Is(err, runner.ErrLost) {
			r.a.log.Warn("shim is gone without an exit record", "job_id", r.hold.JobID, "attempt", r.number)
			if bugged(TrustVanishedUnit) {
				exit = &runner.Exit{}
				return nil
			}
			// The starter first: it may know more of what is left than the record.
			if err := r.a.runner.Kill(ctx, r.attempt); err != nil {
				return err
			}
			if err := r.attempt.RecordLost("its shim died on " + r.a.host); err != nil {
				return err
			}
			exit, err = r.attempt.Wait(ctx)
		}
		return err
	})
	if err != nil {
		return nil
	}
	return exit
}

// protect lets a panic cost this job alone: its attempt is ended, and the job
// fails.
func (r *run) protect(ctx context.Context) {
	cause := recover()
	if cause == nil {
		return
	}
	r.a.metrics.panics.Inc()
	r.a.log.Error("panic while a job was handled; it fails", "job_id", r.hold.JobID, "attempt", r.number,
		"err", fmt.Errorf("%v", cause), "stack", string(debug.Stack()))
	r.mu.Lock()
	attempt := r.attempt
	r.mu.Unlock()
	if attempt != nil {
		r.stop(runner.Stop{Reason: runner.StopKilled, Detail: "internal error of gpuqd", Grace: -1})
		err := r.revoke(ctx, attempt)
		if err != nil && (!isFatal(err) || r.awaitExit(ctx) == nil) {
			return // ctx ended: the next daemon goes on
		}
	}
	r.end(ctx, panicVerdict(cause))
}

// intent is what the attempt's shim gets to know. It returns an error where a
// device could not be used.
func (r *run) intent() (runner.Intent, error) {
	spec, cfg := r.job.Spec, r.a.live()
	grace := spec.Grace.Std()
	if grace == 0 {
		grace = -1 // none, where 0 would mean the default
	}
	journal := ""
	if cfg.Runner.JournalOutput {
		journal = cfg.Log.JournalSocket
	}
	nodes, err := r.a.devices.Nodes(r.devices, cfg.Runner.DeviceNodes)
	if err != nil {
		return runner.Intent{}, err
	}
	return runner.Intent{
		JobID: r.job.ID, Attempt: r.number, Fence: r.hold.Fence, ClaimID: r.hold.ClaimID,
		Session: r.job.Owner.Session, Host: r.a.host, Submitter: r.job.Submitter, Queue: r.job.Queue,
		Command: spec.Command, Env: spec.Env, Dir: spec.Workdir, Workdir: r.a.workdir(r.job.ID),
		Devices: r.devices, GPUMemoryBytes: spec.Share(),
		DeviceNodes: nodes,
		NUMA:        numaOf(cfg.Runner.NUMA, r.a.devices.NUMANodes(r.devices)),
		Limits:      runner.Limits{MemoryBytesMax: spec.MemoryMax, TasksMax: spec.TasksMax, CPUWeight: spec.CPUWeight},
		TimeLimit:   spec.TimeLimit.Std(), Grace: grace,
		LeaseLoss: cfg.Lease.OnLoss, FreezeMax: cfg.Lease.FreezeMax.Std(), LogBytesMax: cfg.Runner.LogBytesMax,
		DeadlineFile: r.a.runner.DeadlinePath(r.job.Owner.Session),
		ClaimedAt:    r.a.clock.Now(), Spec: journalled(r.job), JournalSocket: journal,
	}, nil
}

// numaOf returns how a command is bound to its devices' nodes; nil where it is not.
func numaOf(setting string, nodes []int) *runner.NUMA {
	if setting == config.NUMAOff || len(nodes) == 0 {
		return nil
	}
	return &runner.NUMA{Nodes: nodes, Strict: setting == config.NUMABind}
}

// dropWorkdir removes the job's own directory if the job left nothing in it.
func (a *Agent) dropWorkdir(id job.ID) {
	_ = os.Remove(a.workdir(id)) // not empty, or gone: both are fine
}
