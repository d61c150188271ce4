package ledger

import (
	"context"
	"fmt"
	"time"

	"gpuqd/daemon/job"
)

// JobFilter selects jobs for a list.
type JobFilter struct {
	States    []job.State // empty: all
	Submitter string      // "": all
	Since     job.Time    // submitted at this time or later; zero: all
	Limit     int
}

// JobList returns the jobs of the filter, newest first, without their history.
func (l *Ledger) JobList(ctx context.Context, f JobFilter) ([]*job.Job, error) {
	q := Query{Sort: "submitted_at", Desc: true, Limit: f.Limit, Without: []string{"history"}}
	if len(f.States) > 0 {
		q.When = append(q.When, Cond{"state", In, stateNames(f.States)})
	}
	if f.Submitter != "" {
		q.When = append(q.When, Cond{"submitter", Eq, f.Submitter})
	}
	if !f.Since.IsZero() {
		// Stored times have microseconds, so just before means at or after.
		q.When = append(q.When, Cond{"submitted_at", Gt, job.At(f.Since.Add(-time.Microsecond)).String()})
	}
	return l.jobs(ctx, "list jobs", q)
}

// JobsByID returns those of the named jobs that exist, in no order, without
// their history.
func (l *Ledger) JobsByID(ctx context.Context, ids []job.ID) ([]*job.Job, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return l.jobs(ctx, "read jobs", Query{When: []Cond{{"id", In, names}}, Without: []string{"history"}})
}

// Held returns every claimed or running job, without history and result.
func (l *Ledger) Held(ctx context.Context) ([]*job.Job, error) {
	return l.jobs(ctx, "list held jobs", Query{
		When:    []Cond{{"state", In, stateNames([]job.State{job.Claimed, job.Running})}},
		Without: []string{"history", "result"},
	})
}

// HeldBy returns the jobs that a session holds.
func (l *Ledger) HeldBy(ctx context.Context, session string) ([]*job.Job, error) {
	return l.jobs(ctx, "list own jobs", Query{When: []Cond{
		{"owner.session", Eq, session},
		{"state", In, stateNames([]job.State{job.Claimed, job.Running})},
	}})
}

// Overdue returns the queued and retrying jobs of a queue whose message was last
// promised to it before the given time, oldest first.
func (l *Ledger) Overdue(ctx context.Context, queue string, before job.Time, limit int) ([]*job.Job, error) {
	return l.jobs(ctx, "list overdue jobs", Query{
		When: []Cond{
			{"queue", Eq, queue},
			{"state", In, stateNames([]job.State{job.Queued, job.Retrying})},
			{"published_at", Lt, before.String()},
		},
		Sort: "published_at", Limit: limit, Without: []string{"history", "result"},
	})
}

// Ahead counts the queued jobs of a queue whose message was promised to it before
// the given time, the zero time for all of them, up to limit; more says that there
// are further ones. It reads little more than their IDs.
func (l *Ledger) Ahead(ctx context.Context, queue string, before job.Time, limit int) (n int, more bool, err error) {
	q := Query{
		When:    []Cond{{"queue", Eq, queue}, {"state", Eq, string(job.Queued)}},
		Limit:   limit + 1,
		Without: []string{"spec", "history", "result", "owner", "kill", "reason"},
	}
	if !before.IsZero() {
		q.When = append(q.When, Cond{"published_at", Lt, before.String()})
	}
	docs, err := l.store.Find(ctx, Jobs, q)
	if err != nil {
		return 0, false, fmt.Errorf("count the jobs of queue %s: %w", queue, err)
	}
	return min(len(docs), limit), len(docs) > limit, nil
}

// Unfinished counts the jobs that are not over, by state, each up to a limit. It reads
// little more than their IDs.
func (l *Ledger) Unfinished(ctx context.Context, limit int) (map[job.State]int, error) {
	counts := map[job.State]int{}
	for _, state := range job.States {
		if state.Terminal() {
			continue
		}
		docs, err := l.store.Find(ctx, Jobs, Query{
			When: []Cond{{"state", Eq, string(state)}}, Limit: limit,
			Without: []string{"spec", "history", "result", "owner", "kill", "hold", "reason"},
		})
		if err != nil {
			return nil, fmt.Errorf("count the jobs that are %s: %w", state, err)
		}
		counts[state] = len(docs)
	}
	return counts, nil
}

// FromFuture returns queued and retrying jobs whose published_at is later than
// the given time: a host's clock was ahead, and nobody would look after them for
// as long.
func (l *Ledger) FromFuture(ctx context.Context, after job.Time, limit int) ([]*job.Job, error) {
	return l.jobs(ctx, "list jobs from the future", Query{
		When: []Cond{
			{"state", In, stateNames([]job.State{job.Queued, job.Retrying})},
			{"published_at", Gt, after.String()},
		},
		Sort: "published_at", Limit: limit, Without: []string{"history", "result"},
	})
}

// ExpiredBy returns jobs that may no longer start at the given time.
func (l *Ledger) ExpiredBy(ctx context.Context, now job.Time, limit int) ([]*job.Job, error) {
	return l.jobs(ctx, "list expired jobs", Query{
		When: []Cond{
			{"state", In, stateNames([]job.State{job.Waiting, job.Queued, job.Retrying})},
			{"expires_at", Lt, now.String()},
			{"expires_at", Gt, ""},
		},
		Limit: limit,
	})
}

func (l *Ledger) jobs(ctx context.Context, what string, q Query) ([]*job.Job, error) {
	docs, err := l.store.Find(ctx, Jobs, q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return decodeAll[job.Job](docs)
}

func stateNames(states []job.State) []string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return names
}
