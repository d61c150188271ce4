package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// Idle is what a process uses while it has nothing to do.
type Idle struct {
	Seconds float64 `json:"seconds"`     // over which it was measured
	CPU     float64 `json:"cpu_percent"` // of one core
	Memory  Memory  `json:"memory"`      // at the end
}

// idle measures gpuqd with nothing to do, and then a shim whose job sleeps, with
// gpuqd beside it.
func (b *bench) idle(ctx context.Context) error {
	r := b.rig
	daemon, err := r.pid(worker)
	if err != nil {
		return err
	}
	if b.result.Daemon, err = idleOf(ctx, b.o.Idle, daemon); err != nil {
		return err
	}
	id := job.NewID()
	if _, err := r.client.Submit(ctx, job.Submission{ID: id, Spec: spec("/bin/sleep", "3600")}); err != nil {
		return err
	}
	shim, err := r.shimOf(ctx, id)
	if err != nil {
		return err
	}
	if b.result.Shim, err = idleOf(ctx, b.o.Idle, shim); err != nil {
		return err
	}
	if _, err := r.client.Kill(ctx, control.KillArgs{ID: id, Reason: "it has slept enough"}); err != nil {
		return err
	}
	return r.ended(ctx, id)
}

// idleOf watches a process, after a moment in which what came before can settle.
func idleOf(ctx context.Context, d time.Duration, pid int) (i Idle, err error) {
	if err := pause(ctx, d/10); err != nil {
		return i, err
	}
	before, err := scheduled(pid)
	if err != nil {
		return i, err
	}
	began := time.Now()
	if err := pause(ctx, d); err != nil {
		return i, err
	}
	after, err := scheduled(pid)
	if err != nil {
		return i, err
	}
	i.Seconds = time.Since(began).Seconds()
	i.CPU = (after - before) / i.Seconds * 100
	i.Memory, err = memoryOf(pid)
	return i, err
}

// shimOf returns the shim of a job's first attempt once it has recorded the start.
func (r *rig) shimOf(ctx context.Context, id job.ID) (int, error) {
	dir := filepath.Join(r.StateDir(worker), "attempts", runner.Key{JobID: id, Attempt: 1}.String())
	for {
		if a, err := runner.OpenAttempt(dir); err == nil {
			started, ok, err := a.Started()
			if err != nil || ok {
				return started.ShimPID, err
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, fmt.Errorf("job %s does not start: %w", id, err)
		}
	}
}
