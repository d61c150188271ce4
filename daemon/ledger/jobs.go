package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gpuqd/daemon/job"
)

// Errors of the protocol.
var (
	// ErrConflict: the ID is taken by another spec or another submitter.
	ErrConflict = errors.New("the job ID is taken")
	// ErrTerminal: the job is over, nothing can be changed.
	ErrTerminal = errors.New("the job is over")
)

// Submit inserts a new job; this confirms the submission. It is idempotent: if
// the job is there already with the same spec and submitter, Submit returns it
// and false. It returns ErrConflict for another spec or submitter.
func (l *Ledger) Submit(ctx context.Context, j *job.Job) (stored *job.Job, created bool, err error) {
	err = l.store.Insert(ctx, Jobs, string(j.ID), mustJSON(j))
	if err == nil {
		return j, true, nil
	}
	// It exists, or the outcome is unknown: either way the document decides.
	stored, readErr := l.Job(ctx, j.ID)
	if readErr != nil {
		return nil, false, fmt.Errorf("insert job %s: %w", j.ID, errors.Join(err, readErr))
	}
	if stored.SpecHash != j.SpecHash || stored.Submitter != j.Submitter {
		return nil, false, fmt.Errorf("%w: %s belongs to another spec or submitter: choose a new ID or key", ErrConflict, j.ID)
	}
	// After an unknown outcome the insert may have been this one: whoever must
	// act on a new job, acts.
	return stored, !errors.Is(err, ErrExists), nil
}

// Job returns a job by a linearizable read. ErrNotFound if there is none.
func (l *Ledger) Job(ctx context.Context, id job.ID) (*job.Job, error) {
	doc, err := l.store.Get(ctx, Jobs, string(id))
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("the ledger has no job %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", id, err)
	}
	return decode[job.Job](doc)
}

// step is one transition of one job.
type step struct {
	id    job.ID
	opID  string // identity of the write, for reading back
	from  []job.State
	to    job.State
	when  []Cond
	set   map[string]any
	inc   map[string]int64
	entry job.Change // the history row; state and identity are filled in
}

// transition performs one compare-and-set. It returns the document as it is
// after; with ErrNoMatch, the document that refused.
func (l *Ledger) transition(ctx context.Context, s step) (*job.Job, error) {
	states := make([]string, len(s.from))
	for i, from := range s.from {
		if !job.Allowed(from, s.to) {
			panic(fmt.Sprintf("no transition from %s to %s", from, s.to))
		}
		states[i] = string(from)
	}
	s.entry.ID, s.entry.State = s.opID, s.to
	set := map[string]any{"state": s.to, "reason": s.entry.Reason}
	for field, value := range s.set {
		set[field] = value
	}
	when := append([]Cond{{"state", In, states}}, s.when...)
	doc, err := l.store.Update(ctx, Jobs, string(s.id), when,
		Update{Set: set, Inc: s.inc, Push: map[string]any{"history": s.entry}})
	if err == nil {
		return decode[job.Job](doc)
	}
	return l.readBack(ctx, s, err)
}

// readBack settles a write that did not match, which an earlier call may have
// applied, or whose outcome is unknown.
func (l *Ledger) readBack(ctx context.Context, s step, cause error) (*job.Job, error) {
	current, err := l.Job(ctx, s.id)
	switch {
	case err != nil && errors.Is(cause, ErrNoMatch):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("move job %s to %s: %w", s.id, s.to, errors.Join(cause, err))
	case current.Wrote(s.opID):
		return current, nil
	case errors.Is(cause, ErrNoMatch):
		return current, ErrNoMatch
	}
	return nil, fmt.Errorf("move job %s to %s: %w", s.id, s.to, cause)
}

// Claim is a host's bid for a job.
type Claim struct {
	JobID   job.ID
	Host    string
	Session string
	ClaimID string // fresh for each bid; the same again after an unknown outcome
	Devices []string
	Now     job.Time
	Slack   time.Duration // a retrying job may be claimed so long before it is due
}

// Claim gives the job to the session: fence and attempt grow by one. The job
// must be queued, or retrying and due, and nobody may have asked to kill it.
// With ErrNoMatch it returns the document that refused, by a linearizable read.
func (l *Ledger) Claim(ctx context.Context, c Claim) (*job.Job, error) {
	bid := step{
		id: c.JobID, opID: c.ClaimID, from: []job.State{job.Queued}, to: job.Claimed,
		when: []Cond{{"kill", Eq, nil}},
		set: map[string]any{"owner": job.Owner{
			Host: c.Host, Session: c.Session, ClaimID: c.ClaimID, Devices: c.Devices, ClaimedAt: c.Now,
		}},
		inc:   map[string]int64{"attempt": 1, "fence": 1},
		entry: job.Change{At: c.Now, Host: c.Host, Reason: "claimed by " + c.Host},
	}
	current, err := l.transition(ctx, bid)
	if errors.Is(err, ErrNoMatch) && current.State == job.Retrying {
		due := job.At(c.Now.Add(c.Slack))
		bid.from = []job.State{job.Retrying}
		bid.when = append(bid.when, Cond{"not_before", Lte, due.String()})
		current, err = l.transition(ctx, bid)
	}
	if err == nil && (!current.State.Held() || current.Owner == nil || current.Owner.ClaimID != c.ClaimID) {
		return current, ErrNoMatch // it was made, and taken over before it was read back
	}
	return current, err
}

// Hold names a claim; only its owner knows it. Writes under a Hold fail once
// the job has another owner.
type Hold struct {
	JobID   job.ID
	ClaimID string
	Fence   int64
	Host    string
}

func (h Hold) conds() []Cond {
	return []Cond{{"owner.claim_id", Eq, h.ClaimID}, {"fence", Eq, h.Fence}}
}

// Start records that the claimed job's command runs. The returned document says
// whether somebody asked to kill the job meanwhile.
func (l *Ledger) Start(ctx context.Context, h Hold, now job.Time) (*job.Job, error) {
	current, err := l.transition(ctx, step{
		id: h.JobID, opID: "start-" + h.ClaimID, from: []job.State{job.Claimed}, to: job.Running,
		when:  h.conds(),
		set:   map[string]any{"owner.running": now},
		entry: job.Change{At: now, Host: h.Host, Reason: "running on " + h.Host},
	})
	if err == nil && !h.owns(current) {
		return current, ErrNoMatch // it was recorded, and the job has moved on since
	}
	return current, err
}

// Commit is the end of an attempt, or of a claim that was never started.
type Commit struct {
	ID      string // the same again after an unknown outcome
	Verdict job.Verdict
	Result  *job.Result // nil for a claim that is released
	Now     job.Time
}

// Commit ends the attempt under h: it writes the result and moves the job to
// the verdict's state. A retry or requeue of a job that somebody asked to kill
// becomes killed. With ErrNoMatch the job is no longer the holder's: the result
// must be discarded.
func (l *Ledger) Commit(ctx context.Context, h Hold, c Commit) (*job.Job, error) {
	current, err := l.transition(ctx, commitStep(h, c))
	again := c.Verdict.State == job.Queued || c.Verdict.State == job.Retrying
	if errors.Is(err, ErrNoMatch) && again && current.Kill != nil && h.owns(current) {
		c.Verdict.State = job.Killed
		c.Verdict.Class = job.ClassKilled
		c.Verdict.Reason = current.Kill.Reason
		if c.Result == nil {
			c.Result = &job.Result{Attempt: current.Attempt, Host: h.Host, ExitCode: -1, Reason: current.Kill.Reason, EndedAt: c.Now}
		}
		return l.transition(ctx, commitStep(h, c))
	}
	return current, err
}

func (h Hold) owns(j *job.Job) bool {
	return j.State.Held() && j.Owner != nil && j.Owner.ClaimID == h.ClaimID && j.Fence == h.Fence
}

func commitStep(h Hold, c Commit) step {
	v := c.Verdict
	s := step{
		id: h.JobID, opID: c.ID, from: []job.State{job.Claimed, job.Running}, to: v.State,
		when: h.conds(),
		set:  map[string]any{"owner": nil, "commit_id": c.ID, "not_before": job.Time{}},
		inc: map[string]int64{
			"failures": int64(v.Failures), "requeues": int64(v.Requeues), "lost": int64(v.Lost),
		},
		entry: job.Change{At: c.Now, Host: h.Host, Class: v.Class, Reason: v.Reason},
	}
	if c.Result != nil {
		result := *c.Result
		result.Outcome, result.Class = v.State, v.Class
		s.set["result"] = result
	}
	if v.State == job.Queued || v.State == job.Retrying {
		s.when = append(s.when, Cond{"kill", Eq, nil})
		s.set["published_at"] = c.Now
	}
	if v.State == job.Retrying {
		s.set["not_before"] = job.At(c.Now.Add(v.Delay))
	}
	return s
}

// Takeover requeues a held job whose session is no longer live, at no cost to
// its attempts, or ends it where its caps or a kill say so. The compare-and-set
// is on the document as it was read: state, fence and session.
func (l *Ledger) Takeover(ctx context.Context, j *job.Job, by, opID string, now job.Time) (*job.Job, error) {
	if !j.State.Held() || j.Owner == nil {
		return j, ErrNoMatch
	}
	v := job.Decide(j.Spec, job.Ended{
		Class: job.ClassHostLost, Requeues: j.Requeues, Lost: j.Lost, Started: j.State == job.Running,
	})
	if v.Reason == "" {
		v.Reason = fmt.Sprintf("host %s was lost; requeued by %s", j.Owner.Host, by)
	}
	if j.Kill != nil {
		v = job.Verdict{State: job.Killed, Class: job.ClassKilled, Reason: j.Kill.Reason}
	}
	h := Hold{JobID: j.ID, ClaimID: j.Owner.ClaimID, Fence: j.Fence, Host: j.Owner.Host}
	s := commitStep(h, Commit{ID: opID, Verdict: v, Now: now, Result: &job.Result{
		Attempt: j.Attempt, Host: j.Owner.Host, ExitCode: -1, Reason: v.Reason,
		StartedAt: j.Owner.Running, EndedAt: now, Devices: j.Owner.Devices,
	}})
	s.from = []job.State{j.State}
	s.when = append(s.when, Cond{"owner.session", Eq, j.Owner.Session})
	return l.transition(ctx, s)
}

// killTries bounds the turns of Kill: each is lost only to a transition of the
// job by somebody else.
const killTries = 8

// Kill ends a job that nobody holds, or flags a held one for its owner to stop;
// the document says which. It returns ErrTerminal, with the document, for a job
// that is over.
func (l *Ledger) Kill(ctx context.Context, id job.ID, k job.Kill) (*job.Job, error) {
	for range killTries {
		current, err := l.transition(ctx, step{
			id: id, opID: k.ID, from: []job.State{job.Waiting, job.Queued, job.Retrying}, to: job.Killed,
			set: map[string]any{"kill": k, "hold": nil, "result": job.Result{
				Outcome: job.Killed, Class: job.ClassKilled, ExitCode: -1, Reason: k.Reason, EndedAt: k.At,
			}},
			entry: job.Change{At: k.At, Class: job.ClassKilled, Reason: k.Reason},
		})
		if !errors.Is(err, ErrNoMatch) {
			return current, err
		}
		switch {
		case current.State.Terminal():
			return current, ErrTerminal
		case current.Kill != nil:
			return current, nil
		}
		doc, err := l.store.Update(ctx, Jobs, string(id),
			[]Cond{{"state", In, []string{string(job.Claimed), string(job.Running)}}, {"kill", Eq, nil}},
			Update{Set: map[string]any{"kill": k}})
		if err == nil {
			return decode[job.Job](doc)
		}
		if !errors.Is(err, ErrNoMatch) {
			return nil, fmt.Errorf("flag job %s to be killed: %w", id, err)
		}
	}
	return nil, fmt.Errorf("kill job %s: it changed state %d times meanwhile; try again", id, killTries)
}

// End moves a job that nobody holds to dead: expired, poison or refused.
func (l *Ledger) End(ctx context.Context, id job.ID, class job.Class, reason, opID string, now job.Time) (*job.Job, error) {
	return l.transition(ctx, step{
		id: id, opID: opID, from: []job.State{job.Waiting, job.Queued, job.Retrying}, to: job.Dead,
		set: map[string]any{"hold": nil, "result": job.Result{
			Outcome: job.Dead, Class: class, ExitCode: -1, Reason: reason, EndedAt: now,
		}},
		entry: job.Change{At: now, Class: class, Reason: reason},
	})
}

// Republish wins the right to publish a queued or retrying job again: the
// compare-and-set is on published_at, so of several sweepers one publishes. A
// published_at from the future came from a clock that was ahead, which put the
// due time of a retry off by as much: it is moved along. lost says that the
// message was found to be lost; else its publication was only cut off.
func (l *Ledger) Republish(ctx context.Context, j *job.Job, lost bool, now job.Time) error {
	set := map[string]any{"published_at": now}
	if ahead := j.PublishedAt.Sub(now.Time); ahead > 0 && !j.NotBefore.IsZero() {
		set["not_before"] = job.At(j.NotBefore.Add(-ahead))
	}
	u := Update{Set: set}
	if lost {
		u.Inc = map[string]int64{"republished": 1}
	}
	_, err := l.store.Update(ctx, Jobs, string(j.ID),
		[]Cond{{"state", Eq, string(j.State)}, {"published_at", Eq, j.PublishedAt.String()}}, u)
	if err != nil {
		return fmt.Errorf("republish job %s: %w", j.ID, err)
	}
	return nil
}
