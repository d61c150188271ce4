package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// testDeviceFails has a device fail under a running job: the attempt ends, the job
// runs elsewhere at no cost, the device takes nothing, not even after its daemon was
// killed, until an operator resumes it.
func testDeviceFails(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	j, index, _ := e.startOnDevice(t, w, g)
	host, where := j.Owner.Host, fmt.Sprintf("%s/%d", j.Owner.Host, index)
	quarantines := e.metric(t, `gpuqd_device_quarantines_total{reason="xid"}`)
	alarms := e.metric(t, `gpuqd_device_alarms_total{kind="device"}`)
	e.fault(t, host, fault.Fault{Kind: fault.XID, Device: fmt.Sprint(index), XID: 79})
	e.waitDevice(t, host, index, inState("sick", "XID 79 (GPU has fallen off the bus)"))
	e.waitDevice(t, host, index, inState("sick", "gpuqctl resume "+where))
	t.Run("JobRunsElsewhereAtNoCost", func(t *testing.T) {
		wait.For(t, jobTimeout, func() error {
			if now := e.show(t, j.ID); now.State != job.Running || now.Attempt != 2 {
				return fmt.Errorf("job is %s in attempt %d", now.State, now.Attempt)
			}
			return nil
		})
		again := e.show(t, j.ID)
		if again.Owner.Devices[0] == j.Owner.Devices[0] || again.Failures != 0 || again.Requeues != 1 {
			t.Errorf("it runs on %v after %d failures and %d requeues", again.Owner.Devices, again.Failures, again.Requeues)
		}
		said := ""
		for _, c := range again.History {
			if c.Class == job.ClassDevice {
				said = c.Reason
			}
		}
		for _, want := range []string{"a device failed", "XID 79", fmt.Sprintf("device %d", index)} {
			if !strings.Contains(said, want) {
				t.Errorf("the submitter is told %q, which does not say %q", said, want)
			}
		}
	})
	t.Run("MetricsCountIt", func(t *testing.T) {
		if n := e.metric(t, `gpuqd_device_xids_total{class="device",xid="79"}`); n < 1 {
			t.Errorf("%v XIDs were counted", n)
		}
		if n := e.metric(t, `gpuqd_device_quarantines_total{reason="xid"}`); n != quarantines+1 {
			t.Errorf("%v quarantines, and %v before", n, quarantines)
		}
		if n := e.metric(t, `gpuqd_device_alarms_total{kind="device"}`); n <= alarms {
			t.Errorf("%v alarms, and %v before", n, alarms)
		}
	})
	t.Run("QuarantineOutlivesTheDaemon", func(t *testing.T) {
		if err := e.Kill(host); err != nil {
			t.Fatal(err)
		}
		wait.For(t, jobTimeout, func() error { // the old process may answer for a moment
			if status, err := e.at(t, host).Status(t.Context()); err != nil || !status.Ready {
				return fmt.Errorf("status %+v, %v", status, err)
			}
			return nil
		})
		e.waitDevice(t, host, index, inState("sick", "XID 79"))
	})
	t.Run("ResumeEndsIt", func(t *testing.T) {
		if r := e.ctl(t, "resume", where); r.Code != 0 || !strings.Contains(r.Stdout, "takes work again") {
			t.Errorf("exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		e.waitDevice(t, host, index, func(d control.DeviceRow) error {
			if d.State == "sick" || d.State == "checking" {
				return fmt.Errorf("it is %s (%s)", d.State, d.Reason)
			}
			return nil
		})
		if r := e.ctl(t, "resume", where); r.Code != 0 || !strings.Contains(r.Stdout, "was not drained") {
			t.Errorf("again, exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		e.expectEvents(t, host+"/"+j.Owner.Devices[0], "resume", "simulate_device")
	})
	g.open(t)
	if end := e.waitEnd(t, j.ID); end.State != job.Succeeded || end.Attempt != 2 {
		t.Errorf("job is %s (%s) after attempt %d", end.State, end.Reason, end.Attempt)
	}
}

// testApplicationXID: a fault that is the program's own explains its failure, and
// leaves the device at work.
func testApplicationXID(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	p := newPIDFile(t)
	id := e.submit(t, append([]string{"--"}, w.script(p.body()+"; "+g.body()+"; exit 3")...)...)
	p.wait(t)
	j := e.waitFor(t, id, job.Running)
	e.fault(t, j.Owner.Host, fault.Fault{Kind: fault.XID, Device: j.Owner.Devices[0], XID: 31})
	g.open(t)
	end := e.waitEnd(t, id)
	if end.State != job.Failed || end.Result.ExitCode != 3 || !strings.Contains(end.Reason, "XID 31 (GPU memory page fault)") {
		t.Errorf("job is %s with exit code %d: %s", end.State, end.Result.ExitCode, end.Reason)
	}
}

// testForeignProcess puts a process of nobody's on a free device: it is named and
// left alone, and the device comes back when it is gone.
func testForeignProcess(t *testing.T, e *env) {
	const host = "worker_1"
	stranger := exec.Command("sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			_ = stranger.Process.Kill()
			_ = stranger.Wait()
		}
		ended = true
	}
	t.Cleanup(end)
	pid := stranger.Process.Pid
	e.fault(t, host, fault.Fault{Kind: fault.Process, Device: "1", PID: pid, MemoryBytes: 2 << 30})
	e.waitDevice(t, host, 1, inState("sick", fmt.Sprintf("process %d (sleep of user ", pid)))
	e.waitDevice(t, host, 1, inState("sick", "the device comes back by itself"))
	e.waitMetric(t, "gpuqd_device_foreign_processes", 1)
	e.waitDevice(t, host, 0, inState("free", ""))
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process was harmed: %v", err)
	}
	end()
	e.waitDevice(t, host, 1, inState("free", ""))
	e.waitMetric(t, "gpuqd_device_foreign_processes", 0)
}
