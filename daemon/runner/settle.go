package runner

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner/proctree"
)

const (
	// lockWait bounds the wait for a lock that is held for a moment only: by a
	// shim between taking it and writing its start, or by LockFree.
	lockWait = 10 * time.Second
	// killWait bounds the wait for killed processes to be gone.
	killWait = 10 * time.Second
)

// Revoke makes sure that the attempt never runs, and returns nil when that is on
// disk. It returns ErrStarted where it did start: then Wait, or RecordLost.
func (a *Attempt) Revoke() error {
	lock, err := a.lockBeforeStart()
	if err != nil {
		return fmt.Errorf("revoke attempt %s: %w", a.key, err)
	}
	defer unlock(lock)
	if err := a.RevokeLocked("revoked by the daemon: it was never started"); err != nil {
		return err
	}
	// A shim that was killed between its fork and its start leaves an empty one.
	return proctree.FindCgroup(a.key.CgroupName()).Remove()
}

// RevokeLocked is Revoke for a holder of the attempt's lock, with its reason.
func (a *Attempt) RevokeLocked(reason string) error {
	if _, started, err := a.Started(); err != nil || started {
		return errors.Join(err, fmt.Errorf("revoke attempt %s: %w", a.key, ErrStarted))
	}
	if _, revoked, err := a.Revoked(); err != nil || revoked {
		return err
	}
	return a.write(slotRevoked, "revocation", Revoked{Reason: clip(reason, 1000), Time: time.Now().UTC()})
}

// lockBeforeStart takes the lock of an attempt that has no start. A shim that
// has the lock writes its start at once, which ends the wait with ErrStarted.
func (a *Attempt) lockBeforeStart() (*os.File, error) {
	for end := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		lock, err := tryLock(a.path("lock"), unix.LOCK_EX)
		if !errors.Is(err, ErrBusy) {
			return lock, err
		}
		if _, started, err := a.Started(); err != nil || started {
			return nil, errors.Join(err, ErrStarted)
		}
		if time.Now().After(end) {
			return nil, ErrBusy
		}
	}
}

// lockAfterShim takes the lock of an attempt that has no living shim, else
// returns ErrBusy. Another holder than the shim has it for a moment only.
func (a *Attempt) lockAfterShim() (*os.File, error) {
	for end := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		lock, err := tryLock(a.path("lock"), unix.LOCK_EX)
		if !errors.Is(err, ErrBusy) {
			return lock, err
		}
		started, ok, readErr := a.Started()
		if readErr != nil {
			return nil, readErr
		}
		shimLives := ok && proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}.Alive()
		if shimLives || time.Now().After(end) {
			return nil, err
		}
	}
}

// Lock takes the attempt's lock for a shim: close-on-exec, held until the
// returned file is closed or the process ends. It returns ErrBusy where another
// shim has it.
func (a *Attempt) Lock() (*os.File, error) {
	lock, err := a.lockBeforeStart()
	if errors.Is(err, ErrStarted) {
		err = ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("lock attempt %s: %w", a.key, err)
	}
	return lock, nil
}

// WriteStarted records the start. Only the holder of the lock may call it.
func (a *Attempt) WriteStarted(s Started) error { return a.write(slotStarted, "start", s) }

// WriteStopping records why the attempt is being ended. Only the holder of the
// lock may call it, before the first signal.
func (a *Attempt) WriteStopping(s Stop) error {
	s.Detail = clip(s.Detail, 300)
	return a.write(slotStopping, "stop reason", s)
}

// WriteExit records the end. Only the holder of the lock may call it, when
// nothing of the attempt is left.
func (a *Attempt) WriteExit(e Exit) error {
	e.Reason, e.StopDetail = clip(e.Reason, 1000), clip(e.StopDetail, 300)
	return a.write(slotExit, "exit", e)
}

// RecordLost ends an attempt that has a start, no exit, and no shim any more: it
// kills what is left and records the exit as lost. The class is host_lost, or
// that of the stop which the shim had begun. It returns nil where there is an
// exit record already, ErrBusy while the shim is alive, ErrNotStarted where
// Revoke is due, and a LeftoversError where something cannot be killed: call it
// again later.
func (a *Attempt) RecordLost(reason string) error {
	lock, err := a.lockAfterShim()
	if err != nil {
		return fmt.Errorf("record attempt %s as lost: %w", a.key, err)
	}
	defer unlock(lock)
	if _, ended, err := a.Exit(); err != nil || ended {
		return err
	}
	started, ok, err := a.Started()
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("record attempt %s as lost: %w", a.key, ErrNotStarted)
	}
	if err := a.KillLeftovers(); err != nil {
		return err
	}
	if w, ok, _ := a.Witness(); ok { // one that cannot be read adds nothing
		reason += ": " + w.String()
	}
	exit := Exit{
		Code: -1, Class: job.ClassHostLost, Reason: reason, Lost: true,
		Started: started.Time, Ended: time.Now().UTC(),
	}
	if info, err := os.Stat(a.LogPath()); err == nil {
		exit.LogBytes = info.Size()
	}
	if stop, ok, err := a.Stopping(); err != nil {
		return err
	} else if ok {
		exit.Class, exit.StopReason, exit.StopDetail = stop.Reason.Class(), stop.Reason, stop.Detail
	}
	return a.WriteExit(exit)
}

// Leftovers returns the processes of the attempt that are alive, without its
// shim: those in its cgroup, in its command's session, with its variables in
// their environment, and all their descendants. An attempt's devices are free
// only when there are none.
func (a *Attempt) Leftovers() ([]int, error) {
	mark, ok, err := a.mark()
	if err != nil || !ok {
		return nil, err
	}
	procs, err := proctree.Find(mark)
	if err != nil {
		return nil, fmt.Errorf("look for processes of attempt %s: %w", a.key, err)
	}
	pids := make([]int, 0, len(procs))
	for _, p := range procs {
		pids = append(pids, p.PID)
	}
	return pids, nil
}

// KillLeftovers kills what Leftovers finds until there is nothing, and removes
// the attempt's cgroup. The shim must be gone.
func (a *Attempt) KillLeftovers() error {
	mark, ok, err := a.mark()
	if err != nil || !ok {
		return err
	}
	left, err := proctree.KillAll(mark, killWait)
	if err != nil {
		return fmt.Errorf("kill what is left of attempt %s: %w", a.key, err)
	}
	if len(left) > 0 {
		return &LeftoversError{Key: a.key, PIDs: left}
	}
	return nil
}

// mark tells by what the attempt's processes are known; false where it has none,
// since it was started in another boot.
func (a *Attempt) mark() (proctree.Mark, bool, error) {
	mark := proctree.Mark{Environ: []string{
		EnvJobID + "=" + string(a.key.JobID),
		fmt.Sprintf("%s=%d", EnvAttempt, a.key.Attempt),
	}}
	started, ok, err := a.Started()
	if err != nil || !ok {
		return mark, err == nil, err
	}
	boot, err := proctree.BootID()
	if err != nil {
		return mark, false, err
	}
	mark.Leader = proctree.Process{PID: started.PID, Ticks: started.StartTicks}
	mark.Shim = proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}
	mark.Since = started.ShimTicks // nothing of the attempt is older than its shim
	mark.Cgroup = proctree.Cgroup(started.Cgroup)
	return mark, boot == started.BootID, nil
}
