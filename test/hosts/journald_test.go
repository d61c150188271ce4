package hosts

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"gpuqd/test/wait"
)

// The journal is for people; no job and no daemon waits for it.

func TestJobOutputIsInTheJournal(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	id := s.submit(t, h, "--pool", h.role, "--", "/bin/sh", "-c", "echo said by the job; exec "+payload+" --work 1s")
	s.expectOneResult(t, id, 1)
	wait.For(t, stepTimeout, func() error {
		out := h.output(t, "journalctl --no-pager -o json GPUQ_JOB_ID=%s SYSLOG_IDENTIFIER=gpuqd-job", id)
		if !strings.Contains(out, "said by the job") {
			return fmt.Errorf("the journal has no output of job %s: %q", id, out)
		}
		return nil
	})
	if out := h.output(t, "journalctl --no-pager -o cat GPUQ_JOB_ID=%s SYSLOG_IDENTIFIER=gpuqd", id); out == "" {
		t.Errorf("the journal has no line of gpuqd's about job %s", id)
	}
}

// TestJournaldsLimitIsAboveTheShims looks at what bounds the output of a job:
// journald's own limit would drop lines that a shim has offered, and tell nobody.
func TestJournaldsLimitIsAboveTheShims(t *testing.T) {
	s := need(t)
	h := s.gpus[0]
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	for _, unit := range []string{unitOf(id), "gpuqd"} {
		if interval, burst := h.property(t, unit, "LogRateLimitIntervalUSec"), h.property(t, unit, "LogRateLimitBurst"); interval != "30s" || burst != "50000" {
			t.Errorf("journald allows %s %s lines in %s, want 50000 in 30s", unit, burst, interval)
		}
	}
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, id)
}

func TestStoppedJournalBlocksNobody(t *testing.T) {
	testJournal(t,
		"systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald",
		"systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald")
}

func TestFrozenJournalBlocksNobody(t *testing.T) {
	testJournal(t, "systemctl kill --signal=STOP systemd-journald", "systemctl kill --signal=CONT systemd-journald")
}

func TestFullJournalBlocksNobody(t *testing.T) {
	// A file system of its own, with room for nothing.
	testJournal(t, `set -e
mount -t tmpfs -o size=4096k tmpfs /var/log/journal
mkdir /var/log/journal/$(cat /etc/machine-id)
systemctl restart systemd-journald
journalctl --flush
dd if=/dev/zero of=/var/log/journal/full bs=4096 2>/dev/null || true
! dd if=/dev/zero of=/var/log/journal/more bs=4096 count=1 2>/dev/null`,
		`umount -l /var/log/journal; systemctl restart systemd-journald; journalctl --flush`)
}

// testJournal lets a job that prints much begin before the journal fails, and
// another one after it has: both come to their end, in time, by their only
// execution, and the daemon answers and renews its lease all the while.
func testJournal(t *testing.T, fail, mend string) {
	s := need(t)
	h := s.gpus[0]
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
		defer cancel()
		if _, err := h.Output(ctx, mend); err != nil {
			t.Error(err)
		}
	})
	const megabyte = "1000000"
	before := s.submit(t, h, "--pool", h.role, "--", payload, "--print", megabyte, "--until", stopFile(t))
	s.waitRunning(t, before)
	daemon := h.property(t, "gpuqd", "MainPID")
	h.output(t, "%s", fail)
	s.waitLines(t, h, before, lines(h.executions(t, before)))
	after := s.submit(t, h, "--pool", h.role, "--", payload, "--print", megabyte, "--work", "10s")
	s.expectUninterrupted(t, after)
	rows, err := s.hosts(t)
	if err != nil || !rows[h.role].Live || rows[h.role].RenewedAgeSeconds > leaseTTL.Seconds()/2 {
		t.Errorf("without a journal the host is %+v (%v)", rows[h.role], err)
	}
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, before)
	if now := h.property(t, "gpuqd", "MainPID"); now != daemon {
		t.Errorf("gpuqd was process %s and is %s", daemon, now)
	}
}
