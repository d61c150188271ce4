package ledger

import (
	"context"
	"errors"
	"fmt"

	"gpuqd/daemon/job"

	"github.com/google/uuid"
)

var (
	// ErrInUse: a gpuqd works with the ledger that is to be restored.
	ErrInUse = errors.New("the ledger is in use")
	// ErrReplaced: the store holds another ledger than the one that was opened.
	ErrReplaced = errors.New("the ledger was replaced by another")
)

// Restoration says how a store that was put back from a backup becomes a ledger.
type Restoration struct {
	Who  string // the person who does it, for the event
	Host string // where
	// Watch returns when every gpuqd that works with the ledger has written to it.
	Watch func(context.Context) error
	Now   func() job.Time
}

// Restored is what Restore did.
type Restored struct {
	Was, ID  string     // the ledger's ID before and after
	Sessions []string   // hosts whose sessions were ended
	Requeued []*job.Job // jobs that were claimed or running, as they are now
	Drained  []string   // hosts that the copy has drained, themselves or a device of theirs
}

// Restore makes another ledger of what a store holds, a copy of an earlier time.
// All that was handed out under the ledger of then is void: sessions, and with them
// the claims of the jobs that they hold, which go back to queued at no cost to
// them; no attempt of before can commit. The new ID comes last. So a call that was
// cut off has left the old one, and is made again; one that is repeated for nothing
// only gives another ID.
//
// Every gpuqd has to be stopped: ErrInUse where one is seen. ErrUnfit where the
// store holds no ledger, or one of another schema.
func Restore(ctx context.Context, store Store, o Restoration) (*Restored, error) {
	if err := store.Prepare(ctx); err != nil {
		return nil, fmt.Errorf("prepare the %s ledger: %w", store.Kind(), err)
	}
	was, err := readMeta(ctx, store)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: the %s store has no ledger in it: put the copy in its place first", ErrUnfit, store.Kind())
	}
	if err != nil {
		return nil, fmt.Errorf("identify the %s ledger: %w", store.Kind(), err)
	}
	l := &Ledger{store: store, id: was.LedgerID}
	hosts, err := l.watchIdle(ctx, was, o.Watch)
	if err != nil {
		return nil, err
	}
	done := &Restored{Was: was.LedgerID, ID: uuid.NewString()}
	for _, h := range hosts {
		if h.Drain != nil || len(h.DeviceDrains) > 0 {
			done.Drained = append(done.Drained, h.Name)
		}
		if h.Session.State != Live {
			continue
		}
		if err := l.EndSession(ctx, h.Name, h.Session.ID, h.Session.RenewSeq, Expired, endedByRestore); err != nil {
			return nil, l.unlessInUse(err, h.Name)
		}
		done.Sessions = append(done.Sessions, h.Name)
	}
	if done.Requeued, err = l.requeueHeld(ctx, o.Now()); err != nil {
		return nil, err
	}
	err = l.RecordEvent(ctx, Event{
		At: o.Now(), Host: o.Host, Who: o.Who, What: "restore_ledger", Target: "ledger",
		Why: fmt.Sprintf("put back from a backup: ledger %s is %s now; %d sessions ended, %d jobs queued again",
			done.Was, done.ID, len(done.Sessions), len(done.Requeued)),
	})
	if err != nil {
		return nil, err
	}
	return done, l.rename(ctx, done.ID, o.Now())
}

// endedByRestore stands in a session's ended_by, where others have a host's name.
const endedByRestore = "restore"

// watchIdle returns the hosts, if neither a session nor the ledger's last probe has
// changed under the watch. A gpuqd whose session is another here than it knows is
// refused each renewal, and probes.
func (l *Ledger) watchIdle(ctx context.Context, was meta, watch func(context.Context) error) ([]*Host, error) {
	before, err := l.HostList(ctx)
	if err != nil {
		return nil, err
	}
	if err := watch(ctx); err != nil {
		return nil, err
	}
	hosts, err := l.HostList(ctx)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]Session, len(before))
	for _, h := range before {
		seen[h.Name] = h.Session
	}
	for _, h := range hosts {
		if s := seen[h.Name]; s.ID != h.Session.ID || s.RenewSeq != h.Session.RenewSeq || s.State != h.Session.State {
			return nil, l.inUse(fmt.Sprintf("the session of host %s has changed", h.Name))
		}
	}
	now, err := readMeta(ctx, l.store)
	if err != nil {
		return nil, fmt.Errorf("identify the %s ledger: %w", l.Kind(), err)
	}
	if now != was {
		return nil, l.inUse("a gpuqd has probed it")
	}
	return hosts, nil
}

func (l *Ledger) inUse(sign string) error {
	return fmt.Errorf("%w: %s while it was watched: stop gpuqd on every host, put the copy in its place again, and repeat this", ErrInUse, sign)
}

// unlessInUse is the error of a write to a host's document.
func (l *Ledger) unlessInUse(err error, host string) error {
	if errors.Is(err, ErrNoMatch) {
		return l.inUse(fmt.Sprintf("the session of host %s has changed", host))
	}
	return err
}

// requeueHeld takes every claimed or running job from its claim.
func (l *Ledger) requeueHeld(ctx context.Context, now job.Time) ([]*job.Job, error) {
	held, err := l.Held(ctx)
	if err != nil {
		return nil, err
	}
	var done []*job.Job
	for _, j := range held {
		after, err := l.void(ctx, j, now)
		if err != nil {
			return nil, fmt.Errorf("queue job %s again: %w", j.ID, err)
		}
		done = append(done, after)
	}
	return done, nil
}

// void ends the claim of a job that was held when the ledger was copied. What has
// become of it since, nobody can say: no host was lost over it, and it costs the job
// nothing, not even one of its requeues.
func (l *Ledger) void(ctx context.Context, j *job.Job, now job.Time) (*job.Job, error) {
	h := Hold{JobID: j.ID, ClaimID: j.Owner.ClaimID, Fence: j.Fence, Host: j.Owner.Host}
	after, err := l.Commit(ctx, h, Commit{
		ID: "restore-" + j.Owner.ClaimID, Now: now,
		Verdict: job.Verdict{
			State:  job.Queued,
			Reason: fmt.Sprintf("the ledger was restored from a backup; what attempt %d on %s came to is not known to it", j.Attempt, j.Owner.Host),
		},
	})
	if errors.Is(err, ErrNoMatch) {
		return nil, l.inUse("the job was moved by somebody")
	}
	return after, err
}

// rename gives the ledger its new ID.
func (l *Ledger) rename(ctx context.Context, id string, now job.Time) error {
	_, err := l.store.Update(ctx, Meta, metaID, []Cond{{"ledger_id", Eq, l.id}},
		Update{Set: map[string]any{"ledger_id": id, "restored_at": now}})
	if err == nil {
		return nil
	}
	switch after, readErr := readMeta(ctx, l.store); {
	case readErr != nil:
		return fmt.Errorf("give the ledger its new ID: %w", errors.Join(err, readErr))
	case after.LedgerID == id:
		return nil
	case errors.Is(err, ErrNoMatch):
		return l.inUse("another restoration has given it an ID")
	}
	return fmt.Errorf("give the ledger its new ID: %w", err)
}

// CheckID returns ErrReplaced where the store no longer holds the ledger that was
// opened: it was restored, and this process knows things that are not true of it.
func (l *Ledger) CheckID(ctx context.Context) error {
	now, err := readMeta(ctx, l.store)
	if err != nil {
		return fmt.Errorf("identify the %s ledger: %w", l.Kind(), err)
	}
	if now.LedgerID != l.id {
		return fmt.Errorf("%w: ledger %s is %s now", ErrReplaced, l.id, now.LedgerID)
	}
	return nil
}
