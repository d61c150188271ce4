package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Waiting is how jobs are dispatched while others wait.
type Waiting struct {
	Waiting int     `json:"waiting"` // when the first was dispatched
	Jobs    int     `json:"jobs"`    // dispatched
	Rate    float64 `json:"jobs_per_second"`
	Preload float64 `json:"preload_seconds"` // to bring the number up to it
}

// waiting dispatches some jobs from among many, all of one queue.
func (b *bench) waiting(ctx context.Context) error {
	if err := b.rig.drain(ctx); err != nil {
		return err
	}
	p, err := b.rig.newPreload(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	for _, n := range b.o.Waiting {
		began := time.Now()
		if err := p.fill(ctx, n, func(now int) { b.say("%d of %d jobs wait", now, n) }); err != nil {
			return err
		}
		w := Waiting{Waiting: n, Preload: time.Since(began).Seconds()}
		if w.Jobs, w.Rate, err = b.dispatch(ctx, p); err != nil {
			return err
		}
		b.say("%d jobs wait: %.1f jobs/s", n, w.Rate)
		b.result.Waiting = append(b.result.Waiting, w)
	}
	return nil
}

// dispatch lets the host take jobs until enough have been committed.
func (b *bench) dispatch(ctx context.Context, p *preload) (n int, rate float64, err error) {
	before, err := b.rig.scrape(ctx)
	if err != nil {
		return 0, 0, err
	}
	if err := b.rig.resume(ctx); err != nil {
		return 0, 0, err
	}
	want := before.succeeded() + b.o.Dispatch
	if _, err := b.rig.until(ctx, func(m metrics) bool { return m.succeeded() >= want }); err != nil {
		return 0, 0, err
	}
	if err := b.rig.drain(ctx); err != nil {
		return 0, 0, err
	}
	after, err := b.rig.scrape(ctx)
	if err != nil {
		return 0, 0, err
	}
	ran := after.succeeded() - before.succeeded()
	// In the order of the queue, but for a few that were given up at the drain.
	docs, err := b.rig.documents(ctx, p.waiting[:min(ran+b.o.Devices, len(p.waiting))])
	if err != nil {
		return 0, 0, err
	}
	n, seconds, err := span(docs)
	if err != nil || n != ran {
		return 0, 0, errors.Join(fmt.Errorf("%d jobs have succeeded, %d are known by their documents", ran, n), err)
	}
	p.drop(docs)
	return n, ratio(float64(n), seconds), nil
}
