package agent

import (
	"context"
	"strings"
	"testing"

	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/placement"
	"gpuqd/daemon/runner"
)

// useSized gives the host one device of 80 GiB of a model.
func (b operateBench) useSized(t *testing.T) (uuid string) {
	t.Helper()
	b.devices = device.New("a", &device.Simulated{Host: "a", Count: 1, Model: "NVIDIA H100 80GB HBM3", MemoryBytes: 80 << 30}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	over, devices := make(chan struct{}), b.devices
	go func() { defer close(over); _ = devices.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-over })
	<-devices.Ready()
	return device.SimulatedUUID("a", 0)
}

// submitSpec puts a queued job of ada's into the ledger.
func (b operateBench) submitSpec(t *testing.T, change func(*job.Spec)) *job.Job {
	t.Helper()
	spec := job.DefaultSpec()
	spec.Command = []string{"true"}
	change(&spec)
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	j, _, err := b.ledger.Submit(t.Context(), job.New(job.NewID(), "ada", spec, b.now()))
	if err != nil {
		t.Fatal(err)
	}
	b.shapes.add(j.Queue)
	return j
}

// TestViewCountsWhatIsPromisedOfADevice: a device that parts are promised of is
// shared before the first of them has it.
func TestViewCountsWhatIsPromisedOfADevice(t *testing.T) {
	b := newOperateBench(t)
	uuid := b.useSized(t)
	take := placement.Take{Devices: []string{uuid}, Share: 30 << 30}
	if v := b.view(); len(v.Free) != 1 || len(v.Shared) != 0 || v.Free[0].Model == "" {
		t.Fatalf("view %+v", v)
	}
	if !b.promise(take) {
		t.Fatal("a part of a free device was not promised")
	}
	if v := b.view(); len(v.Free) != 0 || len(v.Shared) != 1 || v.Shared[0].RoomBytes != 50<<30 {
		t.Errorf("view %+v", v)
	}
	// Granted before the promise ends: counted twice for a moment, never not at all.
	if err := b.devices.Acquire(job.NewID(), 1, take.Devices, 30<<30); err != nil {
		t.Fatal(err)
	}
	if v := b.view(); len(v.Shared) != 1 || v.Shared[0].RoomBytes != 20<<30 {
		t.Errorf("view %+v", v)
	}
	b.runs.unpromise(take)
	if !b.promise(placement.Take{Devices: []string{uuid}, Share: 50 << 30}) {
		t.Error("what is left was not promised")
	}
	if v := b.view(); len(v.Free)+len(v.Shared) != 0 {
		t.Errorf("view %+v", v)
	}
}

// TestWhyTellsTheRoomOfSharedDevices, here and, by what they report, elsewhere.
func TestWhyTellsTheRoomOfSharedDevices(t *testing.T) {
	b := newOperateBench(t)
	uuid := b.useSized(t)
	j := b.submitSpec(t, func(s *job.Spec) { s.GPUMemory = 30 << 30 })
	if got := b.why(t, j.ID).Sentence; !strings.Contains(got, "waits for its turn: a has room for 30 GiB on 1 of 1 device") {
		t.Errorf("got %q", got)
	}
	if err := b.devices.Acquire(job.NewID(), 1, []string{uuid}, 60<<30); err != nil {
		t.Fatal(err)
	}
	want := "waits for room on a device with at least 30 GiB to share in pool default: a has room for 30 GiB on 0 of 1 device (0: 20 GiB left)"
	if got := b.why(t, j.ID).Sentence; !strings.Contains(got, want) {
		t.Errorf("got %q", got)
	}
	if err := b.renewOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := b.ledger.Host(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if d := explainedDevices(h, h.Devices)[0]; !d.Shared || d.RoomBytes != 20<<30 || d.MemoryBytes != 80<<30 {
		t.Errorf("the ledger has %+v", d)
	}
}

// TestWhyNamesTheConstraintThatNobodyMeets, and the submission was warned.
func TestWhyNamesTheConstraintThatNobodyMeets(t *testing.T) {
	b := newOperateBench(t)
	b.useSized(t)
	if err := b.renewOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosts, err := b.ledger.HostList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.hosts.Store(&hosts)
	for _, c := range []struct {
		change func(*job.Spec)
		want   string
	}{
		{func(s *job.Spec) { s.GPUModel = "a100" }, "waits for a device of model a100: no live host of pool default has one; a has no such device of 1 (0: NVIDIA H100 80GB HBM3)"},
		{func(s *job.Spec) { s.MinGPUMemory = 81 << 30 }, "with at least 81 GiB: no live host of pool default has one; a has no such device of 1 (0: 80 GiB of memory)"},
		{func(s *job.Spec) { s.GPUMemory = 90 << 30 }, "with at least 90 GiB to share: no live host of pool default has one"},
	} {
		j := b.submitSpec(t, c.change)
		if got := b.why(t, j.ID).Sentence; !strings.Contains(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
		if got := b.unplaceable(j.Spec); !strings.Contains(got, c.want) {
			t.Errorf("warned with %q, want %q", got, c.want)
		}
	}
	able := b.submitSpec(t, func(s *job.Spec) { s.GPUModel, s.GPUMemory = "h100", 12<<30 })
	if got := b.unplaceable(able.Spec); got != "" {
		t.Errorf("warned with %q", got)
	}
}

// TestSharedDeviceCountsByItsPart in what a job has used.
func TestSharedDeviceCountsByItsPart(t *testing.T) {
	b := newOperateBench(t)
	uuid := b.useSized(t)
	for share, want := range map[int64]float64{0: 1, 20 << 30: 0.25, 90 << 30: 1} {
		r := &run{a: b.Agent, job: &job.Job{Spec: job.Spec{GPUs: 1, GPUMemory: share}}, devices: []string{uuid}}
		if got := r.devicesHeld(); got != want {
			t.Errorf("%d bytes of a device count as %v, want %v", share, got, want)
		}
	}
}

// TestIntentHasTheShare, from which a later daemon adopts the attempt.
func TestIntentHasTheShare(t *testing.T) {
	b := newOperateBench(t)
	uuid := b.useSized(t)
	j := b.submitSpec(t, func(s *job.Spec) { s.GPUMemory = 12<<30 + 5 })
	j, err := b.ledger.Claim(t.Context(), ledger.Claim{
		JobID: j.ID, Host: "a", Session: b.lease.current(), ClaimID: "claim", Devices: []string{uuid}, Now: b.now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	in, err := newRun(b.Agent, j, []string{uuid}).intent()
	if err != nil || in.GPUMemoryBytes != 12<<30+5 {
		t.Fatalf("the shim is told %d bytes, %v", in.GPUMemoryBytes, err)
	}
	if err := b.adopt(runFor(t, b.leaseBench), adoptable{in: in}); err != nil {
		t.Fatal(err)
	}
	if c, ok := b.devices.Room(uuid); !ok || !c.Shared || c.RoomBytes != 68<<30-5 {
		t.Errorf("after the adoption there is %+v", c)
	}
}

// adoptable is an attempt that runs on and on.
type adoptable struct {
	Attempt
	in runner.Intent
}

func (a adoptable) Intent() *runner.Intent          { return &a.in }
func (adoptable) Exit() (*runner.Exit, bool, error) { return nil, false, nil }
func (adoptable) Key() runner.Key                   { return runner.Key{} }
func (adoptable) RequestStop(runner.Stop) error     { return nil }
func (adoptable) Wait(ctx context.Context) (*runner.Exit, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
