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
	CPU     CPU     `json:"cpu_ms_per_job"`
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
		if err := b.rig.settle(ctx); err != nil {
			return err
		}
		if err := b.dispatch(ctx, p, &w); err != nil {
			return err
		}
		b.say("%d jobs wait: %.1f jobs/s", n, w.Rate)
		b.result.Waiting = append(b.result.Waiting, w)
	}
	return nil
}

// dispatch lets the host take jobs until enough have been committed.
func (b *bench) dispatch(ctx context.Context, p *preload, w *Waiting) error {
	before, err := b.rig.scrape(ctx)
	if err != nil {
		return err
	}
	used, err := b.rig.cpu()
	if err != nil {
		return err
	}
	if err := b.rig.resume(ctx); err != nil {
		return err
	}
	want := before.succeeded() + b.o.Dispatch
	if _, err := b.rig.until(ctx, func(m metrics) bool { return m.succeeded() >= want }); err != nil {
		return err
	}
	if err := b.rig.drain(ctx); err != nil {
		return err
	}
	after, err := b.rig.scrape(ctx)
	if err != nil {
		return err
	}
	total, err := b.rig.cpu()
	if err != nil {
		return err
	}
	ran := after.succeeded() - before.succeeded()
	w.CPU = total.perJob(used, ran)
	// In the order of the queue, but for a few that were given up at the drain.
	docs, err := b.rig.documents(ctx, p.waiting[:min(ran+b.o.Devices, len(p.waiting))])
	if err != nil {
		return err
	}
	n, seconds, err := span(docs)
	if err != nil || n != ran {
		return errors.Join(fmt.Errorf("%d jobs have succeeded, %d are known by their documents", ran, n), err)
	}
	p.drop(docs)
	w.Jobs, w.Rate = n, ratio(float64(n), seconds)
	return nil
}

// What settle waits for, and how long at most.
const (
	settledShare = 0.1 // of a core
	settleMost   = time.Minute
)

// settle waits until the broker is idle again: after very many messages it goes on
// to write them out for a while, and that is not what is measured.
func (r *rig) settle(ctx context.Context) error {
	before, err := r.cpu()
	for end := time.Now().Add(settleMost); err == nil && time.Now().Before(end); {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		var now usage
		if now, err = r.cpu(); now.broker-before.broker < settledShare {
			break
		}
		before = now
	}
	return err
}
