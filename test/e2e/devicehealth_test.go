package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/test/cluster"
)

// testDeviceXID lets one device of a host fall off the bus under a job, beside a
// job on the other. It stays out over a restart of gpuqd, until an operator resumes
// it.
func testDeviceXID(t *testing.T, e *env) {
	const host = "worker_2"
	xids := e.metric(t, `gpuqd_device_xids_total{class="device",xid="79"}`)
	confined := e.metric(t, `gpuqd_device_quarantines_total{reason="xid"}`)
	alarms := e.metric(t, `gpuqd_device_alarms_total{kind="device"}`)
	w, g := newWitness(t), newGate(t)
	resume := e.only(t, host)
	j, index, _ := e.startOnDevice(t, w, g)
	bystander, beside, _ := e.startOnDevice(t, w, g)
	e.mendAtEnd(t, host)
	e.fault(t, host, fault.Fault{Kind: fault.XID, Device: fmt.Sprint(index), XID: 79})

	e.expectRequeued(t, j.ID, fmt.Sprintf("a device failed: device %d: XID 79", index))
	e.waitDevice(t, host, index, inState("sick", "XID 79 (GPU has fallen off the bus)"))
	e.waitDevice(t, host, index, inState("sick", fmt.Sprintf("gpuqctl resume %s/%d", host, index)))
	e.waitDevice(t, host, beside, inState("busy", ""))
	e.why(t, host, j.ID, fmt.Sprintf("1 sick: device %d, XID 79", index))
	e.waitMetric(t, `gpuqd_device_xids_total{class="device",xid="79"}`, xids+1)
	e.waitMetric(t, `gpuqd_device_quarantines_total{reason="xid"}`, confined+1)
	e.waitMetric(t, `gpuqd_devices{state="sick"}`, 1)
	if n := e.metric(t, `gpuqd_device_alarms_total{kind="device"}`); n <= alarms {
		t.Errorf("%v alarms, and %v before", n, alarms)
	}

	e.takeDown(t, host, e.KillAndKeepDown)
	e.bringUp(t, host)
	e.waitDevice(t, host, index, inState("sick", "XID 79"))
	resume()
	again := e.waitFor(t, j.ID, job.Running)
	if again.Owner.Host == host || again.Attempt != 2 {
		t.Errorf("attempt %d runs on %s", again.Attempt, again.Owner.Host)
	}
	g.open(t)
	if end := e.expectOneResult(t, j.ID, job.Succeeded); end.Attempt != 2 || end.Failures != 0 || end.Requeues != 1 {
		t.Errorf("job is %s after attempt %d, %d failures, %d requeues", end.State, end.Attempt, end.Failures, end.Requeues)
	}
	if end := e.expectOneResult(t, bystander.ID, job.Succeeded); end.Attempt != 1 {
		t.Errorf("the job beside it is %s after attempt %d", end.State, end.Attempt)
	}
	where := fmt.Sprintf("%s/%d", host, index)
	for _, says := range []string{"takes work again", "was not drained"} {
		if r := e.ctl(t, "resume", where); r.Code != 0 || !strings.Contains(r.Stdout, says) {
			t.Errorf("resume: exit code %d, %s%s; want %q", r.Code, r.Stdout, r.Stderr, says)
		}
	}
	e.waitDevice(t, host, index, inState("free", ""))
	e.expectEvents(t, host+"/"+device.SimulatedUUID(host, index), "resume")
}

// testHostXID has an error of one device that concerns the whole host.
func testHostXID(t *testing.T, e *env) {
	const host = "worker_3"
	xids := e.metric(t, `gpuqd_device_xids_total{class="host",xid="151"}`)
	confined := e.metric(t, `gpuqd_device_quarantines_total{reason="xid_host"}`)
	w, g := newWitness(t), newGate(t)
	resume := e.only(t, host)
	first, _, _ := e.startOnDevice(t, w, g)
	second, _, _ := e.startOnDevice(t, w, g)
	e.mendAtEnd(t, host)
	e.fault(t, host, fault.Fault{Kind: fault.XID, Device: "0", XID: 151})
	for i := range 2 {
		e.waitDevice(t, host, i, inState("sick", "XID 151"))
	}
	e.waitMetric(t, `gpuqd_devices{state="sick"}`, 2)
	e.waitMetric(t, `gpuqd_device_xids_total{class="host",xid="151"}`, xids+1)
	e.waitMetric(t, `gpuqd_device_quarantines_total{reason="xid_host"}`, confined+2)
	resume()
	g.open(t)
	for _, j := range []*job.Job{first, second} {
		e.expectRequeued(t, j.ID, "XID 151")
		if end := e.expectOneResult(t, j.ID, job.Succeeded); end.Attempt != 2 || end.Failures != 0 || end.Result.Host == host {
			t.Errorf("job is %s on %s after attempt %d, %d failures", end.State, end.Result.Host, end.Attempt, end.Failures)
		}
	}
	if reply := e.resume(t, host, ""); !reply.Changed {
		t.Errorf("resume: %+v", reply)
	}
	for i := range 2 {
		e.waitDevice(t, host, i, inState("free", ""))
	}
}

// testProgramXID has the driver blame a program. The device stays; who reads of the
// failure is told.
func testProgramXID(t *testing.T, e *env) {
	xids := e.metric(t, `gpuqd_device_xids_total{class="application",xid="31"}`)
	w, g := newWitness(t), newGate(t)
	j, index, _ := e.startOnDevice(t, w, g, "exit 3")
	host := j.Owner.Host
	e.fault(t, host, fault.Fault{Kind: fault.XID, Device: fmt.Sprint(index), XID: 31})
	e.waitMetric(t, `gpuqd_device_xids_total{class="application",xid="31"}`, xids+1)
	e.waitDevice(t, host, index, inState("busy", ""))
	g.open(t)
	end := e.expectOneResult(t, j.ID, job.Failed)
	if end.Result.Class != job.ClassUser || end.Result.ExitCode != 3 || end.Attempt != 1 {
		t.Errorf("job is %s, %+v", end.State, end.Result)
	}
	e.why(t, host, j.ID, "XID 31")
	e.waitDevice(t, host, index, inState("free", ""))
}

// testNoticeXID has the driver tell what concerns nobody now: it is counted, and a
// job that fails on the device is told nothing of it.
func testNoticeXID(t *testing.T, e *env) {
	const series = `gpuqd_device_xids_total{class="notice",xid="63"}`
	xids := e.metric(t, series)
	w, g := newWitness(t), newGate(t)
	j, index, _ := e.startOnDevice(t, w, g, "exit 3")
	host := j.Owner.Host
	e.fault(t, host, fault.Fault{Kind: fault.XID, Device: fmt.Sprint(index), XID: 63})
	e.waitMetric(t, series, xids+1)
	e.waitDevice(t, host, index, inState("busy", ""))
	g.open(t)
	if end := e.expectOneResult(t, j.ID, job.Failed); end.Result.Class != job.ClassUser || end.Attempt != 1 || strings.Contains(end.Result.Reason, "XID") {
		t.Errorf("job is %s, %+v", end.State, end.Result)
	}
	e.waitDevice(t, host, index, inState("free", ""))
	if log := e.log(t, host); !strings.Contains(log, "XID 63") {
		t.Errorf("the log of %s does not name it", host)
	}
}

// testDeviceFails goes through what else a driver can say of a device.
func testDeviceFails(t *testing.T, e *env) {
	for name, c := range map[string]struct {
		fault  fault.Fault
		reason string // the device's
		told   string // of the job that is ended; "" where it goes on
		resume bool   // ends it; else it is over with the fault
		counts string // a series that grows by one
	}{
		"UnknownXID": {
			fault.Fault{Kind: fault.XID, XID: 998},
			"XID 998", "", true,
			`gpuqd_device_quarantines_total{reason="xid_unknown"}`,
		},
		"MemoryErrors": {
			fault.Fault{Kind: fault.Uncorrected, Count: 2},
			"uncorrectable memory error", "uncorrectable memory error", true,
			`gpuqd_device_quarantines_total{reason="ecc"}`,
		},
		"ResetIsAskedFor": {fault.Fault{Kind: fault.Recovery, Action: "gpu_reset"}, "gpu_reset", "gpu_reset", false, ""},
		"DrainIsAskedFor": {fault.Fault{Kind: fault.Recovery, Action: "drain_and_reset"}, "drain_and_reset", "", false, ""},
		"Lost":            {fault.Fault{Kind: fault.Lost}, "lost", "the driver does not report it any more", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			const others = `gpuqd_device_xids_total{class="unknown",xid="other"}`
			counted, xids := 0.0, e.metric(t, others)
			if c.counts != "" {
				counted = e.metric(t, c.counts)
			}
			w, g := newWitness(t), newGate(t)
			j, index, _ := e.startOnDevice(t, w, g)
			host, uuid := j.Owner.Host, j.Owner.Devices[0]
			e.mendAtEnd(t, host)
			c.fault.Device = fmt.Sprint(index)
			e.fault(t, host, c.fault)
			e.waitDevice(t, host, index, inState("sick", c.reason))
			e.waitMetric(t, `gpuqd_devices{state="sick"}`, 1)
			if c.counts != "" {
				e.waitMetric(t, c.counts, counted+1)
			}
			if c.fault.Kind == fault.XID {
				xids++
			}
			e.waitMetric(t, others, xids)
			attempts := 1
			if c.told != "" {
				attempts = 2
				e.expectRequeued(t, j.ID, c.told)
				if again := e.waitFor(t, j.ID, job.Running); again.Owner.Devices[0] == uuid {
					t.Errorf("attempt %d runs on the device that failed", again.Attempt)
				}
			} else if d := e.deviceRow(t, host, index); d.JobID != j.ID {
				t.Errorf("it is held by %q, want %s", d.JobID, j.ID)
			}
			g.open(t)
			if end := e.expectOneResult(t, j.ID, job.Succeeded); end.Attempt != attempts || end.Failures != 0 {
				t.Errorf("job is %s after attempt %d, %d failures, want %d and none", end.State, end.Attempt, end.Failures, attempts)
			}
			e.waitDevice(t, host, index, inState("sick", c.reason))
			if !c.resume {
				e.fault(t, host, fault.Fault{Kind: fault.Clear, Device: fmt.Sprint(index)})
			} else if reply := e.resume(t, host, fmt.Sprint(index)); !reply.Changed {
				t.Errorf("resume: %+v", reply)
			}
			e.waitDevice(t, host, index, inState("free", ""))
		})
	}
}

// testDeviceDirty has memory in use on a device when its job is over, and nobody
// uses it.
func testDeviceDirty(t *testing.T, e *env) {
	dirty := e.metric(t, `gpuqd_device_checks_total{result="dirty"}`)
	w, g := newWitness(t), newGate(t)
	j, index, _ := e.startOnDevice(t, w, g)
	host := j.Owner.Host
	e.fault(t, host, fault.Fault{Kind: fault.Memory, Device: fmt.Sprint(index), MemoryBytes: 3 << 30})
	e.waitDevice(t, host, index, inState("busy", "")) // while it runs, memory in use is what it is for
	g.open(t)
	if end := e.expectOneResult(t, j.ID, job.Succeeded); end.Attempt != 1 {
		t.Errorf("job is %s after attempt %d", end.State, end.Attempt)
	}
	e.waitDevice(t, host, index, inState("sick", "not clean: 3.0 GiB"))
	e.waitDevice(t, host, 1-index, inState("free", ""))
	e.waitMetric(t, `gpuqd_device_checks_total{result="dirty"}`, dirty+1)
	e.fault(t, host, fault.Fault{Kind: fault.Clear, Device: fmt.Sprint(index)})
	e.waitDevice(t, host, index, inState("free", ""))
}

// testForeignProcess has a process on a free device that is none of gpuqd's.
func testForeignProcess(t *testing.T, e *env) {
	const host = "worker_2"
	cmd := exec.Command("sleep", "600")
	cmd.Env = []string{"PATH=/bin:/usr/bin"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	t.Cleanup(end)
	e.fault(t, host, fault.Fault{Kind: fault.Process, Device: "0", PID: cmd.Process.Pid, MemoryBytes: 2 << 30})
	e.waitDevice(t, host, 0, inState("sick", fmt.Sprintf("in use by process %d (sleep of user ", cmd.Process.Pid)))
	e.waitDevice(t, host, 0, inState("sick", "the device comes back by itself"))
	e.waitMetric(t, "gpuqd_device_foreign_processes", 1)
	w, g := newWitness(t), newGate(t)
	e.only(t, host)
	j, index, _ := e.startOnDevice(t, w, g)
	if index != 1 {
		t.Errorf("job %s runs on device %d", j.ID, index)
	}
	second := e.submit(t, "--", "true")
	e.why(t, host, second, "1 sick: device 0, in use by process")
	if cmd.ProcessState != nil || exec.Command("kill", "-0", fmt.Sprint(cmd.Process.Pid)).Run() != nil {
		t.Error("the process is gone: it was not gpuqd's to end")
	}
	end()
	e.expectOneResult(t, second, job.Succeeded)
	e.waitDevice(t, host, 0, inState("free", ""))
	e.waitMetric(t, "gpuqd_device_foreign_processes", 0)
	g.open(t)
	if one := e.expectOneResult(t, j.ID, job.Succeeded); one.Attempt != 1 {
		t.Errorf("job is %s after attempt %d", one.State, one.Attempt)
	}
}

// testOverUser has one of two jobs on a device take more memory than it asked for.
func testOverUser(t *testing.T, e *env) {
	const host = "worker_2"
	alarms := e.metric(t, `gpuqd_device_alarms_total{kind="memory"}`)
	w, g := newWitness(t), newGate(t)
	e.only(t, host)
	greedy, index, pid := e.startOnPart(t, "4GiB", w, g)
	modest, beside, other := e.startOnPart(t, "8GiB", w, g)
	if beside != index {
		t.Fatalf("they are on devices %d and %d, want one", index, beside)
	}
	for _, use := range []fault.Fault{{PID: other, MemoryBytes: 8 << 30}, {PID: pid, MemoryBytes: 6 << 30}} {
		if d := e.deviceRow(t, host, index); len(d.Holders) != 2 || d.Holders[0].MemoryBytes != 4<<30 || d.Holders[1].JobID != modest.ID {
			t.Errorf("the device is held by %+v", d.Holders)
		}
		use.Kind, use.Device = fault.Process, fmt.Sprint(index)
		e.fault(t, host, use)
	}
	end := e.expectOneResult(t, greedy.ID, job.Failed)
	if end.Result.Class != job.ClassOOMGPU || end.Failures != 1 {
		t.Errorf("the one that took more is %s (%s), %+v", end.State, end.Reason, end.Result)
	}
	e.why(t, host, greedy.ID, "used 6144 MiB of device", "4096 MiB")
	if got := e.metric(t, `gpuqd_device_alarms_total{kind="memory"}`); got <= alarms {
		t.Errorf("%v alarms, %v before", got, alarms)
	}
	e.waitDevice(t, host, index, func(d control.DeviceRow) error {
		if d.State != "busy" || len(d.Holders) != 1 || d.JobID != modest.ID || len(d.Processes) != 1 {
			return fmt.Errorf("the device is %+v", d)
		}
		return nil
	})
	g.open(t)
	if end := e.expectOneResult(t, modest.ID, job.Succeeded); end.Attempt != 1 {
		t.Errorf("the other is %s after attempt %d", end.State, end.Attempt)
	}
	e.waitDevice(t, host, index, inState("free", ""))
}

// TestBreakersAndInstances has a cluster of its own: in the others, jobs fail by
// appointment, and devices are whole.
func TestBreakersAndInstances(t *testing.T) {
	e := startClusterWith(t, config.LedgerSQLite, func(o *cluster.Options) {
		configure := o.Configure
		o.Configure = func(worker string, cfg *config.Config) {
			configure(worker, cfg)
			cfg.Device.BreakerFast = config.Default().Device.BreakerFast
			if worker == "worker_1" {
				cfg.Device.SimulatedMIG = 2
			}
		}
	})
	for claim, test := range map[string]func(*testing.T, *env){
		"JobsThatAllFailAtOnceTakeTheirDeviceOut": testBreaker,
		"XIDOfAGPUTakesItsInstancesOut":           testInstances,
	} {
		if !t.Run(claim, func(t *testing.T) { e.expectWhole(t); test(t, e) }) {
			e.logTails(t)
		}
	}
}

// testInstances has an error of a GPU that is cut into MIG instances, under a job on
// one of them.
func testInstances(t *testing.T, e *env) {
	const host = "worker_1"
	w, g := newWitness(t), newGate(t)
	resume := e.only(t, host)
	j, index, _ := e.startOnDevice(t, w, g)
	d := e.deviceRow(t, host, index)
	if d.MIGProfile != "3g.40gb" || d.MemoryBytes != 40<<30 || !strings.HasPrefix(d.UUID, device.SimulatedMIGPrefix) ||
		d.ParentUUID != device.SimulatedUUID(host, index/2) {
		t.Errorf("instance %d is %+v", index, d)
	}
	first := index - index%2
	t.Cleanup(func() {
		for i := range 2 {
			e.resume(t, host, fmt.Sprint(first+i))
		}
	})
	e.fault(t, host, fault.Fault{Kind: fault.XID, Device: d.ParentUUID, XID: 79})
	e.expectRequeued(t, j.ID, "XID 79")
	for i := range 4 {
		if i/2 == index/2 {
			e.waitDevice(t, host, i, inState("sick", "XID 79"))
		} else if other := e.deviceRow(t, host, i); other.State == "sick" {
			t.Errorf("instance %d of the other GPU is sick: %s", i, other.Reason)
		}
	}
	again := e.waitFor(t, j.ID, job.Running)
	if again.Owner.Host != host || again.Attempt != 2 || again.Owner.Devices[0] == d.UUID {
		t.Errorf("attempt %d runs on %v of %s", again.Attempt, again.Owner.Devices, again.Owner.Host)
	}
	resume()
	g.open(t)
	if end := e.expectOneResult(t, j.ID, job.Succeeded); end.Attempt != 2 {
		t.Errorf("job is %s after attempt %d", end.State, end.Attempt)
	}
	for i := range 2 {
		if reply := e.resume(t, host, fmt.Sprint(first+i)); !reply.Changed {
			t.Errorf("resume of instance %d: %+v", first+i, reply)
		}
		e.waitDevice(t, host, first+i, inState("free", ""))
	}
}

// testBreaker has jobs of two kinds fail, one after the other, on the one device that
// is left for them.
func testBreaker(t *testing.T, e *env) {
	const host = "worker_3"
	opens := e.metric(t, `gpuqd_device_breaker_opens_total{scope="device"}`)
	e.only(t, host)
	e.drain(t, host, control.DrainArgs{Host: host, Device: "1", Reason: "only device 0 is left", Mode: control.DrainFinish})
	e.mendAtEnd(t, host)
	for _, command := range [][]string{{"false"}, {"sh", "-c", "exit 3"}, {"false"}} {
		id := e.submit(t, append([]string{"--"}, command...)...)
		if j := e.expectOneResult(t, id, job.Failed); j.Result.Class != job.ClassUser {
			t.Errorf("%q is %s (%s)", command, j.State, j.Reason)
		}
	}
	e.waitDevice(t, host, 0, inState("sick", "breaker: job after job failed"))
	e.waitMetric(t, `gpuqd_device_breaker_opens_total{scope="device"}`, opens+1)
	id := e.submit(t, "--", "true")
	e.why(t, host, id, "1 sick: device 0, breaker")
	if reply := e.resume(t, host, "0"); !reply.Changed {
		t.Errorf("resume: %+v", reply)
	}
	if j := e.expectOneResult(t, id, job.Succeeded); j.Attempt != 1 {
		t.Errorf("job is %s after attempt %d", j.State, j.Attempt)
	}
	e.waitDevice(t, host, 0, inState("free", ""))
}
