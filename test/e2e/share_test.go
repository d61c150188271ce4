package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
)

// largeAt is the worker whose devices are larger than the others', and of another
// model.
const largeAt = "worker_3"

func configureLarge(worker string, cfg *config.Config) {
	if worker == largeAt {
		cfg.Device.SimulatedModel, cfg.Device.SimulatedMemoryBytes = "Simulated Large GPU", 160<<30
	}
}

// testConstraints: jobs go where their devices are, and one that no host can run is
// told so at once, and waits.
func testConstraints(t *testing.T, e *env) {
	var ids []job.ID
	for range 3 {
		ids = append(ids,
			e.submit(t, "--gpu-model", "large", "--", "true"),
			e.submit(t, "--min-gpu-memory", "81GiB", "--gpus", "2", "--", "true"))
	}
	for _, id := range ids {
		if j := e.waitEnd(t, id); j.State != job.Succeeded || j.Result.Host != largeAt {
			t.Errorf("job %s is %s (%s), its result %+v", id, j.State, j.Reason, j.Result)
		}
	}
	want := "it waits for a device of model h100: no live host of pool default has one; worker_1 has no such device of 2 (0, 1: Simulated GPU)"
	r := e.ctl(t, "submit", "--gpu-model", "H100", "--", "true")
	if r.Code != 0 || !strings.Contains(r.Stderr, want) {
		t.Errorf("submit: exit code %d, %q, want %q", r.Code, r.Stderr, want)
	}
	id := job.ID(strings.TrimSpace(r.Stdout))
	e.why(t, e.Workers()[0], id, strings.TrimPrefix(want, "it "), largeAt+" has no such device of 2 (0, 1: Simulated Large GPU)")
	if j := e.show(t, id); j.State != job.Queued || j.Queue != "gpuq.job.default.normal.g1.model-h100" {
		t.Errorf("job is %s in %s", j.State, j.Queue)
	}
	e.ctl(t, "kill", string(id))
	e.waitFor(t, id, job.Killed)
}

// testSharing: two jobs are on one device at a time, the third has no room and says
// so, and nobody gets the device as a whole; each is told its share, and its time
// counts by it.
func testSharing(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	e.drain(t, largeAt, control.DrainArgs{Host: largeAt, Device: "1", Reason: "one is enough"})
	shares := filepath.Join(t.TempDir(), "shares")
	submit := func(args ...string) job.ID {
		body := fmt.Sprintf("echo ${GPUQ_GPU_MEMORY_BYTES:-whole} >> %s; ", shares) + g.body()
		args = append(args, "--gpu-model", "large gpu", "--")
		return e.submit(t, append(args, w.script(body)...)...)
	}
	first, second := submit("--gpu-memory", "70GiB"), submit("--gpu-memory", "70GiB")
	device0 := device.SimulatedUUID(largeAt, 0)
	for _, id := range []job.ID{first, second} {
		w.waitStart(t, id)
		if j := e.waitFor(t, id, job.Running); j.Owner.Host != largeAt || strings.Join(j.Owner.Devices, " ") != device0 {
			t.Errorf("job %s is on %+v", id, j.Owner)
		}
	}
	third, whole := submit("--gpu-memory", "70GiB"), submit()
	e.why(t, largeAt, third, "waits for room on a device of model large gpu with at least 70 GiB to share",
		largeAt+" has room for 70 GiB on 0 of 2 devices (0: 20 GiB left; 1: cordoned, drained by", "one is enough")
	// What another host tells is as of this one's last renewal.
	e.why(t, e.Workers()[0], third, "(0: 20 GiB left; 1: cordoned")
	e.why(t, largeAt, whole, "waits for 1 free device of model large gpu", largeAt+" has 0 of 2 devices free (1 busy; 1 cordoned")
	if n := w.starts(t); n[third]+n[whole] != 0 {
		t.Errorf("started: %v", n)
	}
	g.open(t)
	for _, id := range []job.ID{first, second, third, whole} {
		j := e.waitEnd(t, id)
		if j.State != job.Succeeded || strings.Join(j.Result.Devices, " ") != device0 {
			t.Errorf("job %s is %s (%s), its result %+v", id, j.State, j.Reason, j.Result)
			continue
		}
		part := 70.0 / 160
		if id == whole {
			part = 1
		}
		held := j.Result.EndedAt.Sub(j.Result.StartedAt.Time).Seconds()
		if off := j.Result.GPUSeconds - part*held; off > 0.01 || off < -0.01 {
			t.Errorf("job %s counts %v GPU seconds of %v s", id, j.Result.GPUSeconds, time.Duration(held*float64(time.Second)))
		}
	}
	text, err := os.ReadFile(shares)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(text); strings.Count(got, "75161927680\n") != 3 || strings.Count(got, "whole\n") != 1 {
		t.Errorf("the jobs were told %q", got)
	}
}

// testOverUse: of two jobs on one device the one that uses more than it asked for is
// ended, with its figures; the other, and the device, go on.
func testOverUse(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	before := e.metric(t, `gpuqd_device_alarms_total{kind="memory"}`)
	e.drain(t, largeAt, control.DrainArgs{Host: largeAt, Device: "1", Reason: "one is enough"})
	start := func() (j *job.Job, pid int) {
		p := newPIDFile(t)
		id := e.submit(t, append([]string{"--gpu-model", "large gpu", "--gpu-memory", "70GiB", "--"}, w.script(p.body()+"; "+g.body())...)...)
		w.waitStart(t, id)
		return e.waitFor(t, id, job.Running), p.wait(t)
	}
	greedy, pid := start()
	modest, other := start()
	uuid := device.SimulatedUUID(largeAt, 0)
	for _, j := range []*job.Job{greedy, modest} {
		if strings.Join(j.Owner.Devices, " ") != uuid {
			t.Fatalf("job %s is on %+v", j.ID, j.Owner)
		}
	}
	use := func(pid int, gib uint64) {
		e.fault(t, largeAt, fault.Fault{Kind: fault.Process, Device: "0", PID: pid, MemoryBytes: gib << 30})
	}
	use(other, 70)
	use(pid, 60)
	e.waitDevice(t, largeAt, 0, func(d control.DeviceRow) error {
		if d.State != "busy" || len(d.Processes) != 2 {
			return fmt.Errorf("it is %s with processes %+v", d.State, d.Processes)
		}
		return nil
	})
	use(pid, 71)
	j := e.waitEnd(t, greedy.ID)
	if j.State != job.Failed || j.Result.Class != job.ClassOOMGPU || j.Failures != 1 {
		t.Errorf("job is %s (%s), its result %+v", j.State, j.Reason, j.Result)
	}
	for _, want := range []string{"it used more GPU memory than its share", "72704 MiB", "71680 MiB", "gpu_memory"} {
		if !strings.Contains(j.Result.Reason, want) {
			t.Errorf("reason %q does not say %q", j.Result.Reason, want)
		}
	}
	if got := e.metric(t, `gpuqd_device_alarms_total{kind="memory"}`); got <= before {
		t.Errorf("%v alarms are counted, before there were %v", got, before)
	}
	if j := e.show(t, modest.ID); j.State != job.Running {
		t.Errorf("the other is %s (%s)", j.State, j.Reason)
	}
	g.open(t)
	if j := e.waitEnd(t, modest.ID); j.State != job.Succeeded || j.Attempt != 1 {
		t.Errorf("the other is %s (%s) after attempt %d", j.State, j.Reason, j.Attempt)
	}
	e.waitDevice(t, largeAt, 0, inState("free", ""))
}
