package watch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gpuqd/test/wait"
)

var daemonFaults = []provocation{
	{
		fault:  "gpuqd is killed and kept down",
		strike: goesDown("worker_3"),
		alerts: []wanted{{alert: "GpuqdDown", labels: of("worker_3")}},
	},
	{
		fault:  "gpuqd is killed with kill -9, and started again",
		strike: daemonKilled,
		alerts: []wanted{{alert: "GpuqdDied", labels: of("worker_2")}},
		long:   true,
	},
	{
		fault:  "gpuqd is killed four times, each time as soon as it is back",
		strike: daemonKilledAgain,
		alerts: []wanted{{alert: "GpuqdRestarting", labels: of("worker_1")}},
	},
	{
		fault:  "gpuqd-shim may not be executed, so that no job starts",
		strike: shimForbidden,
		alerts: []wanted{{alert: "GpuqdNotTaking"}},
	},
}

func daemonKilled(t *testing.T, s *Site) func() {
	if err := s.Kill("worker_2"); err != nil {
		t.Fatal(err)
	}
	return nothing
}

// daemonKilledAgain waits between two kills until Prometheus has seen the daemon: a life
// that it never saw is none to it.
func daemonKilledAgain(t *testing.T, s *Site) func() {
	const host, kills = "worker_1", 4
	start := fmt.Sprintf("process_start_time_seconds{job=%q,host=%q}", "gpuqd", host)
	for range kills {
		before, err := s.value(t, start)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Kill(host); err != nil {
			t.Fatal(err)
		}
		wait.For(t, patience, func() error {
			now, err := s.value(t, start)
			if err == nil && (now == before || now == 0) {
				err = fmt.Errorf("%s has not been seen again", host)
			}
			return err
		})
	}
	return nothing
}

// shimForbidden has jobs wait that nobody can start. They come to an end, too: after some
// starts in vain, or when the shim is mended.
func shimForbidden(t *testing.T, s *Site) func() {
	shim := filepath.Join(s.options.BinDir, "gpuqd-shim")
	if err := os.Chmod(shim, 0o600); err != nil {
		t.Fatal(err)
	}
	s.submitMany(t, 12, 1, "true")
	return func() {
		if err := os.Chmod(shim, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

var deviceFaults = []provocation{
	{
		fault:  "the driver says of a device that it is of no use (simulated)",
		strike: strikes("worker_2", "0", "sick", "--reason", "row remap pending"),
		alerts: []wanted{{alert: "DeviceSick", labels: of("worker_2")}},
	},
	{
		fault:  "a device falls off the bus: XID 79 (simulated)",
		strike: strikes("worker_3", "1", "xid", "--xid", "79"),
		alerts: []wanted{{alert: "DeviceXid", labels: map[string]string{"host": "worker_3", "xid": "79"}}},
		long:   true,
	},
	{
		fault:  "a process that gpuqd did not start is on a free device (simulated)",
		strike: foreignProcess,
		alerts: []wanted{{alert: "DeviceDirty", labels: of("worker_1")}},
	},
	{
		fault:  "gpuqd starts again and finds one device of two",
		strike: deviceMissing,
		alerts: []wanted{{alert: "DevicesMissing", labels: of("worker_1")}},
	},
	{
		fault:  "three jobs of two programs fail at once on a device",
		strike: jobsFailOnDevice,
		alerts: []wanted{{alert: "BreakerOpen", labels: of("worker_3")}},
	},
}

// at asks one worker over its own socket.
func (s *Site) at(t *testing.T, worker string, args ...string) string {
	t.Helper()
	return s.ctl(t, append([]string{"--socket", s.Socket(worker)}, args...)...)
}

// strikes is a fault of a simulated device.
func strikes(host, device string, fault ...string) func(*testing.T, *Site) func() {
	return func(t *testing.T, s *Site) func() {
		s.at(t, host, append([]string{"simulate", "device", host, device}, fault...)...)
		return func() {
			s.at(t, host, "simulate", "device", host, device, "clear")
			s.at(t, host, "resume", host+"/"+device)
		}
	}
}

func foreignProcess(t *testing.T, s *Site) func() {
	cmd := exec.Command("sleep", "600")
	cmd.Env = []string{"PATH=/bin:/usr/bin"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	clear := strikes("worker_1", "0", "process", "--pid", fmt.Sprint(cmd.Process.Pid), "--memory", "2GiB")(t, s)
	return func() {
		end()
		clear()
	}
}

var simulatedCount = regexp.MustCompile(`(?m)^(\s*simulated_count =) \d+$`)

// deviceMissing has a driver that names one device less at the daemon's next start.
func deviceMissing(t *testing.T, s *Site) func() {
	const host = "worker_1"
	path := s.ConfigPath(host)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	restart := func(count int) {
		fewer := simulatedCount.ReplaceAll(text, fmt.Appendf(nil, "${1} %d", count))
		if err := os.WriteFile(path, fewer, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.KeepDown(t.Context(), host); err != nil {
			t.Fatal(err)
		}
		s.up(t, host)
	}
	restart(1)
	return func() { restart(2) }
}

// jobsFailOnDevice leaves one device of the cluster for jobs.
func jobsFailOnDevice(t *testing.T, s *Site) func() {
	const host = "worker_3"
	var drained []string
	for _, where := range []string{"worker_1", "worker_2", host + "/1"} {
		s.at(t, strings.TrimSuffix(where, "/1"), "drain", where, "--mode", "finish", "--reason", "one device is left")
		drained = append(drained, where)
	}
	for _, line := range []string{"exit 3", "", "exit 3"} {
		if line == "" {
			s.WaitEnd(t, s.submit(t, "false"))
			continue
		}
		s.WaitEnd(t, s.Submit(t, line))
	}
	return func() {
		s.at(t, host, "resume", host+"/0")
		for _, where := range drained {
			s.at(t, strings.TrimSuffix(where, "/1"), "resume", where)
		}
	}
}
