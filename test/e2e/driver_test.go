package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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

// TestHungDriver is a host whose NVIDIA driver keeps a call for good: its devices
// take no work and say why, the job on them ends with its result, the daemon never
// notices, and all is well again when the driver is.
func TestHungDriver(t *testing.T) {
	driver := scriptednvml.New(t, scriptednvml.Script{Devices: []scriptednvml.Device{
		{UUID: "GPU-a", Model: "NVIDIA H100 80GB HBM3", Bus: 1, Memory: 80 << 30},
		{UUID: "GPU-b", Model: "NVIDIA H100 80GB HBM3", Bus: 2, Minor: 1, Memory: 80 << 30},
	}})
	e := startClusterOver(t, driver)
	e.waitDevices(t, "free")

	w, gate := newWitness(t), filepath.Join(t.TempDir(), "gate")
	running := e.submit(t, append([]string{"--"}, w.script("while [ ! -e "+gate+" ]; do sleep 0.1; done")...)...)
	w.waitStart(t, running)
	daemon := e.pid(t, "worker_1")

	driver.Change(t, func(s *scriptednvml.Script) {
		s.Calls = []scriptednvml.Call{{Name: "nvmlDeviceGetUUID", Hangs: true}}
	})
	for _, d := range e.waitDevices(t, "sick") {
		if !strings.Contains(d.Reason, "said nothing for 2s") {
			t.Errorf("%s is sick as %q, want that the helper is silent", d.UUID, d.Reason)
		}
	}
	waiting := e.submit(t, append([]string{"--"}, w.script("true")...)...)
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if j := e.waitEnd(t, running); j.State != job.Succeeded || j.Attempt != 1 {
		t.Errorf("the job on the silent device is %s in attempt %d (%s), want succeeded in its first", j.State, j.Attempt, j.Reason)
	}
	if j := e.show(t, waiting); j.State != job.Queued {
		t.Errorf("the next job is %s, want queued: no device can be trusted", j.State)
	}
	if !driver.Hanging() {
		t.Error("the helper in the driver is gone: it was not left alone")
	}

	driver.Change(t, func(s *scriptednvml.Script) { s.Calls = nil })
	if j := e.waitEnd(t, waiting); j.State != job.Succeeded {
		t.Errorf("the next job is %s (%s), want succeeded", j.State, j.Reason)
	}
	e.waitDevices(t, "free")
	if now := e.pid(t, "worker_1"); now != daemon {
		t.Errorf("gpuqd was process %d and is %d: it has noticed", daemon, now)
	}
	log, err := os.ReadFile(e.LogPath("worker_1"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "loop makes no progress") {
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

// waitDevices waits until there are devices and all are in a state.
func (e *env) waitDevices(t *testing.T, state string) []control.DeviceRow {
	t.Helper()
	var rows []control.DeviceRow
	wait.For(t, jobTimeout, func() error {
		r := e.ctl(t, "devices", "--json")
		rows = nil
		if err := json.Unmarshal([]byte(r.Stdout), &rows); err != nil {
			return fmt.Errorf("gpuqctl devices: exit code %d, %q: %w", r.Code, r.Stderr, err)
		}
		for _, row := range rows {
			if row.State != state {
				return fmt.Errorf("%s is %s (%s), want %s", row.UUID, row.State, row.Reason, state)
			}
		}
		if len(rows) == 0 {
			return fmt.Errorf("no devices, want some that are %s", state)
		}
		return nil
	})
	return rows
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
