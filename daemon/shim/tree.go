package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner/proctree"
)

// stopPasses bounds how often one freeze looks for processes that were forked
// while it stopped the others. What it misses is stopped at the next tick.
const stopPasses = 20

// tree is the command and all it has forked: the shim's descendants, since it is
// their subreaper, whatever sessions they make and whatever they ignore.
//
// Without a cgroup a freeze is SIGSTOP, which is less exact: a parent that waits
// with WUNTRACED sees its child stopped, and a process that others stop by hand
// in the middle of a freeze is continued with the rest.
type tree struct {
	cgroup proctree.Cgroup
	// stopped are the processes that this tree's freeze stopped. One that had
	// stopped by itself before is not among them and stays stopped after a thaw.
	stopped map[proctree.Process]bool
}

// freeze makes everything stand still: by the cgroup, and by SIGSTOP what is not
// in it. It reports whether it found nothing that had to be stopped; else it is
// to be called again, for what was forked meanwhile or is slow to stop.
func (t *tree) freeze() bool {
	if t.stopped == nil {
		t.stopped = make(map[proctree.Process]bool)
	}
	frozen := false
	if t.cgroup != "" {
		err := t.cgroup.Freeze(true)
		if frozen = err == nil; !frozen {
			note("freeze the cgroup: %v", err)
		}
	}
	for pass := range stopPasses {
		sent, fresh := t.stopOnce(frozen)
		if !fresh {
			return pass == 0 && !sent
		}
	}
	return false
}

// stopOnce stops what runs. It reports whether there was anything, and whether
// that was the first signal to any of it.
func (t *tree) stopOnce(cgroupFrozen bool) (sent, fresh bool) {
	procs, err := proctree.Descendants(os.Getpid())
	if err != nil {
		note("look for processes: %v", err)
		sent = true // some were not seen
	}
	for _, p := range procs {
		if p.State == 'T' || cgroupFrozen && t.cgroup.Has(p.PID) {
			continue
		}
		if proctree.Signal(p.Process, unix.SIGSTOP) != nil {
			continue // gone
		}
		sent = true
		if !t.stopped[p.Process] {
			t.stopped[p.Process], fresh = true, true
		}
	}
	return sent, fresh
}

// thaw lets go on what freeze stopped. After an error it is to be called again.
func (t *tree) thaw() error {
	if t.cgroup != "" {
		if err := t.cgroup.Freeze(false); err != nil {
			return fmt.Errorf("thaw the cgroup: %w", err)
		}
	}
	for p := range t.stopped {
		_ = proctree.Signal(p, unix.SIGCONT) // gone is as good
	}
	t.stopped = nil
	return nil
}

// holdMost bounds how long terminate waits for everything to stand still.
const holdMost = time.Second

// terminate asks everything to end. It holds the tree meanwhile: else a process
// that is just being forked is not seen, and outlives a parent that obeys. What
// cannot be held in time (it is in the kernel) is asked all the same. A stopped
// process is continued, so that it can end.
func (t *tree) terminate() {
	for end := time.Now().Add(holdMost); !t.still() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	procs, err := proctree.Descendants(os.Getpid())
	if err != nil {
		note("look for processes: %v", err)
	}
	for _, p := range procs {
		_ = proctree.Signal(p.Process, unix.SIGTERM) // gone is as good
	}
	if err := t.thaw(); err != nil {
		note("%v", err) // SIGKILL reaches what is frozen, too
	}
	for _, p := range procs {
		_ = proctree.Signal(p.Process, unix.SIGCONT)
	}
}

// still freezes, and reports whether everything stands still.
func (t *tree) still() bool {
	return t.freeze() && (t.cgroup == "" || t.cgroup.Frozen())
}

// kill ends what is there now; it is called until wait finds no child.
func (t *tree) kill() {
	if err := t.cgroup.Kill(); err != nil {
		note("kill the cgroup: %v", err)
	}
	procs, err := proctree.Descendants(os.Getpid())
	if err != nil {
		note("look for processes: %v", err)
	}
	for _, p := range procs {
		_ = proctree.Signal(p.Process, unix.SIGKILL) // gone is as good
	}
}
