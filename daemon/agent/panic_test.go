package agent

import (
	"context"
	"strings"
	"sync"
	"testing"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/dedup"
	"gpuqd/daemon/job"
	"gpuqd/daemon/placement"
	"gpuqd/daemon/runner"
)

// ackBook is a broker that notes which deliveries were acked and given back.
type ackBook struct {
	muteBroker
	mu           sync.Mutex
	acked, given []broker.Tag
}

func (b *ackBook) Ack(_ context.Context, tag broker.Tag) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acked = append(b.acked, tag)
	return nil
}

func (b *ackBook) Nack(_ context.Context, tag broker.Tag, _ bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.given = append(b.given, tag)
	return nil
}

// panickyRunner panics over the attempts of one job.
type panickyRunner struct {
	Runner
	over job.ID
}

func (p panickyRunner) Begin(in runner.Intent) (Attempt, error) {
	if in.JobID == p.over {
		panic("planted")
	}
	return p.Runner.Begin(in)
}

// panickyCache panics when it is asked about one job.
type panickyCache struct {
	DoneCache
	over job.ID
}

func (p panickyCache) Done(ctx context.Context, id job.ID) (job.State, bool) {
	if id == p.over {
		panic("planted")
	}
	return p.DoneCache.Done(ctx, id)
}

// TestPanicCostsThatJobAlone: wherever the handling of a delivery panics, that
// job ends with the reason, its message is acked, and nothing stays held.
func TestPanicCostsThatJobAlone(t *testing.T) {
	for name, plant := range map[string]func(*leaseBench, job.ID){
		"BeforeTheClaim": func(b *leaseBench, id job.ID) { b.done = panickyCache{b.done, id} },
		"AfterTheClaim":  func(b *leaseBench, id job.ID) { b.runner = panickyRunner{b.runner, id} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newLeaseBench(t)
			acks := &ackBook{}
			cache := dedup.New(dedup.Config{})
			t.Cleanup(cache.Close)
			b.broker, b.done = acks, cache
			b.cfg.Runner.WorkRoot = t.TempDir()
			if err := b.openSession(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			spec := job.DefaultSpec()
			spec.Command, spec.GPUs = []string{"true"}, 0
			j, _, err := b.ledger.Submit(t.Context(), job.New(job.NewID(), "u", spec, b.now()))
			if err != nil {
				t.Fatal(err)
			}
			plant(b, j.ID)
			ctx := runFor(t, b)
			tag := broker.Tag{Generation: 1, Delivery: 7}
			if !b.promise(placement.Take{}) {
				t.Fatal("no slot is free")
			}
			b.start(ctx, &broker.Delivery{Tag: tag, Queue: j.Queue, Body: job.Ticket{ID: j.ID}.Encode()}, placement.Take{})
			b.work.Wait()
			after, err := b.ledger.Job(ctx, j.ID)
			if err != nil {
				t.Fatal(err)
			}
			if after.State != job.Dead || after.Result.Class != job.ClassRefused || !strings.Contains(after.Reason, "planted") {
				t.Errorf("job is %s, %s; want dead, with the panic as its reason", after.State, after.Reason)
			}
			if len(acks.acked) != 1 || acks.acked[0] != tag || len(acks.given) != 0 {
				t.Errorf("acked %v, given back %v; want the delivery acked once", acks.acked, acks.given)
			}
			if b.runs.len() != 0 || b.runs.slotsUsed() != 0 {
				t.Errorf("%d runs and %d slots are still held", b.runs.len(), b.runs.slotsUsed())
			}
		})
	}
}
