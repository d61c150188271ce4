// Package disk simulates what a host runs attempts with: its journal
// (daemon/runner), the shims (daemon/shim) and their payloads. It stands behind
// the ports agent.Runner and agent.Attempt. TestConformance holds it to the real
// journal, starter and shim; what follows is the map from one to the other.
//
//	entry    an attempt's directory: intent, lock, and the slots of the record
//	shim     one run of gpuqd-shim, a process named "shim"
//	tree     the command and what it forked, a process named "payload"
//	version  what a deadline file held from some instant on
//
// A synced write is a call of the part Part: it takes the disk's time, and takes
// effect at one instant, unless its process is dead by then. All else that a
// process does with the disk takes no time. What was written stays, also over a
// crash of the host; deadline files are void then, since they name the boot.
//
// A shim looks at its attempt when the real one would and what it sees can differ:
// at the ticks of its loop and of its reader of the disk, which are a Tick apart
// each and share no phase. Ticks at which nothing can change are left out.
//
// Left out: damaged files, processes that survive SIGKILL, commands that cannot
// be executed, and output but for the witness's one line, which is kept on a full
// disk too.
package disk

import (
	"context"
	"fmt"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/sim/world"
)

// Part is the disk's name in rates; it has no wires.
const Part = "disk"

// Tick is how often a shim looks at its lease and for a stop request.
const Tick = 200 * time.Millisecond

// Options are what a host's attempts do.
type Options struct {
	// Payload returns what the command of an attempt does.
	Payload func(id job.ID, attempt int) Payload
}

// Payload is what a command does.
type Payload struct {
	Run         time.Duration // how long it runs, time in which it stood still aside
	Code        int           // what it exits with after that
	IgnoresTERM bool          // only SIGKILL ends it before
	// Forks leaves the work to processes that the shim's death does not end.
	Forks bool
}

// Disk is one host's disk and what runs from it.
type Disk struct {
	host    *world.Host
	world   *world.World
	payload func(id job.ID, attempt int) Payload

	// What follows is guarded by the world's instant.
	full     bool
	slow     time.Duration // the most that a synced write lasts in addition
	entries  map[runner.Key]*entry
	order    []*entry // as they were begun
	files    map[string]*deadlineFile
	workdirs map[string]bool
	shims    []*shim // alive
	trees    []*tree // alive, released
	pids     int     // the last one given
	pauses   pauses
}

// New returns a host's empty disk.
func New(h *world.Host, o Options) *Disk {
	return &Disk{
		host: h, world: h.World(), payload: o.Payload,
		entries: map[runner.Key]*entry{}, files: map[string]*deadlineFile{}, workdirs: map[string]bool{}, pauses: pauses{since: -1},
	}
}

// Full fills the disk, or makes room again. What takes space fails on a full one:
// Begin, a session's first deadline, a job's new working directory. Writes in
// place go on.
func (d *Disk) Full(on bool) { d.world.Do(func() { d.full = on }) }

// Slow lets every synced write last up to most in addition.
func (d *Disk) Slow(most time.Duration) { d.world.Do(func() { d.slow = most }) }

// KillShim kills one shim, as SIGKILL does. It reports whether there was one.
func (d *Disk) KillShim() bool {
	var s *shim
	d.world.Do(func() { s = pick(d, d.shims, "kill shim") })
	if s == nil {
		return false
	}
	s.proc.Kill()
	return true
}

// KillTree kills one payload, as SIGKILL does. It reports whether there was one.
func (d *Disk) KillTree() bool {
	var t *tree
	d.world.Do(func() {
		if t = pick(d, d.trees, "kill tree"); t != nil {
			t.kill()
		}
	})
	if t == nil {
		return false
	}
	t.proc.Kill()
	return true
}

// pick draws one of some, nil of none. Within Do.
func pick[T any](d *Disk, some []*T, word string) *T {
	if len(some) == 0 {
		return nil
	}
	return some[d.world.Draw(d.host.Name(), word)%uint64(len(some))]
}

// Running names the shims and payloads that are alive, for people. Call it within
// Do.
func (d *Disk) Running() (list []string) {
	for _, s := range d.shims {
		list = append(list, fmt.Sprintf("a shim of attempt %s runs on %s", s.e.name, d.host.Name()))
	}
	for _, t := range d.trees {
		list = append(list, fmt.Sprintf("the payload of attempt %s runs on %s", t.e.name, d.host.Name()))
	}
	return list
}

// write makes one synced write for a process. The error is world.ErrDead, and
// nothing is written, where the process dies before it happens.
func (d *Disk) write(p *world.Process, step, key string, effect func()) error {
	var slow time.Duration
	d.world.Do(func() { slow = d.slow })
	if slow > 0 && !nap(p, d.world.Between(0, slow, d.host.Name(), step, key, "slow")) {
		return world.ErrDead
	}
	return p.Do(context.Background(), world.Call{
		Part: Part, Step: step, Key: key, Effect: effect, Arrived: func() bool { return !p.Gone() },
	})
}

// at is a step that takes no time.
func (d *Disk) at(p *world.Process, step, key string, effect func()) error {
	return p.Do(context.Background(), world.Call{
		Step: step, Key: key, Effect: effect, Arrived: func() bool { return !p.Gone() }, OneWay: true,
	})
}

// nap lets a process wait. It returns false where the process is dead.
func nap(p *world.Process, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.Dead():
		return false
	}
}

// pid returns a number for a new process. Within Do.
func (d *Disk) pid() int {
	d.pids++
	return d.pids
}
