package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
)

// expectOneResult waits for a job's end and checks that it is the one end that the
// job has come to, with the result of its last attempt.
func (e *env) expectOneResult(t *testing.T, id job.ID, state job.State) *job.Job {
	t.Helper()
	j, ends := e.waitEnd(t, id), 0
	for _, change := range j.History {
		if change.State.Terminal() {
			ends++
		}
	}
	if j.State != state || ends != 1 || j.Result == nil || j.Result.Attempt != j.Attempt {
		t.Errorf("job %s is %s (%s) by attempt %d, it came to an end %d times: %+v; want once, %s", id, j.State, j.Reason, j.Attempt, ends, j.History, state)
	}
	return j
}

// testQuietErrors has memory errors counted under a job that nothing tells of: the
// job exits 0, and only the look after it finds them. That is no success.
func testQuietErrors(t *testing.T, e *env) {
	confined := e.metric(t, `gpuqd_device_quarantines_total{reason="ecc"}`)
	alarms := e.metric(t, `gpuqd_device_alarms_total{kind="device"}`)
	requeues := e.metric(t, `gpuqd_requeues_total{class="device"}`)
	w, g := newWitness(t), newGate(t)
	j, index, _ := e.startOnDevice(t, w, g)
	host, uuid := j.Owner.Host, j.Owner.Devices[0]
	counted := `gpuqd_device_ecc_errors{device_uuid="` + uuid + `",kind="uncorrected"}`
	e.mendAtEnd(t, host)
	e.fault(t, host, fault.Fault{Kind: fault.Uncorrected, Device: fmt.Sprint(index), Count: 2, Quiet: true})
	if d := e.deviceRow(t, host, index); d.State != "busy" || d.Reason != "" || e.metric(t, counted) != 0 {
		t.Errorf("before anybody has looked the device is %s (%s)", d.State, d.Reason)
	}
	g.open(t)

	where := fmt.Sprintf("%s/%d", host, index)
	t.Run("UserSeesARequeueAtNoCost", func(t *testing.T) {
		const told = "uncorrectable memory errors: 2 since the driver was loaded, 0 before; the command exited with 0"
		e.expectRequeued(t, j.ID, fmt.Sprintf("its result cannot be trusted: device %d: %s", index, told))
		end := e.expectOneResult(t, j.ID, job.Succeeded)
		if end.Attempt != 2 || end.Failures != 0 || end.Requeues != 1 || end.Result.Class != "" || end.Result.Devices[0] == uuid {
			t.Errorf("job is %s after attempt %d, %d failures, %d requeues, its result %+v", end.State, end.Attempt, end.Failures, end.Requeues, end.Result)
		}
		if n := w.starts(t)[j.ID]; n != 2 {
			t.Errorf("it ran %d times, want 2", n)
		}
		r := e.ctl(t, "show", string(j.ID))
		for _, want := range []string{"succeeded", "device", "its result cannot be trusted"} {
			if !strings.Contains(r.Stdout, want) {
				t.Errorf("gpuqctl show does not say %q:\n%s", want, r.Stdout)
			}
		}
		t.Logf("gpuqctl show:\n%s", r.Stdout)
	})
	t.Run("OperatorSeesAQuarantine", func(t *testing.T) {
		e.waitDevice(t, host, index, inState("sick", "uncorrectable memory errors: 2 since the driver was loaded"))
		e.waitDevice(t, host, index, inState("sick", "gpuqctl resume "+where))
		e.waitDevice(t, host, 1-index, inState("free", ""))
	})
	t.Run("MetricsCountIt", func(t *testing.T) {
		e.waitMetric(t, counted, 2)
		e.waitMetric(t, `gpuqd_device_quarantines_total{reason="ecc"}`, confined+1)
		e.waitMetric(t, `gpuqd_requeues_total{class="device"}`, requeues+1)
		e.waitMetric(t, `gpuqd_devices{state="sick"}`, 1)
		e.waitMetric(t, `gpuqd_device_alarms_total{kind="device"}`, alarms)
	})
	if reply := e.resume(t, host, fmt.Sprint(index)); !reply.Changed {
		t.Errorf("resume: %+v", reply)
	}
	e.waitDevice(t, host, index, inState("free", ""))
	e.expectEvents(t, host+"/"+device.SimulatedUUID(host, index), "resume", "simulate_device")
}

// testLeftOnDevice has a process of a job's own on its device when the job ends,
// which its shim does not find: it is older than the shim. gpuqd ends it, and the
// next job gets the device after that.
func testLeftOnDevice(t *testing.T, e *env) {
	const host = "worker_2"
	dirty := e.metric(t, `gpuqd_device_checks_total{result="dirty"}`)
	checking := e.metric(t, `gpuqd_device_seconds_total{state="checking"}`)
	w, g := newWitness(t), newGate(t)
	e.only(t, host)
	e.drain(t, host, control.DrainArgs{Host: host, Device: "1", Reason: "only device 0 is left"})
	e.drain(t, host, control.DrainArgs{Host: host, Reason: "nothing starts yet"})
	id := e.submit(t, append([]string{"--"}, w.script(g.body())...)...)
	left := exec.Command("sleep", "600")
	left.Env = []string{"PATH=/bin:/usr/bin", "GPUQ_JOB_ID=" + string(id), "GPUQ_ATTEMPT=1"}
	left.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = left.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = left.Process.Kill()
		<-ended
	})
	e.resume(t, host, "")
	w.waitStart(t, id)
	e.waitFor(t, id, job.Running)
	pid := left.Process.Pid
	e.fault(t, host, fault.Fault{Kind: fault.Process, Device: "0", PID: pid, MemoryBytes: 5 << 30})
	// One waits for the device, and sees for itself whether it is alone on it.
	alone := fmt.Sprintf("! grep -qs '^State:[^ZX]*$' /proc/%d/status", pid)
	next := e.submit(t, "--", "sh", "-c", alone)
	e.why(t, host, next, "waits for 1 free device")
	g.open(t)

	t.Run("UserSeesNothingOfIt", func(t *testing.T) {
		for _, id := range []job.ID{id, next} {
			if end := e.expectOneResult(t, id, job.Succeeded); end.Attempt != 1 || end.Result.Reason != "" || end.Result.Devices[0] != device.SimulatedUUID(host, 0) {
				t.Errorf("job %s ended after attempt %d with %+v", id, end.Attempt, end.Result)
			}
		}
	})
	<-ended
	if status := left.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("what the job left ended as %s, want by SIGKILL", left.ProcessState)
	}
	t.Run("OperatorSeesAFreeDeviceAndALine", func(t *testing.T) {
		e.waitDevice(t, host, 0, func(d control.DeviceRow) error {
			if len(d.Processes) > 0 || d.MemoryUsedBytes > 0 {
				return fmt.Errorf("the device is %+v", d)
			}
			return inState("free", "")(d)
		})
		log := e.log(t, host)
		for _, want := range []string{"process that an attempt left on its device is ended", fmt.Sprintf("process %d (sleep of user ", pid)} {
			if !strings.Contains(log, want) {
				t.Errorf("the log of %s does not say %q", host, want)
			}
		}
	})
	t.Run("MetricsCountIt", func(t *testing.T) {
		e.waitMetric(t, `gpuqd_device_checks_total{result="dirty"}`, dirty+1)
		e.waitMetric(t, "gpuqd_device_foreign_processes", 0)
		e.waitMetric(t, `gpuqd_devices{state="sick"}`, 0)
		if now := e.metric(t, `gpuqd_device_seconds_total{state="checking"}`); now <= checking {
			t.Errorf("devices were checked for %v s, before that for %v s", now, checking)
		}
	})
}
