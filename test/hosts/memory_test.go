package hosts

import (
	"testing"

	"gpuqd/daemon/job"
)

// These need cgroup v2, as a Debian host has it: containers here share the
// machine's own version, and its v1 names no reason for a process's end.

func TestJobIsEndedAtItsMemoryMax(t *testing.T) {
	s := need(t)
	vm := s.needVM(t)
	id := s.submit(t, vm, "--pool", vm.role, "--memory", "64MiB", "--", payload, "--memory", "300000000", "--work", "1h")
	j := s.waitEnd(t, id)
	if j.State != job.Failed || j.Result.Class != job.ClassOOMHost {
		t.Errorf("the job is %s (%s) with the result %+v; want failed, of class %s", j.State, j.Reason, j.Result, job.ClassOOMHost)
	}
	if got := vm.property(t, "gpuqd", "ActiveState"); got != "active" {
		t.Errorf("gpuqd itself is %s", got)
	}
	// One that stays below is left alone.
	id = s.submit(t, vm, "--pool", vm.role, "--memory", "256MiB", "--", payload, "--memory", "30000000", "--work", "1s")
	s.expectOneResult(t, id, 1)
}

func TestJobIsFrozenByTheFreezerOfItsUnit(t *testing.T) {
	s := need(t)
	vm := s.needVM(t)
	id := s.submit(t, vm, "--pool", vm.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	// The others are cut off as well: else they would take the job over.
	s.cut(t, s.all()...)
	ids := map[*host]job.ID{vm: id}
	s.expectFrozen(t, ids)
	s.heal(t)
	s.expectThawed(t, ids)
}
