package ledger

import (
	"context"
	"errors"
	"fmt"

	"gpuqd/daemon/job"
)

// holdTries bounds the turns of Park and Unpark: each is lost only to a
// transition of the job by somebody else.
const holdTries = 8

// Park moves a queued or retrying job to waiting, held by a person; what a retry
// still had to wait is dropped. A job that is held already is returned as it is.
// So is one that this very hold parked earlier, wherever it is by now. It returns
// ErrNoMatch, with the document, for a claimed or running job, and ErrTerminal,
// with the document, for one that is over.
func (l *Ledger) Park(ctx context.Context, id job.ID, h job.Hold) (*job.Job, error) {
	reason := "held by " + h.Who
	if h.Reason != "" {
		reason += ": " + h.Reason
	}
	for range holdTries {
		current, err := l.Job(ctx, id)
		switch {
		case err != nil:
			return nil, err
		case current.Wrote(h.ID), current.State == job.Waiting && current.Hold != nil:
			return current, nil
		case current.State.Terminal():
			return current, ErrTerminal
		case current.State != job.Queued && current.State != job.Retrying:
			return current, ErrNoMatch
		}
		current, err = l.transition(ctx, step{
			id: id, opID: h.ID, from: []job.State{current.State}, to: job.Waiting,
			// As it was read: a hold that was released is not made again.
			when:  []Cond{{"published_at", Eq, current.PublishedAt.String()}},
			set:   map[string]any{"hold": h, "not_before": job.Time{}},
			entry: job.Change{At: h.At, Reason: reason},
		})
		if !errors.Is(err, ErrNoMatch) {
			return current, err
		}
	}
	return nil, fmt.Errorf("hold job %s: it changed state %d times meanwhile; try again", id, holdTries)
}

// Unpark moves a job that a person holds back to queued; whoever called publishes
// it. A job that nobody holds is returned as it is. released says that this call,
// or an earlier one of the same opID, did it.
func (l *Ledger) Unpark(ctx context.Context, id job.ID, opID, who string, now job.Time) (j *job.Job, released bool, err error) {
	for range holdTries {
		current, err := l.Job(ctx, id)
		switch {
		case err != nil:
			return nil, false, err
		case current.Wrote(opID):
			return current, true, nil
		case current.State != job.Waiting || current.Hold == nil:
			return current, false, nil
		}
		current, err = l.transition(ctx, step{
			id: id, opID: opID, from: []job.State{job.Waiting}, to: job.Queued,
			when:  []Cond{{"hold.id", Eq, current.Hold.ID}},
			set:   map[string]any{"hold": nil, "published_at": now},
			entry: job.Change{At: now, Reason: "released by " + who},
		})
		if !errors.Is(err, ErrNoMatch) {
			return current, err == nil, err
		}
	}
	return nil, false, fmt.Errorf("release job %s: it changed state %d times meanwhile; try again", id, holdTries)
}
