// Package placement decides what a host takes next: a pure function of what is
// free and which queues there are. Nothing is hoarded: a host takes one message
// at a time, and only when it can start it.
package placement

import (
	"cmp"
	"slices"

	"gpuqd/daemon/job"
)

// Device is a free device, as far as placing needs to know it.
type Device struct {
	UUID  string
	Index int
}

// View is what a decision is made of.
type View struct {
	Pools []string // that this host serves
	// AgainPools are those of which it serves the again queues alone: the
	// rehearsals of other hosts, once their first delivery has been lost.
	AgainPools []string
	Queues     []job.Shape // in use, in any order
	Free       []Device    // devices that may be granted now
	// FreeSlots is how many attempts without a device may be started now.
	FreeSlots int
}

// Take is one step that the host may take now: look into Queue, and start what
// comes on Devices.
type Take struct {
	Shape   job.Shape
	Queue   string   // the shape's again queue or its plain one
	Devices []string // UUIDs; as many as the shape needs
}

// Plan returns the takes that fit, in the order in which to try them: by
// priority; within one, the larger shape first, so that small jobs do not eat
// the room that a large one fits into; for one shape, republished jobs first.
// The host tries them until one yields a message, and then plans anew.
func Plan(v View) []Take {
	fitting := make([]job.Shape, 0, len(v.Queues))
	for _, s := range v.Queues {
		if (slices.Contains(v.Pools, s.Pool) || slices.Contains(v.AgainPools, s.Pool)) && fits(s, v) {
			fitting = append(fitting, s)
		}
	}
	slices.SortFunc(fitting, order)
	takes := make([]Take, 0, 2*len(fitting))
	for _, s := range fitting {
		devices := choose(v.Free, s.GPUs)
		takes = append(takes, Take{Shape: s, Queue: s.AgainQueue(), Devices: devices})
		if slices.Contains(v.Pools, s.Pool) {
			takes = append(takes, Take{Shape: s, Queue: s.Queue(), Devices: devices})
		}
	}
	return takes
}

func fits(s job.Shape, v View) bool {
	if s.GPUs == 0 {
		return v.FreeSlots > 0
	}
	return s.GPUs <= len(v.Free)
}

// choose grants the devices of lowest index, so that those which stay free are
// the same ones each time.
func choose(free []Device, n int) []string {
	sorted := slices.Clone(free)
	slices.SortFunc(sorted, func(a, b Device) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.UUID, b.UUID))
	})
	uuids := make([]string, n)
	for i := range n {
		uuids[i] = sorted[i].UUID
	}
	return uuids
}
