package disk

import (
	"fmt"
	"io/fs"
	"time"

	"gpuqd/daemon/runner"
	"gpuqd/test/sim/world"
)

// entry is one attempt's directory. Its fields are guarded by the world's instant,
// but for the first three, which do not change.
type entry struct {
	key  runner.Key
	name string // the key's text
	in   runner.Intent

	removed bool
	lock    *world.Process // the last holder; it lost the lock if it is dead
	log     string

	started  *runner.Started
	revoked  *runner.Revoked
	stop     *runner.Stop // the request
	stopAt   time.Duration
	stopping *runner.Stop
	exit     *runner.Exit
	verdict  *runner.Verdict

	shim *shim // that wrote started
	tree *tree // that shim's command
}

// held reports whether a process holds the lock.
func (e *entry) held() bool { return e.lock != nil && !e.lock.Gone() }

// try takes the lock for p where it is free.
func (e *entry) try(p *world.Process) bool {
	if e.removed || e.held() {
		return false
	}
	e.lock = p
	return true
}

// release gives p's lock back.
func (d *Disk) release(p *world.Process, e *entry) {
	d.world.Do(func() {
		if e.lock == p {
			e.lock = nil
		}
	})
}

// Bounds and pauses of the waits for a lock, as in daemon/runner.
const (
	lockWait    = 10 * time.Second
	lockPollMin = 4 * time.Millisecond
	lockPollMax = 6 * time.Millisecond
)

// takeLock takes the lock of an attempt for p. While another has it, busy says
// whether there is any point in waiting; nil means that there is.
func (d *Disk) takeLock(p *world.Process, e *entry, busy func() error) error {
	for end := d.world.Now() + lockWait; ; {
		if err := p.Wait(); err != nil {
			return err
		}
		var got bool
		var err error
		d.world.Do(func() {
			switch {
			case p.Gone():
				err = world.ErrDead
			case e.removed:
				err = fs.ErrNotExist
			default:
				if got = e.try(p); !got {
					err = busy()
				}
			}
		})
		switch {
		case got || err != nil:
			return err
		case d.world.Now() > end:
			return runner.ErrBusy
		}
		if !nap(p, d.world.Between(lockPollMin, lockPollMax, d.host.Name(), "lock", e.name)) {
			return world.ErrDead
		}
	}
}

// lockBeforeStart takes the lock of an attempt that has no start.
func (d *Disk) lockBeforeStart(p *world.Process, e *entry) error {
	return d.takeLock(p, e, func() error {
		if e.started != nil {
			return runner.ErrStarted
		}
		return nil
	})
}

// lockAfterShim takes the lock of an attempt that has no living shim.
func (d *Disk) lockAfterShim(p *world.Process, e *entry) error {
	return d.takeLock(p, e, func() error {
		if e.started != nil && !e.shim.proc.Gone() {
			return runner.ErrBusy
		}
		return nil
	})
}

// stamp is the host's wall clock as a record keeps it.
func (d *Disk) stamp() time.Time { return d.host.Now().UTC().Round(0) }

// notFound is the error of a read in a directory that is gone.
func (e *entry) notFound(what string) error {
	return fmt.Errorf("read %s of attempt %s: %w", what, e.name, runner.ErrNotFound)
}
