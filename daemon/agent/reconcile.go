package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

// reconcile brings journal, processes and ledger together before any work is
// taken: ended attempts are committed, running ones adopted, claims without a
// journal entry released; then the session is opened or carried on.
//
// It may be repeated: what one turn has settled the next one passes over.
func (a *Agent) reconcile(ctx context.Context) error {
	attempts, err := a.runner.List()
	if !onlyDamaged(err) {
		return err // what could not be read now may be read later
	}
	if err != nil {
		// Their jobs are not released while an attempt may be running: isOrphan.
		a.log.Error("journal has damaged entries; their files are kept", "err", err)
	}
	host, err := a.renewals.Host(ctx, a.host)
	if errors.Is(err, ledger.ErrNotFound) {
		host, err = &ledger.Host{}, nil
	}
	if err != nil {
		return err
	}
	own := host.Session.State == ledger.Live
	if own && (host.InstallID != a.identity.InstallID || host.MachineID != a.identity.MachineID) {
		// Before anything is adopted: this may be a copy of the state directory.
		return a.outlast(ctx, host)
	}
	rebooted := host.BootID != a.identity.BootID
	for _, attempt := range attempts {
		beat(ctx)
		if err := a.reconcileAttempt(ctx, attempt); err != nil {
			return err
		}
	}
	if own {
		if err := a.releaseUnknown(ctx, host.Session.ID); err != nil {
			return err
		}
	}
	live := ""
	if own && !rebooted {
		live = host.Session.ID
	}
	if err := a.expireOthers(live); err != nil {
		return err
	}
	if live != "" {
		return a.carryOn(ctx, host.Session)
	}
	if err := a.endRuns(ctx); err != nil {
		return err
	}
	return a.openSession(ctx, rebooted)
}

// outlast refuses to start while another installation lives under this host's name,
// and watches it meanwhile as every host does: where no other daemon is up, as on a
// lone host that was installed anew, nobody else would ever expire its session.
func (a *Agent) outlast(ctx context.Context, other *ledger.Host) error {
	if a.predecessor == nil {
		a.predecessor = newWatcher("", a.cfg.Lease) // the own name is the other's here
	}
	now := a.clock.Now()
	for _, overdue := range a.predecessor.observe(now, now, []*ledger.Host{other}) {
		a.expire(ctx, overdue) // the next turn reads what came of it
	}
	return a.foreign(other)
}

// onlyDamaged reports whether an error of List speaks of damaged entries alone.
func onlyDamaged(err error) bool {
	if _, ok := err.(*runner.DamagedError); ok || err == nil {
		return true
	}
	joined, ok := err.(interface{ Unwrap() []error })
	return ok && !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !onlyDamaged(e) })
}

// expireOthers stops the attempts of every session but the live one.
func (a *Agent) expireOthers(live string) error {
	for _, r := range a.runs.all() {
		if r.adopted && r.job.Owner.Session != live {
			err := a.runner.WriteDeadline(runner.Deadline{
				Session: r.job.Owner.Session, BootID: a.identity.BootID, State: runner.SessionExpired,
			})
			if err != nil {
				return err
			}
			r.stop(runner.Stop{Reason: runner.StopSessionExpired, Detail: "the host's lease had ended", Grace: -1})
		}
	}
	return nil
}

// reconcileAttempt settles one entry of the journal, by what its shim recorded.
func (a *Agent) reconcileAttempt(ctx context.Context, attempt Attempt) error {
	in := attempt.Intent()
	if a.runs.byClaim(in.ClaimID) != nil {
		return nil // adopted in an earlier turn
	}
	if _, settled, err := attempt.Verdict(); err != nil || settled {
		return err
	}
	if _, revoked, err := attempt.Revoked(); err != nil || revoked {
		return err // released below, if it is still this session's
	}
	_, started, err := attempt.Started()
	if err != nil {
		return err
	}
	if !started && bugged(ReleaseUnrevoked) {
		return nil
	}
	if !started {
		// A shim that is late finds the revocation and exits.
		err := attempt.Revoke()
		if err == nil {
			return nil
		}
		if !errors.Is(err, runner.ErrStarted) {
			return err
		}
	}
	return a.adopt(ctx, attempt)
}

// adopt carries on an attempt that an earlier daemon started.
func (a *Agent) adopt(ctx context.Context, attempt Attempt) error {
	in := attempt.Intent()
	j := new(job.Job)
	if err := json.Unmarshal(in.Spec, j); err != nil || j.Owner == nil {
		// No later turn reads it better. isOrphan keeps its job from being released.
		a.log.Error("attempt has no readable job; it is left alone", "job_id", in.JobID, "attempt", in.Attempt, "err", err)
		return nil
	}
	_, ended, err := attempt.Exit()
	if err != nil {
		return err
	}
	r := newRun(a, j, in.Devices)
	r.adopted, r.attempt = true, attempt
	// One that has ended holds nothing: its devices may be another's by now.
	if !ended {
		if err := a.devices.Adopt(j.ID, in.Attempt, in.Devices, in.GPUMemoryBytes); err != nil {
			a.log.Error("adopted attempt shares a device with another", "job_id", j.ID, "attempt", in.Attempt, "err", err)
		}
	} else {
		a.devices.Recall(j.ID, in.Attempt, in.Devices)
	}
	a.runs.add(r)
	a.metrics.adoptions.Inc()
	a.rehearsals.note(j.Queue, j.ID, control.NoteAdopted, strconv.Itoa(in.Attempt))
	a.log.Info("attempt adopted", "job_id", j.ID, "attempt", in.Attempt, "fence", in.Fence)
	ctx = apart(ctx)
	a.work.Go(func() { r.drive(ctx) })
	return nil
}

// releaseUnknown gives back what the ledger says this host's session holds but
// the journal does not know.
func (a *Agent) releaseUnknown(ctx context.Context, session string) error {
	held, err := a.renewals.HeldBy(ctx, session)
	if err != nil {
		return err
	}
	for _, j := range held {
		switch {
		case a.runs.knows(j.Owner.ClaimID):
		case a.isOrphan(j):
			a.releaseOrphan(ctx, j, broker.Tag{})
		default: // it may be running: its devices are not free
			if err := a.devices.Adopt(j.ID, j.Attempt, j.Owner.Devices, j.Spec.Share()); err != nil {
				a.log.Error("devices of an unreadable attempt are held by another", "job_id", j.ID, "err", err)
			}
		}
	}
	return nil
}

// isOrphan reports whether nothing on this host can be running the job: the
// journal has no entry of its attempt, or one that was never started, or is
// settled. An entry that cannot be read may have a living shim.
func (a *Agent) isOrphan(j *job.Job) bool {
	attempt, err := a.runner.Get(runner.Key{JobID: j.ID, Attempt: j.Attempt})
	if errors.Is(err, runner.ErrNotFound) {
		return true
	}
	if err == nil {
		if _, started, _ := attempt.Started(); !started && bugged(ReleaseUnrevoked) {
			return true
		}
		_, revoked, revokedErr := attempt.Revoked()
		_, settled, settledErr := attempt.Verdict()
		if err = errors.Join(revokedErr, settledErr); err == nil {
			return revoked || settled
		}
	}
	a.log.Error("attempt cannot be read; its job is kept until its shim is gone and gpuqd restarts",
		"job_id", j.ID, "attempt", j.Attempt, "err", err)
	return false
}
