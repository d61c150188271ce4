package history

import (
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// book is a history in the order in which it is judged: by job.
type book struct {
	end    End
	rules  Rules
	traces []*trace // in the order of their first events
	pauses []pause
	drains []drain
	// releases are the sessions that their own hosts released.
	releases []fact
	last     time.Time // the end of the observation

	size      int    // number of events
	broken    []fact // the Fault events
	faults    int
	calm      time.Time // the last of Fault, Healed and Undrained; zero without any
	published bool      // whether the source of the history sees Published at all

	found []Violation
}

// trace is all that happened to one job.
type trace struct {
	id        job.ID
	submitted *Event
	steps     []step
	claims    []claim
	messages  []fact // of the broker, and Republished
	holds     []hold
	runs      []execution
}

// fact is an event and its place in the history. Places, not times, tell which of
// two events came first.
type fact struct {
	pos int
	*Event
}

// step is a transition.
type step struct {
	fact
	from  job.State // "" for the first
	claim int       // index of the last claim before it; -1 for none
}

// claim is a stretch in which one owner held the job.
type claim struct {
	start fact
	end   fact // the transition out of it; its Event is nil while it lasts
}

// over reports whether the claim had ended at a place in the history.
func (c claim) over(pos int) bool { return c.end.Event != nil && c.end.pos < pos }

// execution is one run of the payload of one attempt.
type execution struct {
	began    fact
	finished fact   // its Event is nil while it lasts
	halts    []fact // Halted and Went, in their order
}

// hold is a time in which a person relies on it that the job waits.
type hold struct {
	from fact
	to   fact // its Event is nil while it lasts
}

// pause is a time in which a host stood still.
type pause struct {
	host     string
	from, to time.Time
	open     bool
}

func newBook(events []Event, end End, rules Rules) *book {
	b := &book{end: end, rules: rules, last: rules.Deadline, size: len(events)}
	index := make(map[job.ID]*trace, 8)
	for i := range events {
		f := fact{i, &events[i]}
		if f.Job == "" {
			b.note(f)
			continue
		}
		t := index[f.Job]
		if t == nil {
			t = &trace{id: f.Job}
			index[f.Job] = t
			b.traces = append(b.traces, t)
		}
		t.note(b, f)
	}
	if n := len(events); n > 0 && events[n-1].At.After(b.last) {
		b.last = events[n-1].At
	}
	for i := range b.pauses {
		if b.pauses[i].open {
			b.pauses[i].to = b.last
		}
	}
	return b
}

// note takes in an event that concerns no single job.
func (b *book) note(f fact) {
	switch f.Kind {
	case Fault:
		b.broken = append(b.broken, f)
		b.faults++
		b.calm = f.At
	case Healed:
		b.calm = f.At
	case Drained:
		b.drains = append(b.drains, drain{from: f})
	case Learnt:
		b.learn(f)
	case Undrained:
		b.calm = f.At
		b.undrain(f)
	case SessionReleased:
		b.releases = append(b.releases, f)
	case Paused:
		b.pauses = append(b.pauses, pause{host: f.Host, from: f.At, open: true})
	case Resumed:
		b.resume(f)
	}
}

// resume ends a host's pause. A payload that begins shows as much: a host that
// was paused, lost and booted does not say that it was resumed.
func (b *book) resume(f fact) {
	for i := range b.pauses {
		if p := &b.pauses[i]; p.open && p.host == f.Host {
			p.to, p.open = f.At, false
		}
	}
}

// note takes in an event of the job.
func (t *trace) note(b *book, f fact) {
	switch f.Kind {
	case Submitted:
		if t.submitted == nil {
			t.submitted = f.Event
		}
	case Changed:
		t.change(f)
	case Published:
		b.published = true
		t.messages = append(t.messages, f)
	case Taken, Acked, Returned, SetAside, Republished:
		t.messages = append(t.messages, f)
	case Held:
		t.holds = append(t.holds, hold{from: f})
	case Released:
		if n := len(t.holds); n > 0 && t.holds[n-1].to.Event == nil {
			t.holds[n-1].to = f
		}
	case Began:
		b.resume(f)
		t.runs = append(t.runs, execution{began: f})
	case Halted, Went, Finished:
		t.goOn(f)
	}
}

func (t *trace) change(f fact) {
	s := step{fact: f, claim: len(t.claims) - 1}
	if n := len(t.steps); n > 0 {
		s.from = t.steps[n-1].State
	}
	t.steps = append(t.steps, s)
	if s.claim >= 0 && f.State != job.Running {
		if c := &t.claims[s.claim]; c.end.Event == nil {
			c.end = f
		}
	}
	if f.State == job.Claimed {
		t.claims = append(t.claims, claim{start: f})
	}
}

// goOn adds to the last execution of the attempt on the host that goes on.
func (t *trace) goOn(f fact) {
	for i := len(t.runs) - 1; i >= 0; i-- {
		r := &t.runs[i]
		if r.finished.Event != nil || r.began.Attempt != f.Attempt || r.began.Host != f.Host {
			continue
		}
		if f.Kind == Finished {
			r.finished = f
		} else {
			r.halts = append(r.halts, f)
		}
		return
	}
}

// claimOf returns the claim of an attempt on a host, nil where there is none.
func (t *trace) claimOf(attempt int, host string) *claim {
	for i := len(t.claims) - 1; i >= 0; i-- {
		if c := &t.claims[i]; c.start.Attempt == attempt && c.start.Host == host {
			return c
		}
	}
	return nil
}

// ended returns the first transition into a terminal state, nil where there is
// none.
func (t *trace) ended() *Event {
	for i := range t.steps {
		if t.steps[i].State.Terminal() {
			return t.steps[i].Event
		}
	}
	return nil
}

// excuse returns until when a host may be unaware that a claim of it ended,
// because it was itself paused; zero where no pause explains that.
func (b *book) excuse(c *claim) (until time.Time) {
	if c == nil || c.end.Event == nil {
		return until
	}
	for _, p := range b.pauses {
		if p.host != c.start.Host || p.from.After(c.end.At) || p.to.Before(c.start.At) {
			continue
		}
		if t := p.to.Add(max(b.rules.Contact, b.rules.Tick)); t.After(until) {
			until = t
		}
	}
	return until
}

// Prefixes of the identities of writes, as package agent makes them. What follows
// that of an owner is the claim's.
const takeoverPrefix = "takeover-"

var ownerPrefixes = [...]string{"commit-", "release-", "start-"}

// ownerOf returns the claim whose owner made the write of an identity.
func ownerOf(id string) (claim string, ok bool) {
	for _, p := range ownerPrefixes {
		if claim, ok = strings.CutPrefix(id, p); ok {
			return claim, true
		}
	}
	return "", false
}
