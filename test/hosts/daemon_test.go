package hosts

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// toVersion brings a host to a version of the packages.
func (s *site) toVersion(t *testing.T, h *host, version string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := s.installPackages(ctx, h, version); err != nil {
		t.Fatal(err)
	}
	wait.For(t, stepTimeout, func() error {
		rows, err := s.hosts(t)
		if err == nil && rows[h.role].Version != version {
			err = fmt.Errorf("%s runs gpuqd %s, want %s", h.role, rows[h.role].Version, version)
		}
		return err
	})
}

func TestUpgradeDoesNotInterruptAJob(t *testing.T) {
	testOtherVersion(t, versionFirst, versionNext)
}

func TestDowngradeDoesNotInterruptAJob(t *testing.T) {
	testOtherVersion(t, versionNext, versionFirst)
}

func testOtherVersion(t *testing.T, from, to string) {
	s := need(t)
	h := s.gpus[0]
	s.toVersion(t, h, from)
	s.expectWhole(t, h)
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	invocation, daemon := h.property(t, unitOf(id), "InvocationID"), h.property(t, "gpuqd", "MainPID")
	s.toVersion(t, h, to)
	if now := h.property(t, unitOf(id), "InvocationID"); now != invocation {
		t.Errorf("the job's unit was invoked as %s, now as %s", invocation, now)
	}
	if now := h.property(t, "gpuqd", "MainPID"); now == daemon || now == "0" {
		t.Errorf("gpuqd has the main process %s, before it was %s", now, daemon)
	}
	s.waitLines(t, h, id, lines(h.executions(t, id)))
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, id)
}

func TestKilledDaemonIsRestartedAndAdoptsItsJob(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	restarts := h.restarts(t)
	h.output(t, "systemctl kill --kill-whom=main --signal=KILL gpuqd")
	h.waitRestarted(t, restarts)
	s.waitLines(t, h, id, lines(h.executions(t, id)))
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, id)
}

// restarts counts those that systemd made by itself.
func (h *host) restarts(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(h.property(t, "gpuqd", "NRestarts"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// waitRestarted waits until systemd has restarted gpuqd once more, and it is ready.
func (h *host) waitRestarted(t *testing.T, before int) {
	t.Helper()
	wait.For(t, 5*time.Minute, func() error {
		n, state := h.restarts(t), h.property(t, "gpuqd", "ActiveState")
		if n <= before || state != "active" {
			return fmt.Errorf("gpuqd on %s is %s after %d restarts, want active after more than %d", h.role, state, n, before)
		}
		return nil
	})
}

// withSettings runs gpuqd on a host with other settings for the time of the test.
func (s *site) withSettings(t *testing.T, h *host, change func(*config.Config)) {
	t.Helper()
	apply := func(ctx context.Context, change func(*config.Config)) error {
		if err := s.writeSettings(ctx, h, change); err != nil {
			return err
		}
		_, err := h.Output(ctx, "systemctl restart gpuqd")
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), wholeTimeout)
	defer cancel()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), wholeTimeout)
		defer cancel()
		if err := apply(ctx, nil); err != nil {
			t.Error(err)
		}
	})
	if err := apply(ctx, change); err != nil {
		t.Fatal(err)
	}
	s.expectWhole(t, h)
}

// long is a lease that outlasts what the watchdog takes to find a daemon that
// hangs.
func long(c *config.Config) {
	c.Lease.TTL, c.Lease.Renew = job.Duration(5*time.Minute), job.Duration(leaseRenew)
	c.Simulate.Allowed = true
}

func TestFrozenDaemonIsRestartedByItsWatchdog(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	s.withSettings(t, h, long)
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	restarts := h.restarts(t)
	h.output(t, "systemctl kill --kill-whom=main --signal=STOP gpuqd")
	h.waitRestarted(t, restarts)
	h.expectWatchdog(t)
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, id)
}

func TestWedgedLoopIsFoundByTheWatchdog(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	s.withSettings(t, h, long)
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	restarts := h.restarts(t)
	h.output(t, "gpuqctl simulate --wedge take --host %s --yes", h.role)
	h.waitRestarted(t, restarts)
	h.expectWatchdog(t)
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, id)
}

// expectWatchdog checks that systemd says that it was the watchdog.
func (h *host) expectWatchdog(t *testing.T) {
	t.Helper()
	if log := h.output(t, "journalctl --no-pager -b -u gpuqd -n 200 _PID=1"); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("systemd does not speak of a watchdog: %s", log)
	}
}

func TestJobsOfAStoppedDaemonAreFrozenAndThawed(t *testing.T) {
	s := need(t)
	ids := s.startEverywhere(t)
	// All at once, so that nobody is left who could take over.
	s.everywhere(t, func(h *host) { h.output(t, "systemctl stop gpuqd") })
	s.expectFrozen(t, ids)
	s.everywhere(t, func(h *host) { h.output(t, "systemctl start gpuqd") })
	s.expectThawed(t, ids)
}

func TestJobOfAStoppedDaemonIsTakenOver(t *testing.T) {
	s := need(t)
	id := s.submit(t, s.gpus[0], "--", payload, "--until", stopFile(t))
	h := s.waitRunning(t, id)
	h.output(t, "systemctl stop gpuqd")
	s.expectTakenOver(t, id, h)
	h.output(t, "systemctl start gpuqd")
	s.expectWhole(t, h)
	for _, other := range s.others(h) {
		other.output(t, "touch %s", stopFile(t))
	}
	s.expectOneResult(t, id, 2)
}
