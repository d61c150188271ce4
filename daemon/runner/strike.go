package runner

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner/proctree"
)

// KillWithShim ends an attempt as the death of its host does: the shim first, so
// that it records no exit, then all that the command has forked. It returns nil
// when nothing is left; Wait then returns ErrLost. It is for rehearsals: whoever
// wants an attempt to end asks its shim.
func (a *Attempt) KillWithShim(ctx context.Context) error {
	started, ok, err := a.Started()
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("kill attempt %s with its shim: %w", a.key, ErrNotStarted)
	}
	shim := proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}
	_ = proctree.Signal(shim, unix.SIGKILL) // gone already, or the wait tells
	if err := proctree.WaitGone(ctx, shim); err != nil {
		return fmt.Errorf("kill attempt %s with its shim: %w", a.key, err)
	}
	return a.KillLeftovers()
}
