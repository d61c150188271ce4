package hosts

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/sqlite"
)

func TestPackageIsRemovedAndPurged(t *testing.T) {
	s := need(t)
	h := s.gpus[2]
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
		defer cancel()
		if err := s.installHost(ctx, h); err != nil {
			t.Error(err)
		}
	})
	id := s.submit(t, h, "--pool", h.role, "--", payload, "--until", stopFile(t))
	s.waitRunning(t, id)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	const apt = "DEBIAN_FRONTEND=noninteractive apt-get -y "
	r, err := h.Run(ctx, apt+"remove gpuqd 2>&1")
	if err != nil || r.Code == 0 || !strings.Contains(r.Stdout, "gpuqd: not removed: of its jobs, 1 run on this host") {
		t.Errorf("a removal under a running job: exit code %d, %v:\n%s", r.Code, err, r.Stdout)
	}
	s.waitLines(t, h, id, lines(h.executions(t, id)))
	h.output(t, "touch %s", stopFile(t))
	s.expectUninterrupted(t, id)

	h.output(t, "%s", apt+"remove gpuqd gpuqctl")
	if out := h.output(t, "systemctl is-active gpuqd || true"); out == "active" {
		t.Error("gpuqd is active after its removal")
	}
	if out := h.output(t, "ls /usr/sbin/gpuqd /usr/bin/gpuqctl /usr/lib/gpuqd /lib/systemd/system/gpuqd.service 2>/dev/null || true"); out != "" {
		t.Errorf("files are left after the removal: %s", out)
	}
	h.output(t, "test -s /etc/gpuqd/gpuqd.toml && test -s /etc/gpuqd/broker.password && test -d /var/lib/gpuqd")

	// What is mounted in the state's directory may be other hosts' too.
	const mounted = "/var/lib/gpuqd/shared"
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if _, err := h.Run(ctx, "! mountpoint -q "+mounted+" || umount "+mounted); err != nil {
			t.Error(err)
		}
	})
	h.output(t, "mkdir %[1]s && mount -t tmpfs shared %[1]s && touch %[1]s/checkpoint", mounted)
	// A ledger may have any name there.
	const kept = "/var/lib/gpuqd/queue.db"
	local := filepath.Join(t.TempDir(), "queue.db")
	if err := makeLedger(ctx, local); err != nil {
		t.Fatal(err)
	}
	if err := h.Push(ctx, local, kept); err != nil {
		t.Fatal(err)
	}
	h.output(t, "%s", apt+"purge gpuqd gpuqctl")
	h.output(t, "test -e %[1]s/checkpoint && umount %[1]s && rmdir %[1]s && test -s %[2]s && rm %[2]s && rmdir /var/lib/gpuqd", mounted, kept)
	if out := h.output(t, "ls -d /etc/gpuqd /var/lib/gpuqd /run/gpuqd 2>/dev/null || true"); out != "" {
		t.Errorf("left after the purge: %s", out)
	}
	// An account's slice is systemd's own and goes with the boot; the drop-in is this
	// test's.
	if out := h.output(t, "systemctl list-unit-files --no-legend 'gpuq*' | grep -v transient; find /etc -name '*gpuq*' ! -name gpuqd.service.d"); out != "" {
		t.Errorf("systemd or /etc still knows of gpuqd after the purge: %s", out)
	}
}

// makeLedger makes a SQLite ledger without jobs.
func makeLedger(ctx context.Context, path string) error {
	store, err := sqlite.Open(ctx, sqlite.Options{Path: path})
	if err != nil {
		return err
	}
	l, err := ledger.Open(ctx, store)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	return l.Close()
}

func TestUnconfiguredHostIsNotStarted(t *testing.T) {
	s := need(t)
	h := s.gpus[2]
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
		defer cancel()
		if err := s.installHost(ctx, h); err != nil {
			t.Error(err)
		}
	})
	if err := h.clean(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.installPackages(ctx, h, versionFirst); err != nil {
		t.Fatal(err)
	}
	if out := h.output(t, "systemctl is-active gpuqd || true; systemctl start gpuqd; systemctl is-active gpuqd || true"); out != "inactive\ninactive" {
		t.Errorf("gpuqd of a host without a password for the broker is %q, want it inactive, also after a start", out)
	}
}
