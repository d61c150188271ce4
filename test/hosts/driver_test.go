package hosts

import (
	"context"
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
	"gpuqd/test/scriptednvml"
	"gpuqd/test/wait"
)

// driverDir is where a host has the scripted NVML library. The unit may write there:
// the library marks a call that hangs by a file beside it.
const driverDir = "/var/lib/gpuq-scripted-nvml"

// driverUnit is the drop-in for that.
const driverUnit = "/etc/systemd/system/gpuqd.service.d/scripted-nvml.conf"

// driver is a host's scripted NVIDIA driver.
type driver struct {
	*scriptednvml.Library
	on *host
}

// change changes what the host's driver does.
func (d driver) change(t *testing.T, change func(*scriptednvml.Script)) {
	t.Helper()
	d.Change(t, change)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
	defer cancel()
	if err := d.tell(ctx); err != nil {
		t.Fatal(err)
	}
}

// tell brings the script to the host.
func (d driver) tell(ctx context.Context) error {
	script, err := os.ReadFile(filepath.Join(filepath.Dir(d.Path), "script"))
	if err != nil {
		return err
	}
	return d.on.Write(ctx, driverDir+"/script", script, 0o644)
}

// withDriver has the devices of a host be those of a scripted driver for the time of
// the test. Whatever the test does to it, it answers again before it goes.
func (s *site) withDriver(t *testing.T, h *host) driver {
	t.Helper()
	script := scriptednvml.Script{}
	for i := range devices {
		script.Devices = append(script.Devices, scriptednvml.Device{
			UUID: fmt.Sprintf("GPU-scripted-%d", i), Model: "NVIDIA H100 80GB HBM3", Bus: 1 + i, Minor: i, Memory: 80 << 30,
		})
	}
	d := driver{scriptednvml.New(t, script), h}
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
		defer cancel()
		if _, err := h.Output(ctx, "rm -rf "+driverUnit+" "+driverDir+"; systemctl daemon-reload"); err != nil {
			t.Error(err)
		}
	})
	library := driverDir + "/" + filepath.Base(d.Path)
	if err := h.Push(ctx, d.Path, library); err != nil {
		t.Fatal(err)
	}
	d.change(t, func(*scriptednvml.Script) {})
	if err := h.Write(ctx, driverUnit, []byte("[Service]\nReadWritePaths="+driverDir+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.output(t, "systemctl daemon-reload")
	s.withSettings(t, h, func(c *config.Config) {
		c.Device = config.Default().Device
		c.Device.Library = library
	})
	t.Cleanup(func() { d.change(t, func(s *scriptednvml.Script) { s.Calls = nil }) })
	return d
}

// helpers returns the processes of gpuqd-device.
func (h *host) helpers(t *testing.T) string {
	t.Helper()
	return h.output(t, "%s", `for p in /proc/[0-9]*; do [ "$(readlink $p/exe)" != /usr/lib/gpuqd/gpuqd-device ] || echo "${p#/proc/}"; done`)
}

// waitDevices waits until all devices of a host are in a state, for a reason that
// has a text, by its own daemon's word.
func (h *host) waitDevices(t *testing.T, state, reason string) (rows []control.DeviceRow) {
	t.Helper()
	wait.For(t, stepTimeout, func() error {
		rows = nil
		out := h.output(t, "gpuqctl devices --host %s --json", h.role)
		if err := json.Unmarshal([]byte(out), &rows); err != nil || len(rows) != devices {
			return fmt.Errorf("gpuqctl devices printed %q: %w", out, err)
		}
		for _, d := range rows {
			if d.State != state || !strings.Contains(d.Reason, reason) {
				return fmt.Errorf("device %s of %s is %s (%s), want %s (%s)", d.UUID, h.role, d.State, d.Reason, state, reason)
			}
		}
		return nil
	})
	return rows
}

// watchdogBites is after what time, at the latest, systemd restarts a daemon one of
// whose loops waits for a device: the allowance of the loops that ask for devices,
// with the settings of the site at most 85 s, and WatchdogSec.
const watchdogBites = 2 * time.Minute

// TestDriverHangsForLongerThanTheWatchdogWaits has the driver keep every call for
// longer than device.silence and WatchdogSec, as they are shipped, under a job. The
// daemon and the job never notice; the devices take no work until the driver is back.
func TestDriverHangsForLongerThanTheWatchdogWaits(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	driver := s.withDriver(t, h)
	for _, d := range h.waitDevices(t, "free", "") {
		if d.Simulated || !strings.HasPrefix(d.UUID, "GPU-scripted-") {
			t.Fatalf("the device is %+v, want one of the scripted driver", d)
		}
	}
	running := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, running)
	restarts, daemon, helper := h.restarts(t), h.property(t, "gpuqd", "MainPID"), h.helpers(t)
	if watchdog := h.property(t, "gpuqd", "WatchdogUSec"); watchdog != "30s" {
		t.Fatalf("WatchdogSec= is %s on the host, want 30s: that of the package", watchdog)
	}

	began := time.Now()
	driver.change(t, func(s *scriptednvml.Script) { s.Calls = []scriptednvml.Call{{Hangs: true}} })
	h.waitDevices(t, "sick", "has said nothing for 30s; it may hang in the driver")
	if now := h.helpers(t); now != helper {
		t.Errorf("gpuqd-device was process %s, and is %q: one that hangs is to be left alone", helper, now)
	}
	h.waitStatus(t, "2 devices: 2 sick", "1 job running", "said nothing for 30s")
	waiting := s.submit(t, h, "--pool", h.role, "--", payload, "--work", "1s")
	s.expectElsewhere(t, h)
	hold(t, time.Until(began.Add(watchdogBites)))

	h.output(t, "ls %s/hanging", driverDir) // the driver still keeps a call
	s.waitLines(t, h, running, lines(h.executions(t, running)))
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, running)
	if j, err := s.show(t, waiting); err != nil || j.State != job.Queued {
		t.Errorf("the next job of %s is %+v (%v), want it queued: no device there can be trusted", h.role, j, err)
	}
	h.expectSameDaemon(t, restarts, daemon)

	driver.change(t, func(s *scriptednvml.Script) { s.Calls = nil })
	s.expectUninterrupted(t, waiting)
	h.waitDevices(t, "free", "")
	h.waitStatus(t, "2 devices: 2 free", "no job running")
	h.expectSameDaemon(t, restarts, daemon)
	// After twice that silence it is asked to end. It may do so, or not; nobody kills it.
	log := h.output(t, "journalctl --no-pager -o cat _PID=%s --since @%d", daemon, began.Unix())
	if !strings.Contains(log, "device helper is stuck and was asked to end") || strings.Contains(log, "signal:") {
		t.Errorf("the helper was not asked to end, or was killed: %s", log)
	}
}

// waitStatus waits until systemctl status has a line of the daemon's with all of that.
func (h *host) waitStatus(t *testing.T, wants ...string) {
	t.Helper()
	wait.For(t, stepTimeout, func() error {
		line := h.property(t, "gpuqd", "StatusText")
		for _, want := range wants {
			if !strings.Contains(line, want) {
				return fmt.Errorf("the status line is %q, want %q in it", line, want)
			}
		}
		return nil
	})
}

// expectElsewhere runs a job that any host may take, and checks that it was another
// one's.
func (s *site) expectElsewhere(t *testing.T, not *host) {
	t.Helper()
	id := s.submit(t, not, "--", payload, "--work", "1s")
	s.expectUninterrupted(t, id)
	if j, err := s.show(t, id); err != nil || j.Result.Host == not.role {
		t.Errorf("job %s ran on %s (%v), none of whose devices can be trusted", id, j.Result.Host, err)
	}
}

// expectSameDaemon checks that nobody has restarted gpuqd.
func (h *host) expectSameDaemon(t *testing.T, restarts int, pid string) {
	t.Helper()
	if n, now := h.restarts(t), h.property(t, "gpuqd", "MainPID"); n != restarts || now != pid {
		t.Errorf("gpuqd was process %s after %d restarts, and is %s after %d", pid, restarts, now, n)
	}
}
