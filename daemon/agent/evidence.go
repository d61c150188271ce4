package agent

import (
	"sync"
	"time"

	"gpuqd/daemon/job"
)

// evidence is what this host has learned of queues by taking from them. It
// answers one question: is the message of a queued job lost? Queues are in
// order, so it is when a message that came in well after it has been taken, or
// when a get found the queue empty twice, well apart. A depth of 0 says nothing:
// a queue without a leader shows it, too.
type evidence struct {
	slack time.Duration

	mu     sync.Mutex
	queues map[string]sighted
}

// sighted is what was learned of one queue.
type sighted struct {
	newest job.Time  // latest enqueue time among the messages taken
	looked time.Time // last get, whatever it brought
	// First and last of the newest row of empty gets that spans a slack, or is
	// about to; zero when the last get brought a message.
	emptyFirst, emptyLast time.Time
}

func newEvidence(slack time.Duration) *evidence {
	return &evidence{slack: slack, queues: map[string]sighted{}}
}

func (e *evidence) taken(queue string, enqueuedAt job.Time, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.queues[queue]
	// A stamp from the future is of a clock that is wrong: it proves nothing.
	if enqueuedAt.After(s.newest.Time) && !enqueuedAt.After(now) {
		s.newest = enqueuedAt
	}
	s.looked, s.emptyFirst, s.emptyLast = now, time.Time{}, time.Time{}
	e.queues[queue] = s
}

func (e *evidence) empty(queue string, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.queues[queue]
	switch {
	case s.emptyFirst.IsZero():
		s.emptyFirst = now
	case s.emptyLast.Sub(s.emptyFirst) >= e.slack:
		s.emptyFirst = s.emptyLast // the row goes on for jobs that enter later
	}
	s.looked, s.emptyLast = now, now
	e.queues[queue] = s
}

// stale reports whether nobody here has looked into the queue for a slack.
func (e *evidence) stale(queue string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return now.Sub(e.queues[queue].looked) >= e.slack
}

// lostBefore returns the time before which the message of a job must have
// entered the queue to be lost, if the job is still queued. It is zero where
// nothing proves that of any message.
func (e *evidence) lostBefore(queue string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.queues[queue]
	var bound time.Time
	if !s.newest.IsZero() {
		bound = s.newest.Add(-e.slack)
	}
	if s.emptyLast.Sub(s.emptyFirst) >= e.slack && s.emptyFirst.After(bound) {
		bound = s.emptyFirst
	}
	return bound
}

// lost reports whether the message of a job that entered the queue at the given
// time cannot be in it any more.
func (e *evidence) lost(queue string, entered job.Time) bool {
	return e.lostBefore(queue).After(entered.Time)
}
