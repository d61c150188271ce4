package bench

import (
	"context"
	"errors"
	"fmt"

	"gpuqd/daemon/job"
	"gpuqd/test/bench/floor"
)

// batch is what a batch of jobs, all queued before the first starts, has shown.
type batch struct {
	submitted float64 // jobs/s confirmed to gpuqctl submit -f
	rate      float64 // jobs/s from the first start to the last commit
	perJob    floor.Operations
	cpu       CPU
}

// CPU is processor time per job, in milliseconds.
type CPU struct {
	Intake   float64 `json:"intake"`   // of gpuqd, or of the floor's one process, for the intake
	Own      float64 `json:"own"`      // of the same, from the take to the ack
	Children float64 `json:"children"` // of shims and commands
	Broker   float64 `json:"broker"`   // of all nodes, for intake and run
	Redis    float64 `json:"redis"`
}

// runBatch submits n jobs while the host is drained, then lets it go.
func (r *rig) runBatch(ctx context.Context, n int, s job.Spec) (b batch, err error) {
	if err := r.drain(ctx); err != nil {
		return b, err
	}
	at := [3]metrics{} // before the submission, before the first start, after the last commit
	if at[0], err = r.scrape(ctx); err != nil {
		return b, err
	}
	began, err := r.cpu()
	if err != nil {
		return b, err
	}
	ids, took, err := r.submitFile(ctx, n, s)
	if err != nil {
		return b, err
	}
	if at[1], err = r.scrape(ctx); err != nil {
		return b, err
	}
	before, err := r.cpu()
	if err != nil {
		return b, err
	}
	if err := r.resume(ctx); err != nil {
		return b, err
	}
	want := at[1].succeeded() + n
	if at[2], err = r.until(ctx, func(m metrics) bool { return m.succeeded() >= want && m.held() == 0 }); err != nil {
		return b, err
	}
	after, err := r.cpu()
	if err != nil {
		return b, err
	}
	docs, err := r.documents(ctx, ids)
	if err != nil {
		return b, err
	}
	ran, seconds, err := span(docs)
	if err != nil || ran != n {
		return b, errors.Join(fmt.Errorf("%d of %d jobs have succeeded", ran, n), err)
	}
	b.submitted, b.rate = ratio(float64(n), took.Seconds()), ratio(float64(n), seconds)
	b.perJob = at[2].operations().Since(at[0].operations()).Over(n)
	b.cpu = after.perJob(before, n)
	whole := after.perJob(began, n)
	b.cpu.Intake, b.cpu.Broker, b.cpu.Redis = whole.Own-b.cpu.Own, whole.Broker, whole.Redis
	return b, nil
}

// usage is the processor time that everything has used so far, in seconds.
type usage struct {
	daemon        cpuTimes
	broker, redis float64
}

func (r *rig) cpu() (u usage, err error) {
	pid, err := r.pid(worker)
	if err != nil {
		return u, err
	}
	if u.daemon, err = cpuOf(pid); err != nil {
		return u, err
	}
	for _, name := range append(r.RabbitNodes(), "redis") {
		pid, err := r.pid(name)
		if err != nil {
			return u, err
		}
		used, err := treeCPU(pid)
		if err != nil {
			return u, err
		}
		if name == "redis" {
			u.redis = used
		} else {
			u.broker += used
		}
	}
	return u, nil
}

// perJob returns what n jobs have used since before.
func (u usage) perJob(before usage, n int) CPU {
	each := func(now, then float64) float64 { return (now - then) / float64(n) * 1e3 }
	return CPU{
		Own:      each(u.daemon.self, before.daemon.self),
		Children: each(u.daemon.children, before.daemon.children),
		Broker:   each(u.broker, before.broker),
		Redis:    each(u.redis, before.redis),
	}
}
