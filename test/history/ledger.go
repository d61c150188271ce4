package history

import (
	"gpuqd/daemon/job"
)

// lost: a confirmed job is over at the end. That it is over once is twoEnds.
func (b *book) lost(t *trace) {
	if t.submitted == nil {
		return
	}
	var last *Event
	if n := len(t.steps); n > 0 {
		last = t.steps[n-1].Event
	}
	switch doc := b.end.Jobs[t.id]; {
	case doc == nil:
		b.report(Lost, t, "", []*Event{t.submitted, last}, "it was confirmed, and the ledger has no such job")
	case !doc.State.Terminal():
		b.report(Lost, t, "", []*Event{t.submitted, last}, "it was confirmed, and is %s at the end: %q", doc.State, doc.Reason)
	}
}

// rolledBack: nothing that was written has vanished from the document.
func (b *book) rolledBack(t *trace) {
	doc := b.end.Jobs[t.id]
	if doc == nil || len(t.steps) == 0 {
		return
	}
	last := t.steps[len(t.steps)-1]
	if doc.State != last.State || doc.Fence != last.Fence || doc.Attempt != last.Attempt {
		b.report(RolledBack, t, last.Host, []*Event{last.Event}, "at the end it is %s, attempt %d, fence %d; its last transition says %s, %d, %d",
			doc.State, doc.Attempt, doc.Fence, last.State, last.Attempt, last.Fence)
	}
}

// repeated returns the earlier transition by the same write, nil where there is
// none.
func (t *trace) repeated(i int) *Event {
	id := t.steps[i].ID
	if id == "" {
		return nil
	}
	for _, s := range t.steps[:i] {
		if s.ID == id {
			return s.Event
		}
	}
	return nil
}

// committedTwice: whatever is repeated after an unknown outcome, a write takes
// effect once.
func (b *book) committedTwice(t *trace) {
	for i := range t.steps {
		if earlier := t.repeated(i); earlier != nil {
			b.report(CommittedTwice, t, t.steps[i].Host, []*Event{earlier, t.steps[i].Event}, "write %s took effect twice", t.steps[i].ID)
		}
	}
}

// endsAgain reports whether a transition ends a job that was over, by another
// write than the one that ended it.
func (t *trace) endsAgain(i int) bool {
	s := t.steps[i]
	return s.from.Terminal() && s.State.Terminal() && t.repeated(i) == nil
}

// twoEnds: a job that is over stays as it ended.
func (b *book) twoEnds(t *trace) {
	for i := range t.steps {
		if t.endsAgain(i) {
			b.report(TwoEnds, t, t.steps[i].Host, []*Event{t.ended(), t.steps[i].Event}, "it was %s and became %s", t.steps[i].from, t.steps[i].State)
		}
	}
}

// stale reports whether a transition is an owner's write that another claim, or
// the end of its own, should have kept out.
func (t *trace) stale(i int) bool {
	s := t.steps[i]
	owner, ok := ownerOf(s.ID)
	if !ok || s.claim < 0 || t.repeated(i) != nil || t.endsAgain(i) {
		return false
	}
	c := &t.claims[s.claim]
	return owner != c.start.Claim || c.over(s.pos)
}

// staleCommit: only the claim with the highest fence writes, and only until it
// ends.
func (b *book) staleCommit(t *trace) {
	for i := range t.steps {
		if s := t.steps[i]; t.stale(i) {
			c := t.claims[s.claim]
			b.report(StaleCommit, t, s.Host, []*Event{c.start.Event, c.end.Event, s.Event},
				"%s took effect, and the last claim was %s of %s under fence %d", s.ID, c.start.Claim, c.start.Host, c.start.Fence)
		}
	}
}

// fenceBroken: each claim raises the fence by one and the attempt, and nothing
// else moves the fence.
func (b *book) fenceBroken(t *trace) {
	var fence int64
	attempt := 0
	for i := range t.steps {
		s := t.steps[i]
		want := fence
		if s.State == job.Claimed && t.repeated(i) == nil {
			want++
			if s.Attempt <= attempt {
				b.report(FenceBroken, t, s.Host, []*Event{s.Event}, "it was claimed as attempt %d after attempt %d", s.Attempt, attempt)
			}
			attempt = max(attempt, s.Attempt)
		}
		if s.Fence != want {
			b.report(FenceBroken, t, s.Host, []*Event{s.Event}, "its fence became %d, want %d", s.Fence, want)
		}
		fence = max(fence, s.Fence)
	}
}

// illegalTransition: the table of states holds.
func (b *book) illegalTransition(t *trace) {
	for i, s := range t.steps {
		from := s.from
		if i == 0 {
			if s.State == job.Queued || s.State == job.Waiting {
				continue
			}
			from = job.Queued // a source that did not see the insert
		}
		if job.Allowed(from, s.State) || t.repeated(i) != nil || t.endsAgain(i) || t.stale(i) {
			continue
		}
		var before *Event
		if i > 0 {
			before = t.steps[i-1].Event
		}
		b.report(IllegalTransition, t, s.Host, []*Event{before, s.Event}, "no job goes from %s to %s", from, s.State)
	}
}

// needlessRepublish: nothing is published anew that is not lost.
func (b *book) needlessRepublish(t *trace) {
	for _, m := range t.messages {
		if m.Kind == Republished && m.Needless {
			b.report(NeedlessRepublish, t, m.Host, []*Event{m.Event}, "its message was ready in its queue all the time")
		}
	}
}
