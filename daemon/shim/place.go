package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// place is where the shim runs: in a unit of its own, or as a process like others.
type place struct {
	unit, invocation string          // "" where there is no unit
	parent           proctree.Cgroup // below which the command gets a cgroup; "" where it gets none
	memory           proctree.Memory // of the whole unit
}

// settle finds out where the shim runs. In a unit it moves into a cgroup of its
// own, beside the one that the command will get: what freezes or kills the
// command's must not touch the shim, and a cgroup with both would be in the way
// of controllers below it. Where that cannot be, the process tree serves.
func settle(opts options) place {
	p := place{unit: opts.unit}
	if p.unit != "" {
		p.invocation = os.Getenv("INVOCATION_ID")
		p.memory = proctree.OwnMemory(p.unit) // before the move
	}
	if opts.noCgroup {
		return p
	}
	own, err := proctree.Own()
	if err == nil && p.unit != "" {
		err = enterOwn(own, p.unit)
	}
	if err != nil {
		note("no cgroup for this attempt, the process tree serves instead: %v", err)
		return p
	}
	p.parent = own
	return p
}

// unheld says which of the job's limits nothing holds it to here; "" for none.
func unheld(l runner.Limits, p place) string {
	if l == (runner.Limits{}) {
		return ""
	}
	switch {
	case p.unit == "":
		return "this host runs jobs as plain processes (runner.starter is process): memory_max, tasks_max and cpu_weight are not enforced"
	case l.MemoryBytesMax > 0 && p.memory == (proctree.Memory{}):
		return "this host's kernel does not count the memory of units: memory_max is not enforced"
	}
	return ""
}

// enterOwn moves the shim from its unit's cgroup into one below it.
func enterOwn(own proctree.Cgroup, unit string) error {
	if filepath.Base(string(own)) != unit {
		return fmt.Errorf("the shim is in %s, which is not the cgroup of its unit %s", own, unit)
	}
	c, err := own.Below("shim")
	if err == nil {
		err = c.Enter()
	}
	if err != nil {
		return errors.Join(err, c.Remove())
	}
	return nil
}
