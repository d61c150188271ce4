package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/test/cluster"
	"gpuqd/test/scriptednvml"
	"gpuqd/test/wait"
)

// TestHungDriver is a host whose NVIDIA driver keeps calls for good, of one device and
// then of all: what hangs takes no work and says why, the other device never notices,
// nor does the daemon, the job on it ends with its result, and all is well again when
// the driver is.
func TestHungDriver(t *testing.T) {
	driver := scriptednvml.New(t, scriptednvml.Script{Devices: []scriptednvml.Device{
		{UUID: "GPU-a", Model: "NVIDIA H100 80GB HBM3", Bus: 1, Memory: 80 << 30},
		{UUID: "GPU-b", Model: "NVIDIA H100 80GB HBM3", Bus: 2, Minor: 1, Memory: 80 << 30},
	}})
	e := startClusterOver(t, driver)
	e.waitDevices(t, "free", "")

	w, gate := newWitness(t), filepath.Join(t.TempDir(), "gate")
	running := e.submit(t, append([]string{"--"}, w.script("while [ ! -e "+gate+" ]; do sleep 0.1; done")...)...)
	w.waitStart(t, running)
	daemon := e.pid(t, "worker_1")

	// One device that hangs is the others' business in nothing.
	driver.Change(t, func(s *scriptednvml.Script) {
		s.Calls = []scriptednvml.Call{{UUID: "GPU-a", Hangs: true}}
	})
	e.waitRow(t, "GPU-a", inState("sick", "the driver does not answer about it"))
	beside := e.submit(t, append([]string{"--"}, w.script("true")...)...)
	if j := e.waitEnd(t, beside); j.State != job.Succeeded || !slices.Equal(j.Result.Devices, []string{"GPU-b"}) {
		t.Errorf("a job beside the device that hangs is %s (%s), want succeeded on the other", j.State, j.Reason)
	}
	e.waitRow(t, "GPU-b", inState("free", ""))

	driver.Change(t, func(s *scriptednvml.Script) {
		s.Calls = []scriptednvml.Call{{Name: "nvmlDeviceGetUUID", Hangs: true}}
	})
	e.waitDevices(t, "sick", "has said nothing for 2s; it may hang in the driver")
	waiting := e.submit(t, append([]string{"--"}, w.script("true")...)...)
	e.why(t, "worker_1", waiting, "2 sick: device 0, ", "said nothing for 2s")
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if j := e.expectOneResult(t, running, job.Succeeded); j.Attempt != 1 {
		t.Errorf("the job on the silent device is %s in attempt %d, want its first", j.State, j.Attempt)
	}
	e.waitMetric(t, `gpuqd_devices{state="sick"}`, 2)
	if j := e.show(t, waiting); j.State != job.Queued {
		t.Errorf("the next job is %s, want queued: no device can be trusted", j.State)
	}
	if !driver.Hanging() {
		t.Error("the helper in the driver is gone: it was not left alone")
	}

	driver.Change(t, func(s *scriptednvml.Script) { s.Calls = nil })
	e.expectOneResult(t, waiting, job.Succeeded)
	e.waitDevices(t, "free", "")
	if now := e.pid(t, "worker_1"); now != daemon {
		t.Errorf("gpuqd was process %d and is %d: it has noticed", daemon, now)
	}
	if strings.Contains(e.log(t, "worker_1"), "loop makes no progress") {
		t.Error("a loop of gpuqd stood still while the driver hung")
	}
	if t.Failed() {
		e.logTails(t)
	}
}

// startClusterOver starts a cluster of one worker, whose devices are a scripted
// driver's. The driver works again before it is stopped.
func startClusterOver(t *testing.T, driver *scriptednvml.Library) *env {
	t.Helper()
	helper := scriptednvml.BuildHelper(t)
	e := startClusterWith(t, config.LedgerSQLite, func(o *cluster.Options) {
		o.Workers, o.RabbitNodes = 1, 1
		configure := o.Configure
		o.Configure = func(worker string, cfg *config.Config) {
			configure(worker, cfg)
			cfg.Device = config.Default().Device
			cfg.Device.Helper, cfg.Device.Library = helper, driver.Path
			cfg.Device.Silence = job.Duration(2 * time.Second)
		}
	})
	t.Cleanup(func() { driver.Change(t, func(s *scriptednvml.Script) { s.Calls = nil }) })
	return e
}

// waitDevices waits until there are devices and all are in a state, for a reason that
// has a text.
func (e *env) waitDevices(t *testing.T, state, reason string) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		rows, err := e.allDevices(t)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.State != state || !strings.Contains(row.Reason, reason) {
				return fmt.Errorf("%s is %s (%s), want %s (%s)", row.UUID, row.State, row.Reason, state, reason)
			}
		}
		return nil
	})
}

// waitRow waits until a device is as a check wants it.
func (e *env) waitRow(t *testing.T, uuid string, check func(control.DeviceRow) error) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		rows, err := e.allDevices(t)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(rows, func(d control.DeviceRow) bool { return d.UUID == uuid })
		if i < 0 {
			return fmt.Errorf("there is no device %s", uuid)
		}
		return check(rows[i])
	})
}

// allDevices returns the devices of all workers, of which there must be some.
func (e *env) allDevices(t *testing.T) ([]control.DeviceRow, error) {
	t.Helper()
	r := e.ctl(t, "devices", "--json")
	var rows []control.DeviceRow
	if err := json.Unmarshal([]byte(r.Stdout), &rows); err != nil {
		return nil, fmt.Errorf("gpuqctl devices: exit code %d, %q: %w", r.Code, r.Stderr, err)
	}
	if len(rows) == 0 {
		return nil, errors.New("there are no devices")
	}
	return rows, nil
}

// pid returns the process of a unit.
func (e *env) pid(t *testing.T, unit string) int {
	t.Helper()
	for _, s := range e.Status() {
		if s.Name == unit && s.Pid > 0 {
			return s.Pid
		}
	}
	t.Fatalf("%s does not run", unit)
	return 0
}
