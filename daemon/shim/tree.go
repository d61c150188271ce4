package main

import (
	"os"

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
	// asked are the processes that were asked to end, and askedUntil is when that
	// was, as a process's start is counted.
	asked      map[proctree.Process]bool
	askedUntil uint64
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
		return true, false
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

// thaw lets go on what freeze stopped.
func (t *tree) thaw() {
	if t.cgroup != "" {
		if err := t.cgroup.Freeze(false); err != nil {
			note("thaw the cgroup: %v", err)
		}
	}
	for p := range t.stopped {
		_ = proctree.Signal(p, unix.SIGCONT) // gone is as good
	}
	t.stopped = nil
}

// terminate asks everything to end. A stopped process is continued, so that it
// can.
func (t *tree) terminate() {
	procs, err := proctree.Descendants(os.Getpid())
	if err != nil {
		note("look for processes: %v", err)
	}
	t.asked = make(map[proctree.Process]bool)
	for _, p := range procs {
		t.asked[p.Process] = true
	}
	askToEnd(procs)
	t.askedUntil = proctree.Now() // until it gets the signal, a parent forks on
}

// terminateMissed asks those that terminate did not see, because they were being
// forked while it looked: what their parent's end has left to the shim since, and
// is as old. What the command starts in order to end well is younger, and has a
// parent that waits for it.
func (t *tree) terminateMissed() {
	procs, err := proctree.Descendants(os.Getpid())
	if err != nil {
		note("look for processes: %v", err)
	}
	var missed []proctree.Stat
	for _, p := range procs {
		if !t.asked[p.Process] && p.PPID == os.Getpid() && p.Ticks <= t.askedUntil {
			t.asked[p.Process] = true
			missed = append(missed, p)
		}
	}
	askToEnd(missed)
}

func askToEnd(procs []proctree.Stat) {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGCONT} {
		for _, p := range procs {
			_ = proctree.Signal(p.Process, sig) // gone is as good
		}
	}
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
