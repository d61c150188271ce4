package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
)

// runs are the jobs that this daemon works on, from the claim to the commit, by
// claim ID; with the claims under way and the devices promised to them.
type runs struct {
	mu       sync.Mutex
	byID     map[string]*run
	claims   map[string]*bidding // by claim ID, between the bid and its answer
	promised map[string]promised // by device UUID, to takes under way
	slots    int                 // attempts without a device, and takes under way for them
	changed  chan struct{}       // closed and replaced when a run is removed, or a claim ends
}

func newRuns() *runs {
	return &runs{
		byID: map[string]*run{}, claims: map[string]*bidding{}, promised: map[string]promised{},
		changed: make(chan struct{}),
	}
}

func (s *runs) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}

// all returns the runs by job and fence.
func (s *runs) all() []*run {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*run, 0, len(s.byID))
	for _, r := range s.byID {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *run) int {
		return cmp.Or(cmp.Compare(a.hold.JobID, b.hold.JobID), cmp.Compare(a.hold.Fence, b.hold.Fence))
	})
	return list
}

// add registers a run. One that comes of a claim under way has the delivery that
// the claim holds by now.
func (s *runs) add(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.claims[r.hold.ClaimID]; b != nil {
		r.tag, b.tag = b.tag, broker.Tag{}
	}
	s.byID[r.hold.ClaimID] = r
}

func (s *runs) remove(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, r.hold.ClaimID)
	s.signal()
}

// signal wakes who waits for a change; s.mu is held.
func (s *runs) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// idle reports whether there is neither a run nor a claim under way, and returns
// what is closed at the next change of that.
func (s *runs) idle() (idle bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID) == 0 && len(s.claims) == 0, s.changed
}

func (s *runs) byClaim(claimID string) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[claimID]
}

// ofJob returns the run of a job, the latest where an earlier one is not closed
// yet.
func (s *runs) ofJob(id job.ID) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	var latest *run
	for _, r := range s.byID {
		if r.hold.JobID == id && (latest == nil || r.hold.Fence > latest.hold.Fence) {
			latest = r
		}
	}
	return latest
}

// waitEmpty returns when there is no run left.
func (s *runs) waitEmpty(ctx context.Context) error {
	for {
		s.mu.Lock()
		n, changed := len(s.byID), s.changed
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		wake := rest(ctx) // how long an attempt takes to end is not ours
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		wake()
	}
}

// bidding is a claim whose answer has not come yet.
type bidding struct {
	tag broker.Tag // of the delivery that it is for; zero once a run has it
}

func (s *runs) beginClaim(claimID string, tag broker.Tag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims[claimID] = &bidding{tag: tag}
}

// endClaim ends beginClaim and returns the delivery that the claim holds; zero
// where a run came of it.
func (s *runs) endClaim(claimID string) broker.Tag {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.claims[claimID]
	delete(s.claims, claimID)
	s.signal()
	return b.tag
}

// offer gives another delivery of a job's message to the claim that the ledger
// says owns it: to its run, or to the bid whose answer is under way; see better.
// known is false where this daemon has neither.
func (s *runs) offer(claimID string, tag broker.Tag) (known, ackNew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.byID[claimID]; r != nil {
		return true, r.offerTag(tag)
	}
	b := s.claims[claimID]
	if b == nil {
		return false, false
	}
	b.tag, ackNew = better(b.tag, tag)
	return true, ackNew
}

// knows reports whether the claim is a run, or is about to be one: a run is
// registered before its claim ends.
func (s *runs) knows(claimID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claims[claimID] != nil || s.byID[claimID] != nil
}

// slotsUsed counts the attempts without a device, and the takes for them.
func (s *runs) slotsUsed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slotsTaken()
}

// slotsHeld counts the attempts without a device alone.
func (s *runs) slotsHeld() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slotsTaken() - s.slots
}

// slotsTaken is slotsUsed; s.mu is held.
func (s *runs) slotsTaken() int {
	used := s.slots
	for _, r := range s.byID {
		if len(r.devices) == 0 {
			used++
		}
	}
	return used
}

// shapes are the queues in use, as far as this daemon has heard of them.
type shapes struct {
	mu     sync.Mutex
	queues map[string]job.Shape
}

func newShapes() *shapes { return &shapes{queues: map[string]job.Shape{}} }

// add makes a queue known; one that is no job queue is passed over.
func (s *shapes) add(queue string) {
	shape, err := job.ParseQueue(queue)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues[shape.Queue()] = shape
}

func (s *shapes) has(queue string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.queues[queue]
	return ok
}

func (s *shapes) list() []job.Shape {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]job.Shape, 0, len(s.queues))
	for _, shape := range s.queues {
		list = append(list, shape)
	}
	slices.SortFunc(list, func(a, b job.Shape) int {
		if a.Queue() < b.Queue() {
			return -1
		}
		return 1
	})
	return list
}
