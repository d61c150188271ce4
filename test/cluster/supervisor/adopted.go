package supervisor

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"gpuqd/daemon/runner/proctree"
)

// errUnknownExit is how a process ended that was not our child.
var errUnknownExit = errors.New("its exit code is unknown: an earlier supervisor started it")

// adopted is a process that an earlier supervisor started, and that leads its
// group.
type adopted struct {
	process proctree.Process
	cancel  context.CancelFunc // of the watch
	done    chan struct{}      // closed when it has ended
	watched chan struct{}      // closed when the watch is over
}

// adopt takes over the process of a record. It returns nil where that does not
// run any more.
func adopt(r record) *adopted {
	if !r.alive() {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &adopted{
		process: proctree.Process{PID: r.Pid, Ticks: r.StartTicks},
		cancel:  cancel, done: make(chan struct{}), watched: make(chan struct{}),
	}
	go func() {
		defer close(a.watched)
		if proctree.WaitGone(ctx, a.process) == nil {
			close(a.done)
		}
	}()
	return a
}

// leave ends the watch and lets the process be.
func (a *adopted) leave() {
	a.cancel()
	<-a.watched
}

func (a *adopted) Pid() int              { return a.process.PID }
func (a *adopted) Done() <-chan struct{} { return a.done }
func (a *adopted) Err() error            { return errUnknownExit }

// Signal sends sig to the group, while its leader runs: after that the number
// may be another's.
func (a *adopted) Signal(sig syscall.Signal) error {
	if stat, err := proctree.ReadStat(a.process.PID); err != nil || stat.Process != a.process {
		return os.ErrProcessDone
	}
	return syscall.Kill(-a.process.PID, sig)
}

// Kill ends the group with SIGKILL and waits for its leader.
func (a *adopted) Kill() { a.Stop(0) }

// Stop sends SIGTERM to the process, then after grace SIGKILL to its group. A
// grace of 0 sends SIGKILL at once.
func (a *adopted) Stop(grace time.Duration) {
	if grace > 0 {
		_ = proctree.Signal(a.process, syscall.SIGTERM) // gone already: the wait sees it
		select {
		case <-a.done:
		case <-time.After(grace):
		}
	}
	if a.Signal(syscall.SIGKILL) == nil {
		<-a.done
	}
}
