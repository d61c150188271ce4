package runnertest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// onceTests: a command runs once, and not at all where it lost its right to.
var onceTests = map[string]func(*Bench){
	"RevokedAttemptNeverRuns":       revoked,
	"SecondShimRunsNothing":         secondShim,
	"ShimOfAnEndedAttemptRunsNone":  endedAttempt,
	"StartedAttemptIsNotRevoked":    startedNotRevoked,
	"StopBeforeStartRunsNothing":    stopBeforeStart,
	"RacingShimsAndRevokesRunOnce":  racing,
	"DeadlineIsCheckedBeforeStart":  deadlineBeforeStart,
	"CancelledStartIsFoundByRevoke": cancelledStart,
	"WaitOfManyEndsForAll":          manyWaiters,
}

// witness appends a line per execution.
func (b *Bench) witness(then string) runner.Intent {
	return b.Intent("echo ran >> " + b.File("witness") + "; " + then)
}

func (b *Bench) wantRuns(n int64) {
	b.Helper()
	if got := b.Size(b.File("witness")) / int64(len("ran\n")); got != n {
		b.Errorf("the command ran %d times, want %d", got, n)
	}
}

func revoked(b *Bench) {
	a := b.Begin(b.witness(""))
	if _, err := a.Wait(b.ctx()); !errors.Is(err, runner.ErrNotStarted) {
		b.Errorf("Wait: %v, want ErrNotStarted", err)
	}
	if err := a.RecordLost("test"); !errors.Is(err, runner.ErrNotStarted) {
		b.Errorf("RecordLost: %v, want ErrNotStarted", err)
	}
	// Where one can be had: what a shim leaves that is killed before the start.
	cgroup, cgroupErr := proctree.NewCgroup(a.Key().CgroupName())
	b.Must(a.Revoke())
	b.Must(a.Revoke())
	if _, err := os.Stat(string(cgroup)); cgroupErr == nil && !errors.Is(err, fs.ErrNotExist) {
		b.Errorf("the cgroup %s is left: %v", cgroup, err)
	}
	if err := b.Starter.Start(b.ctx(), a); !errors.Is(err, runner.ErrRefused) || !strings.Contains(err.Error(), "revoked") {
		b.Errorf("Start: %v, want ErrRefused", err)
	}
	b.wantRuns(0)
}

func secondShim(b *Bench) {
	a := b.Start(b.witness("sleep 1000"))
	b.Until("the command runs", func() bool { return b.Size(b.File("witness")) > 0 })
	if err := b.Starter.Start(b.ctx(), a); err == nil || errors.Is(err, runner.ErrRefused) {
		b.Errorf("Start: %v; the outcome is not known to a second shim", err)
	}
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	b.Wait(a)
	b.wantRuns(1)
}

func endedAttempt(b *Bench) {
	a := b.Start(b.witness(""))
	b.Wait(a)
	if err := b.Starter.Start(b.ctx(), a); err == nil {
		b.Error("a second start of an ended attempt succeeded")
	}
	b.wantRuns(1)
}

func startedNotRevoked(b *Bench) {
	a := b.Start(b.witness("sleep 1000"))
	if err := a.Revoke(); !errors.Is(err, runner.ErrStarted) {
		b.Errorf("Revoke: %v, want ErrStarted", err)
	}
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	b.Wait(a)
	if err := a.Revoke(); !errors.Is(err, runner.ErrStarted) {
		b.Errorf("Revoke after the end: %v, want ErrStarted", err)
	}
}

func stopBeforeStart(b *Bench) {
	a := b.Begin(b.witness(""))
	b.Must(a.RequestStop(runner.Stop{Reason: runner.StopKilled, Detail: "by bob"}))
	if err := b.Starter.Start(b.ctx(), a); !errors.Is(err, runner.ErrRefused) || !strings.Contains(err.Error(), "by bob") {
		b.Errorf("Start: %v, want ErrRefused with the reason", err)
	}
	b.wantRuns(0)
}

// racing: several shims and a revocation at once; the journal tells what won.
func racing(b *Bench) {
	ran := int64(0)
	for range 8 {
		a := b.Begin(b.witness(""))
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() { _ = b.Starter.Start(b.ctx(), a) }) // all but one fail
		}
		err := a.Revoke()
		group.Wait()
		switch {
		case err == nil:
		case errors.Is(err, runner.ErrStarted):
			b.Wait(a)
			ran++
		default:
			b.Errorf("Revoke: %v", err)
		}
	}
	b.wantRuns(ran)
}

func deadlineBeforeStart(b *Bench) {
	for name, lease := range map[string]func() string{
		"missing": func() string { return b.File("no-such-file") },
		"passed":  func() string { return b.Lease(-time.Second, runner.SessionLive) },
		"expired": func() string { return b.Lease(time.Hour, runner.SessionExpired) },
		"another session's": func() string {
			own := b.Session
			b.Session = "another"
			path := b.Lease(time.Hour, runner.SessionLive)
			b.Session = own
			return path
		},
		"another boot's": func() string {
			path := b.File("boot.deadline")
			b.Must(runner.WriteDeadline(path, runner.Deadline{
				Session: b.Session, BootID: "another", At: runner.Boottime() + time.Hour, State: runner.SessionLive,
			}))
			return path
		},
	} {
		in := b.witness("")
		in.DeadlineFile, in.LeaseLoss = lease(), runner.LeaseContinue
		a := b.Begin(in)
		if err := b.Starter.Start(b.ctx(), a); !errors.Is(err, runner.ErrRefused) {
			b.Errorf("deadline file %s: Start: %v, want ErrRefused", name, err)
		}
		if _, ok, err := a.Revoked(); err != nil || !ok {
			b.Errorf("deadline file %s: not revoked (%v)", name, err)
		}
	}
	b.wantRuns(0)
}

func cancelledStart(b *Bench) {
	a := b.Begin(b.witness(""))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Starter.Start(ctx, a); err != nil && !errors.Is(err, context.Canceled) {
		b.Errorf("Start: %v", err)
	}
	switch err := a.Revoke(); {
	case err == nil:
		b.wantRuns(0)
	case errors.Is(err, runner.ErrStarted):
		b.Wait(a)
		b.wantRuns(1)
	default:
		b.Errorf("Revoke: %v", err)
	}
}

func manyWaiters(b *Bench) {
	a := b.Start(b.Intent("sleep 0.3; exit 6"))
	ctx, cancel := context.WithCancelCause(context.Background())
	gaveUp := errors.New("gave up")
	cancel(gaveUp)
	if _, err := a.Wait(ctx); !errors.Is(err, gaveUp) {
		b.Errorf("a cancelled Wait: %v, want its cause", err)
	}
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			if e, err := a.Wait(b.ctx()); err != nil || e.Code != 6 {
				b.Errorf("Wait: %+v, %v", e, err)
			}
		})
	}
	group.Wait()
}
