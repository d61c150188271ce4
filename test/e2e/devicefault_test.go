package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// deviceSilence is after what time without a word of their source the workers'
// devices are sick.
const deviceSilence = 2 * time.Second

// fault lets one strike a worker's devices, asking another worker. When the test
// ends, all of that worker's are over.
func (e *env) fault(t *testing.T, host string, f fault.Fault) []string {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), jobTimeout)
		defer cancel()
		all := control.SimulateDeviceArgs{Host: host, Fault: fault.Fault{Kind: fault.Clear, Device: fault.AllDevices}}
		if _, err := e.at(t, host).SimulateDevice(ctx, all); err != nil {
			t.Errorf("clear the devices of %s: %v", host, err)
		}
	})
	asked, args := e.at(t, e.otherThan(host)), control.SimulateDeviceArgs{ID: job.NewID(), Host: host, Fault: f}
	var struck []string
	wait.For(t, jobTimeout, func() error { // a daemon that has just started may not have its connections yet
		reply, err := asked.SimulateDevice(t.Context(), args)
		if err != nil && !errors.Is(err, control.ErrNoHost) {
			t.Fatalf("fault %s of device %s of %s: %v", f, f.Device, host, err)
		}
		struck = reply.Devices
		return err
	})
	return struck
}

// otherThan returns a worker that is not this one.
func (e *env) otherThan(host string) string {
	for _, w := range e.Workers() {
		if w != host {
			return w
		}
	}
	return host
}

// deviceRow returns a device as its own worker shows it, whom another one asks.
func (e *env) deviceRow(t *testing.T, host string, index int) (row control.DeviceRow) {
	t.Helper()
	e.waitDevice(t, host, index, func(d control.DeviceRow) error {
		row = d
		return nil
	})
	return row
}

// waitDevice waits until a device is as a check wants it, by its own worker's word:
// one that has just started may not be within reach yet.
func (e *env) waitDevice(t *testing.T, host string, index int, check func(control.DeviceRow) error) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		r := e.ctl(t, "--socket", e.Socket(e.otherThan(host)), "devices", fmt.Sprintf("%s/%d", host, index), "--json")
		var rows []control.DeviceRow
		err := json.Unmarshal([]byte(r.Stdout), &rows)
		if r.Code != 0 || err != nil || len(rows) != 1 || r.Stderr != "" {
			return fmt.Errorf("device %d of %s: exit code %d, %q, %w: %s", index, host, r.Code, r.Stderr, err, r.Stdout)
		}
		return check(rows[0])
	})
}

// inState is a check of waitDevice: a state, and a reason that has a text.
func inState(state, reason string) func(control.DeviceRow) error {
	return func(d control.DeviceRow) error {
		if d.State != state || !strings.Contains(d.Reason, reason) || reason == "" && d.Reason != "" {
			return fmt.Errorf("device %s/%d is %s (%q), want %s (%q)", d.Host, d.Index, d.State, d.Reason, state, reason)
		}
		return nil
	}
}

// waitMetric waits until a series, summed over the workers, has a value.
func (e *env) waitMetric(t *testing.T, series string, want float64) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		if got := e.metric(t, series); got != want {
			return fmt.Errorf("%s is %v, want %v", series, got, want)
		}
		return nil
	})
}

// pidFile is where a payload tells its process ID.
type pidFile struct{ path string }

func newPIDFile(t *testing.T) pidFile { return pidFile{filepath.Join(t.TempDir(), "pid")} }

// body is a piece of a payload that tells it.
func (p pidFile) body() string {
	return fmt.Sprintf("echo $$ > %s.new && mv %s.new %s", p.path, p.path, p.path)
}

func (p pidFile) wait(t *testing.T) (pid int) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		text, err := os.ReadFile(p.path)
		if err != nil {
			return err
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err
	})
	return pid
}

// startOnDevice submits a job of one device that tells its process ID, waits until
// the gate is opened, and then does what is given.
func (e *env) startOnDevice(t *testing.T, w witness, g gate, then ...string) (j *job.Job, index, pid int) {
	t.Helper()
	return e.startOnPart(t, "", w, g, then...)
}

// startOnPart is startOnDevice for a job that asks for a part of a device's memory.
func (e *env) startOnPart(t *testing.T, memory string, w witness, g gate, then ...string) (j *job.Job, index, pid int) {
	t.Helper()
	p := newPIDFile(t)
	body := strings.Join(append([]string{p.body(), g.body()}, then...), "; ")
	args := []string{"--"}
	if memory != "" {
		args = []string{"--gpu-memory", memory, "--"}
	}
	id := e.submit(t, append(args, w.script(body)...)...)
	w.waitStart(t, id)
	j, pid = e.waitFor(t, id, job.Running), p.wait(t)
	reply, err := e.at(t, j.Owner.Host).Devices(t.Context(), control.DevicesArgs{Host: j.Owner.Host})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range reply.Devices {
		if d.UUID == j.Owner.Devices[0] {
			return j, d.Index, pid
		}
	}
	t.Fatalf("%s does not show device %s of job %s", j.Owner.Host, j.Owner.Devices[0], id)
	return nil, 0, 0
}

// only drains every worker but one. What it returns ends that, as the end of the
// test does.
func (e *env) only(t *testing.T, host string) (resume func()) {
	t.Helper()
	var others []string
	for _, other := range e.Workers() {
		if other != host {
			e.drain(t, other, control.DrainArgs{Host: other, Reason: "only " + host + " is left", Mode: control.DrainFinish})
			others = append(others, other)
		}
	}
	return func() {
		for _, other := range others {
			e.resume(t, other, "")
		}
	}
}

// mendAtEnd ends a quarantine or breaker of a worker's devices when the test does.
func (e *env) mendAtEnd(t *testing.T, host string) {
	t.Cleanup(func() {
		for _, device := range []string{"", "0", "1"} {
			e.resume(t, host, device)
		}
	})
}

// expectRequeued waits until a job's attempt on a device that failed has been ended
// and the job queued again at no cost, for a reason that its submitter can read.
func (e *env) expectRequeued(t *testing.T, id job.ID, reason string) {
	t.Helper()
	wait.For(t, jobTimeout, func() error {
		j := e.show(t, id)
		for _, change := range j.History {
			if change.Class == job.ClassDevice && change.State == job.Queued && strings.Contains(change.Reason, reason) && j.Failures == 0 {
				return nil
			}
		}
		return fmt.Errorf("job %s has not been queued again over %q: %+v", id, reason, j.History)
	})
}
