package agent

import (
	"testing"

	"gpuqd/daemon/job"
	"gpuqd/daemon/placement"
)

func TestRoom(t *testing.T) {
	b := newOperateBench(t)
	b.cfg.Host.Pools, b.cfg.Host.SlotsWithoutGPU = []string{"default"}, 1
	shape := func(gpus int) job.Shape {
		return job.Shape{Pool: "default", Priority: job.Normal, GPUs: gpus, Class: job.ClassAny}
	}
	for _, gpus := range []int{0, 1, 2, 4} {
		b.shapes.add(shape(gpus).Queue())
	}
	expect := func(when string, want ...int) {
		t.Helper()
		room := b.room()
		if len(room) != len(want) {
			t.Errorf("%s there is room for %v, want %v", when, room, want)
		}
		for _, gpus := range want {
			if !room[shape(gpus).Queue()] {
				t.Errorf("%s there is no room for %d devices", when, gpus)
			}
		}
	}
	expect("on an idle host", 0, 1, 2)
	devices := b.devices.Snapshot()
	for _, take := range []placement.Take{{Shape: shape(1), Devices: []string{devices[0].UUID}}, {Shape: shape(0)}} {
		if !b.promise(take) {
			t.Fatal("nothing was promised")
		}
		defer b.runs.unpromise(take)
	}
	expect("while takes wait for the broker", 0, 1, 2)
	b.claimAs(t, "ada", devices[1].UUID)
	expect("with an attempt", 0, 1)
	b.ready.Store(false)
	expect("during start-up")
}
