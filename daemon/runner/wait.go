package runner

import (
	"context"
	"fmt"
	"time"

	"gpuqd/daemon/runner/proctree"
)

// waitTick is how often Wait looks where the kernel has no event for it: before
// the start, and while another than the shim holds the lock.
const waitTick = 200 * time.Millisecond

// Wait returns the exit record once it is there and the shim is gone; ErrLost
// where the shim went without one, ErrNotStarted where nothing holds the lock
// and nothing was started, and ctx's cause. A waiter costs a goroutine and a
// descriptor, no thread.
func (a *Attempt) Wait(ctx context.Context) (*Exit, error) {
	for {
		exit, err := a.look()
		if err != nil || exit != nil {
			return exit, err
		}
		if err := a.waitForShim(ctx); err != nil {
			return nil, fmt.Errorf("wait for attempt %s: %w", a.key, err)
		}
	}
}

// look returns the exit or how the attempt went without one; nil and nil while
// its shim is alive.
func (a *Attempt) look() (*Exit, error) {
	// The lock first: an exit written between the two would read as lost.
	free, err := a.LockFree()
	if err != nil || !free {
		return nil, err
	}
	exit, ended, err := a.Exit()
	if err != nil || ended {
		return exit, err
	}
	_, started, err := a.Started()
	if err == nil && started {
		err = ErrLost
	} else if err == nil {
		err = ErrNotStarted
	}
	return nil, fmt.Errorf("wait for attempt %s: %w", a.key, err)
}

// waitForShim returns when the shim has ended, after a tick where it cannot
// tell, or with ctx's cause.
func (a *Attempt) waitForShim(ctx context.Context) error {
	started, ok, err := a.Started()
	if err != nil {
		return err
	}
	if ok {
		if err := proctree.WaitGone(ctx, proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}); err != nil {
			return err
		}
		// Gone; a lock still held is RecordLost's or, for a moment, Revoke's.
		if free, err := a.LockFree(); err != nil || free {
			return err
		}
	}
	tick := time.NewTimer(waitTick)
	defer tick.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-tick.C:
		return nil
	}
}
