package agent

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/placement"
)

// bareRun is a run as far as the registry looks at it.
func bareRun(claimID string, id job.ID, devices ...string) *run {
	return &run{hold: ledger.Hold{ClaimID: claimID, JobID: id}, devices: devices}
}

// TestSlotStaysUsedFromTakeToEnd: between the promise of a slot and the end of
// its attempt there is no moment at which it looks free.
func TestSlotStaysUsedFromTakeToEnd(t *testing.T) {
	s := newRuns()
	withDevice := bareRun("claim-0", "job-0", "a")
	s.add(withDevice)
	r := bareRun("claim-1", "job-1")
	for _, step := range []struct {
		name        string
		do          func()
		least, most int
	}{
		{"take", func() { s.promise(placement.Take{}, 2, nil) }, 1, 1},
		{"claimed", func() { s.add(r) }, 1, 2}, // promise and run may both count
		{"settled", func() { s.unpromise(placement.Take{}) }, 1, 1},
		{"another take", func() { s.promise(placement.Take{Devices: []string{}}, 2, nil) }, 2, 2},
		{"its message was a duplicate", func() { s.unpromise(placement.Take{Devices: []string{}}) }, 1, 1},
		{"committed", func() { s.remove(r) }, 0, 0},
	} {
		step.do()
		if got := s.slotsUsed(); got < step.least || got > step.most {
			t.Errorf("%s: %d slots are used, want %d to %d", step.name, got, step.least, step.most)
		}
	}
}

func TestClaimUnderWayIsKnown(t *testing.T) {
	s := newRuns()
	if s.knows("claim-1") {
		t.Error("a claim that was never begun is known")
	}
	s.beginClaim("claim-1", broker.Tag{Generation: 1, Delivery: 7})
	if !s.knows("claim-1") || s.knows("claim-2") {
		t.Error("the claim that was begun is not the one that is known")
	}
	if tag := s.endClaim("claim-1"); tag.Delivery != 7 {
		t.Errorf("the claim ends with the delivery %v", tag)
	}
	if s.knows("claim-1") {
		t.Error("a claim that ended without a run is known")
	}
}

// A connection can break and deliver the message again while the ledger has not
// answered the claim yet. The new delivery is the one to ack at the end.
func TestClaimUnderWayTakesARedelivery(t *testing.T) {
	first, second := broker.Tag{Generation: 1, Delivery: 7}, broker.Tag{Generation: 1, Delivery: 8}
	later := broker.Tag{Generation: 2, Delivery: 1}
	s := newRuns()
	s.beginClaim("claim-1", first)
	if known, ackNew := s.offer("claim-1", second); !known || !ackNew {
		t.Errorf("a second delivery of one generation: known %t, ack it %t", known, ackNew)
	}
	if known, ackNew := s.offer("claim-1", later); !known || ackNew {
		t.Errorf("a delivery of the next generation: known %t, ack it %t", known, ackNew)
	}
	if known, ackNew := s.offer("claim-1", second); !known || ackNew {
		t.Errorf("a stale delivery that comes late: known %t, ack it %t", known, ackNew)
	}
	r := &run{tag: first}
	r.hold.ClaimID = "claim-1"
	s.add(r)
	if r.tag != later {
		t.Errorf("the run has the delivery %v", r.tag)
	}
	if tag := s.endClaim("claim-1"); tag != (broker.Tag{}) {
		t.Errorf("the claim still holds %v", tag)
	}
	if known, _ := s.offer("claim-2", later); known {
		t.Error("a claim of nobody takes a delivery")
	}
}

// TestRegistryFindsWhatItHolds compares the registry with a plain list through
// any row of adds and removals.
func TestRegistryFindsWhatItHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newRuns()
		var want []*run
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n := strconv.Itoa(len(want))
				r := bareRun("claim-"+rapid.StringMatching(`[a-z]{8}`).Draw(t, "claim")+n, job.NewID())
				s.add(r)
				want = append(want, r)
			},
			"remove": func(t *rapid.T) {
				if len(want) == 0 {
					t.Skip("nothing to remove")
				}
				i := rapid.IntRange(0, len(want)-1).Draw(t, "which")
				gone := want[i]
				want = slices.Delete(want, i, i+1)
				s.remove(gone)
				if s.byClaim(gone.hold.ClaimID) != nil || s.ofJob(gone.hold.JobID) != nil {
					t.Fatal("a removed run is found")
				}
			},
			"": func(t *rapid.T) {
				if s.len() != len(want) || s.slotsUsed() != len(want) || len(s.all()) != len(want) {
					t.Fatalf("%d runs, %d listed, %d slots; want %d", s.len(), len(s.all()), s.slotsUsed(), len(want))
				}
				for _, r := range want {
					if s.byClaim(r.hold.ClaimID) != r || s.ofJob(r.hold.JobID) != r || !slices.Contains(s.all(), r) {
						t.Fatalf("run %s is not found", r.hold.ClaimID)
					}
				}
			},
		})
	})
}

func TestWaitEmptyReturnsAtOnceWithoutRuns(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := newRuns().waitEmpty(ended); err != nil {
		t.Error(err)
	}
}

func TestWaitEmptyEndsWithItsContext(t *testing.T) {
	s := newRuns()
	s.add(bareRun("claim-1", "job-1"))
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.waitEmpty(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}

// TestWaitEmptyWaitsForTheLastRun races removals, which come in any order, with
// several waiters: none returns while a run is left, and all return.
func TestWaitEmptyWaitsForTheLastRun(t *testing.T) {
	defer goleak.VerifyNone(t)
	s := newRuns()
	const n = 64
	for i := range n {
		s.add(bareRun(strconv.Itoa(i), job.ID(strconv.Itoa(i))))
	}
	last := bareRun("last", "last")
	s.add(last)

	var waiters, removers sync.WaitGroup
	early := make(chan int, 8) // one for each waiter
	removing := make(chan struct{})
	for range cap(early) {
		waiters.Go(func() {
			if err := s.waitEmpty(t.Context()); err != nil {
				t.Error(err)
			}
			select {
			case <-removing:
			default:
				early <- s.len()
			}
		})
	}
	for i := range n {
		removers.Go(func() { s.remove(s.byClaim(strconv.Itoa(i))) })
	}
	removers.Wait()
	close(removing) // from here on the last one goes
	s.remove(last)
	waiters.Wait()
	if len(early) > 0 {
		t.Errorf("%d waiters returned while a run was left", len(early))
	}
}

func TestShapesKnowAQueueByEitherName(t *testing.T) {
	s := newShapes()
	for _, queue := range []string{
		"gpuq.job.b.low.g1.any.again", "gpuq.job.b.low.g1.any", "gpuq.job.a.high.g0.any", "gpuq.submit", "",
	} {
		s.add(queue)
	}
	got := make([]string, 0, 2)
	for _, shape := range s.list() {
		got = append(got, shape.Queue())
	}
	if want := []string{"gpuq.job.a.high.g0.any", "gpuq.job.b.low.g1.any"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if !s.has("gpuq.job.b.low.g1.any") || s.has("gpuq.submit") {
		t.Error("a queue in use is unknown, or another is known")
	}
}
