package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// begunRunner is a Runner that keeps what it is to begin.
type begunRunner struct {
	Runner
	begun []runner.Intent
}

func (b *begunRunner) Begin(in runner.Intent) (Attempt, error) {
	b.begun = append(b.begun, in)
	return nil, nil
}

func (b *begunRunner) DeadlinePath(string) string { return "/deadline" }

func accountRun(t *testing.T, pool string, accounts func(context.Context, string) (*runner.Account, error)) (*run, *begunRunner) {
	t.Helper()
	disk := &begunRunner{}
	a := New(Options{
		Config: config.Default(), Devices: device.New("h", &device.Simulated{}, nil), Runner: disk, Accounts: accounts,
	})
	spec := job.DefaultSpec()
	spec.Command, spec.Pool, spec.MemoryMax, spec.TasksMax, spec.CPUWeight = []string{"true"}, pool, 64<<20, 5, 7
	j := job.New(job.NewID(), "ada", spec, job.At(time.Now()))
	j.Owner, j.Attempt = &job.Owner{Host: "h", Session: "s", ClaimID: "c"}, 1
	return newRun(a, j, nil), disk
}

// An attempt runs as its submitter's account, within its spec's limits; a
// rehearsal's as nobody, whoever asked for it.
func TestAttemptRunsAsItsSubmittersAccount(t *testing.T) {
	for pool, want := range map[string]string{"default": "ada", job.RehearsalPool("h"): "nobody"} {
		r, disk := accountRun(t, pool, func(_ context.Context, submitter string) (*runner.Account, error) {
			return &runner.Account{Name: submitter, UID: 7}, nil
		})
		if _, err := r.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		in := disk.begun[0]
		if in.Account == nil || in.Account.Name != want || in.Account.UID != 7 {
			t.Errorf("pool %s: account %+v, want %s", pool, in.Account, want)
		}
		if in.Limits != (runner.Limits{MemoryBytesMax: 64 << 20, TasksMax: 5, CPUWeight: 7}) {
			t.Errorf("limits %+v", in.Limits)
		}
	}
}

// A host that cannot say who a submitter is begins nothing: the job is given back,
// and not failed for good.
func TestHostThatKnowsNoAccountsBeginsNothing(t *testing.T) {
	down := errors.New("the directory service is down")
	r, disk := accountRun(t, "default", func(context.Context, string) (*runner.Account, error) { return nil, down })
	if _, err := r.begin(t.Context()); !errors.Is(err, down) || len(disk.begun) > 0 {
		t.Errorf("got %v, begun %v", err, disk.begun)
	}
}

// With the process starter nobody is asked.
func TestWithoutAccountsTheIntentHasNone(t *testing.T) {
	r, disk := accountRun(t, "default", nil)
	if _, err := r.begin(t.Context()); err != nil || disk.begun[0].Account != nil {
		t.Errorf("got %+v, %v", disk.begun[0].Account, err)
	}
}
