package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// testDeviceSick makes a free device sick. Jobs go elsewhere, and who looks sees
// which device and why; when it is over it takes work again.
func testDeviceSick(t *testing.T, e *env) {
	const host = "worker_2"
	uuids := e.fault(t, host, fault.Fault{Kind: fault.Sick, Device: "1", Reason: "it smokes"})
	uuid := device.SimulatedUUID(host, 1)
	if !slices.Equal(uuids, []string{uuid}) {
		t.Errorf("it struck %q, want %s", uuids, uuid)
	}
	t.Run("OperatorSeesIt", func(t *testing.T) {
		e.waitDevice(t, host, 1, inState("sick", "it smokes"))
		if d := e.deviceRow(t, host, 1); !slices.Equal(d.Faults, []string{`sick "it smokes"`}) || d.Since.IsZero() || !d.Simulated {
			t.Errorf("%+v", d)
		}
		if d := e.deviceRow(t, host, 0); d.State != "free" || len(d.Faults) > 0 {
			t.Errorf("the device beside it: %+v", d)
		}
		r := e.ctl(t, "devices", host+"/1")
		for _, want := range []string{"State         sick", "Reason        it smokes", "Faults        sick", "Simulated GPU", uuid} {
			if !strings.Contains(r.Stdout, want) {
				t.Errorf("gpuqctl devices %s/1 does not say %q:\n%s", host, want, r.Stdout)
			}
		}
		t.Logf("gpuqctl devices %s/1:\n%s", host, r.Stdout)
		wait.For(t, jobTimeout, func() error { // its next renewal tells the others
			sick := e.hostRow(t, host).Sick
			if !slices.Equal(sick, []control.SickDevice{{UUID: uuid, Index: 1, Reason: "it smokes"}}) {
				return fmt.Errorf("hosts show %+v", sick)
			}
			return nil
		})
		e.expectEvents(t, host+"/"+uuid, "simulate_device")
	})
	t.Run("MetricsCountIt", func(t *testing.T) {
		e.waitMetric(t, `gpuqd_devices{state="sick"}`, 1)
		e.waitMetric(t, `gpuqd_devices{state="free"}`, float64(2*len(e.Workers())-1))
	})
	t.Run("UserIsToldWhyAJobOfTwoDevicesWaits", func(t *testing.T) {
		w, g := newWitness(t), newGate(t)
		e.only(t, host)
		id := e.submit(t, append([]string{"--gpus", "2", "--"}, w.script(g.body())...)...)
		e.why(t, host, id, "waits for 2 free devices", "1 sick: device 1, it smokes")
		g.open(t)
		e.fault(t, host, fault.Fault{Kind: fault.Clear, Device: "1"})
		if j := e.waitEnd(t, id); j.State != job.Succeeded || j.Result.Host != host || j.Attempt != 1 {
			t.Errorf("job is %s (%s) on %s after attempt %d", j.State, j.Reason, j.Result.Host, j.Attempt)
		}
	})
	e.waitDevice(t, host, 1, inState("free", ""))
	e.waitMetric(t, `gpuqd_devices{state="sick"}`, 0)
}

// testDeviceProcess has a job's own process show on its device, with memory, as a
// driver shows it, until the job ends.
func testDeviceProcess(t *testing.T, e *env) {
	w, g := newWitness(t), newGate(t)
	j, index, pid := e.startOnDevice(t, w, g)
	host := j.Owner.Host
	e.fault(t, host, fault.Fault{Kind: fault.Process, Device: fmt.Sprint(index), PID: pid, MemoryBytes: 3 << 30})
	e.fault(t, host, fault.Fault{Kind: fault.Temperature, Device: fmt.Sprint(index), Celsius: 81})
	e.fault(t, host, fault.Fault{Kind: fault.Throttle, Device: fmt.Sprint(index), Reason: "sw_power_cap"})
	want := []control.DeviceProcess{{PID: pid, MemoryUsedBytes: 3 << 30}}
	d := e.deviceRow(t, host, index)
	if d.State != "busy" || d.JobID != j.ID || !slices.Equal(d.Processes, want) || d.MemoryUsedBytes != 3<<30 ||
		d.TemperatureCelsius == nil || *d.TemperatureCelsius != 81 || !slices.Equal(d.Throttle, []string{"sw_power_cap"}) || len(d.Holders) != 1 {
		t.Errorf("the device is %+v", d)
	}
	uuid := j.Owner.Devices[0]
	e.waitMetric(t, `gpuqd_device_processes{device_uuid="`+uuid+`"}`, 1)
	e.waitMetric(t, `gpuqd_device_memory_used_bytes{device_uuid="`+uuid+`"}`, 3<<30)
	t.Logf("gpuqctl devices %s/%d:\n%s", host, index, e.ctl(t, "devices", fmt.Sprintf("%s/%d", host, index)).Stdout)
	g.open(t)
	if end := e.waitEnd(t, j.ID); end.State != job.Succeeded || end.Attempt != 1 {
		t.Errorf("job is %s (%s) after attempt %d", end.State, end.Reason, end.Attempt)
	}
	e.waitDevice(t, host, index, func(d control.DeviceRow) error {
		if len(d.Processes) > 0 || d.MemoryUsedBytes > 0 || d.JobID != "" {
			return fmt.Errorf("its process has ended, and the device is %+v", d)
		}
		return inState("free", "")(d)
	})
}

// testDeviceLost takes a free device from its driver, and gives it back.
func testDeviceLost(t *testing.T, e *env) {
	const host = "worker_3"
	e.fault(t, host, fault.Fault{Kind: fault.Lost, Device: "0"})
	e.waitDevice(t, host, 0, inState("sick", "lost"))
	e.waitMetric(t, `gpuqd_devices{state="sick"}`, 1)
	r := e.ctl(t, "doctor", "--json")
	if !strings.Contains(r.Stdout, device.SimulatedUUID(host, 0)+": lost") {
		t.Errorf("gpuqctl doctor does not name it:\n%s", r.Stdout)
	}
	e.fault(t, host, fault.Fault{Kind: fault.Back, Device: "0"})
	e.waitDevice(t, host, 0, inState("free", ""))
	e.expectEvents(t, host+"/"+device.SimulatedUUID(host, 0), "simulate_device", "simulate_device")
}

// testDriverSilent has a worker hear nothing more of its devices while a job runs
// on one: they take no new work, and the job never notices.
func testDriverSilent(t *testing.T, e *env) {
	testDriver(t, e, fault.Silent, fault.Speak, "nothing has been said of the simulated devices for 2s")
}

// testDriverGone does so with a driver that says that it is gone.
func testDriverGone(t *testing.T, e *env) {
	testDriver(t, e, fault.DriverGone, fault.DriverBack, "the driver of the simulated devices is gone")
}

func testDriver(t *testing.T, e *env, fails, mends fault.Kind, reason string) {
	w, g := newWitness(t), newGate(t)
	j, index, _ := e.startOnDevice(t, w, g)
	host := j.Owner.Host
	e.fault(t, host, fault.Fault{Kind: fails})
	for i := range 2 {
		e.waitDevice(t, host, i, inState("sick", reason))
	}
	if d := e.deviceRow(t, host, index); d.JobID != j.ID {
		t.Errorf("the job's device is held by %q, want %s", d.JobID, j.ID)
	}
	e.waitMetric(t, `gpuqd_devices{state="sick"}`, 2)
	// As many more as there are devices elsewhere all go there, and the host's
	// daemon answers and renews as ever.
	for range 2 * (len(e.Workers()) - 1) {
		if other := e.startAtGate(t, w, g); other.Owner.Host == host {
			t.Errorf("job %s started on a device of which nobody knows anything", other.ID)
		}
	}
	status, err := e.at(t, host).Status(t.Context())
	if err != nil || !status.Ready || !strings.Contains(status.Line, "2 sick") || !strings.Contains(strings.Join(status.Missing, "; "), reason) {
		t.Errorf("status %+v, %v", status, err)
	}
	e.fault(t, host, fault.Fault{Kind: mends})
	e.waitDevice(t, host, index, inState("busy", ""))
	e.waitDevice(t, host, 1-index, inState("free", ""))
	g.open(t)
	if end := e.expectOneResult(t, j.ID, job.Succeeded); end.Attempt != 1 || end.Requeues != 0 {
		t.Errorf("job is %s after attempt %d, %d requeues", end.State, end.Attempt, end.Requeues)
	}
}

func testDeviceFaultRefused(t *testing.T, e *env) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"worker_9 0 lost", 4, "there is no host worker_9: gpuqctl hosts lists them"},
		{"worker_2 7 lost", 4, "gpuqctl devices --host worker_2 lists them"},
		{"worker_2 0 process --pid 4194304 --memory 1GiB", 2, "the host has no process 4194304"},
		{"worker_2 0 memory --memory 100TiB", 2, "an amount up to the device's memory"},
		{"worker_2 0 memory --memory 100GiB", 2, "is more than the"},
	} {
		r := e.ctl(t, append([]string{"simulate", "device"}, strings.Fields(c.args)...)...)
		if r.Code != c.code || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("%s: exit code %d: %s", c.args, r.Code, r.Stderr)
		}
	}
}
