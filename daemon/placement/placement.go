// Package placement decides what a host takes next: a pure function of what is
// free and which queues there are. Nothing is hoarded: a host takes one message
// at a time, and only when it can start it.
package placement

import (
	"cmp"
	"math"
	"slices"

	"gpuqd/daemon/job"
)

// Device is a device, as far as placing needs to know it. What nobody knows is
// zero.
type Device struct {
	UUID              string
	Index             int
	Model             string
	MemoryBytes       uint64
	ComputeCapability string // such as "9.0"
	// RoomBytes is how much of the memory is left of a device that is shared.
	RoomBytes uint64
}

// View is what a decision is made of.
type View struct {
	Pools []string // that this host serves
	// AgainPools are those of which it serves the again queues alone: the
	// rehearsals of other hosts, once their first delivery has been lost.
	AgainPools []string
	Queues     []job.Shape // in use, in any order
	Free       []Device    // devices that may be granted now, whole or in part
	Shared     []Device    // devices of which others have a part, and RoomBytes may be granted
	// FreeSlots is how many attempts without a device may be started now.
	FreeSlots int
}

// Take is one step that the host may take now: look into Queue, and start what
// comes on Devices.
type Take struct {
	Shape   job.Shape
	Queue   string   // the shape's again queue or its plain one
	Devices []string // UUIDs; as many as the shape needs
	Share   uint64   // bytes that the job may need of its one device; 0 is whole devices
}

// Plan returns the takes that fit, in the order in which to try them: by
// priority; within one, the larger shape first, so that small jobs do not eat
// the room that a large one fits into, and of two that are as large the one that
// fewer devices can serve; for one shape, republished jobs first. A shape whose
// class cannot be read is not taken: it is not known what it asks for.
// The host tries them until one yields a message, and then plans anew.
func Plan(v View) []Take {
	fitting := make([]job.Shape, 0, len(v.Queues))
	for _, s := range v.Queues {
		if slices.Contains(v.Pools, s.Pool) || slices.Contains(v.AgainPools, s.Pool) {
			fitting = append(fitting, s)
		}
	}
	slices.SortFunc(fitting, order)
	takes := make([]Take, 0, 2*len(fitting))
	for _, s := range fitting {
		t, ok := fit(s, v)
		if !ok {
			continue
		}
		t.Shape, t.Queue = s, s.AgainQueue()
		takes = append(takes, t)
		if slices.Contains(v.Pools, s.Pool) {
			t.Queue = s.Queue()
			takes = append(takes, t)
		}
	}
	return takes
}

// fit chooses the devices for a shape; ok is false where it does not fit.
func fit(s job.Shape, v View) (t Take, ok bool) {
	c, err := job.ParseClass(s.Class)
	switch {
	case err != nil:
		return t, false
	case s.GPUs == 0:
		return t, v.FreeSlots > 0
	case c.ShareGiB == 0:
		t.Devices = whole(c, v.Free, s.GPUs)
	case s.GPUs == 1:
		t.Devices, t.Share = part(c, v), c.ShareBytes()
	}
	return t, t.Devices != nil
}

// whole chooses n whole devices, those with the least memory first, so that those
// which stay free serve what asks for more, and then by index, so that they are the
// same ones each time. It returns nil where there are not as many.
func whole(c job.Constraints, free []Device, n int) []string {
	able := meeting(c, free)
	if len(able) < n {
		return nil
	}
	slices.SortFunc(able, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.MemoryBytes, b.MemoryBytes), byIndex(a, b))
	})
	uuids := make([]string, n)
	for i := range n {
		uuids[i] = able[i].UUID
	}
	return uuids
}

// part chooses the device that a share fits into most tightly: one that is shared
// already, else a free one. It returns nil where there is none.
func part(c job.Constraints, v View) []string {
	able := meeting(c, v.Shared)
	able = slices.DeleteFunc(able, func(d Device) bool { return d.RoomBytes < c.ShareBytes() })
	if len(able) == 0 {
		return whole(c, v.Free, 1)
	}
	return []string{slices.MinFunc(able, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.RoomBytes, b.RoomBytes), byIndex(a, b))
	}).UUID}
}

func byIndex(a, b Device) int {
	return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.UUID, b.UUID))
}

// Tight reports whether a shape would leave nothing behind that it could use: all
// the free devices that meet it, or a part of one that is shared anyhow. The host
// should have it before hosts with more to give.
func Tight(s job.Shape, v View) bool {
	c, err := job.ParseClass(s.Class)
	if err != nil || s.GPUs == 0 {
		return false
	}
	if c.ShareGiB == 0 {
		return s.GPUs == len(meeting(c, v.Free))
	}
	return slices.ContainsFunc(meeting(c, v.Shared), func(d Device) bool { return d.RoomBytes >= c.ShareBytes() })
}

// Before reports whether hosts look at the queues of one shape before those of
// another, where both fit: the order of Plan.
func Before(a, b job.Shape) bool { return order(a, b) < 0 }

// order is that of Plan. A class that cannot be read counts as any here.
func order(a, b job.Shape) int {
	x, _ := job.ParseClass(a.Class)
	y, _ := job.ParseClass(b.Class)
	return cmp.Or(
		cmp.Compare(a.Priority.Rank(), b.Priority.Rank()),
		cmp.Compare(b.GPUs, a.GPUs),
		cmp.Compare(size(y), size(x)),
		cmp.Compare(narrowness(y), narrowness(x)),
		cmp.Compare(y.MemoryGiB, x.MemoryGiB),
		cmp.Compare(a.Queue(), b.Queue()))
}

// size is how much of a device the constraints take up: a whole one is more than
// any share.
func size(c job.Constraints) int {
	if c.ShareGiB == 0 {
		return math.MaxInt
	}
	return c.ShareGiB
}

// narrowness counts what is asked of a device's kind.
func narrowness(c job.Constraints) (n int) {
	for _, asked := range []bool{c.Model != "", c.MemoryGiB > 0, c.Capability != (job.ComputeCapability{})} {
		if asked {
			n++
		}
	}
	return n
}
