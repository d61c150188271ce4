package sqlite

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/health"
	"gpuqd/daemon/ledger"
)

func wantCheck(t *testing.T, checks []health.Check, name string, state health.State, words ...string) {
	t.Helper()
	found := slices.ContainsFunc(checks, func(c health.Check) bool {
		return c.Name == name && c.State == state && (c.Advice == "") == (state == health.OK) &&
			!slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Saw+" "+c.Advice, w) })
	})
	if !found {
		t.Errorf("no check %q is %s with %q: %+v", name, state, words, checks)
	}
}

func TestInspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	store, err := Open(t.Context(), Options{Path: path, BusyTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l, err := ledger.Open(t.Context(), ledger.Observed(store, func(string, string, time.Duration) {}))
	if err != nil {
		t.Fatal(err)
	}
	look := func() []health.Check {
		return l.Inspect(t.Context(), ledger.Inspection{Renew: 20 * time.Second, Shared: true})
	}
	t.Run("SoundFileIsGoodInEveryCheck", func(t *testing.T) {
		checks := look()
		wantCheck(t, checks, "identity", health.OK, "sqlite, id "+l.ID())
		wantCheck(t, checks, "latency", health.OK, "median of 20")
		wantCheck(t, checks, "compare-and-set", health.OK, "of 16 racing")
		wantCheck(t, checks, "file", health.OK, path, "journal_mode wal, synchronous full")
		if i := slices.IndexFunc(checks, func(c health.Check) bool { return c.Name == "room" }); i < 0 || !strings.Contains(checks[i].Saw, "the ledger takes ") {
			t.Errorf("%+v", checks)
		}
		if left, err := store.Find(t.Context(), ledger.Scratch, ledger.Query{}); err != nil || len(left) > 0 {
			t.Errorf("the look left %d documents (%v)", len(left), err)
		}
	})
	t.Run("SlowOneIsHeldAgainstTheInterval", func(t *testing.T) {
		wantCheck(t, l.Inspect(t.Context(), ledger.Inspection{Renew: time.Nanosecond}), "latency", health.Fail, "renewals that take too long")
	})
	t.Run("WeakenedSettingsAreAFailure", func(t *testing.T) {
		if _, err := store.write(t.Context(), "PRAGMA synchronous = OFF"); err != nil {
			t.Fatal(err)
		}
		wantCheck(t, look(), "file", health.Fail, "synchronous off", "power cut")
		if _, err := store.write(t.Context(), "PRAGMA synchronous = FULL"); err != nil {
			t.Fatal(err)
		}
		wantCheck(t, look(), "file", health.OK)
	})
	t.Run("LockedOneIsAFailureAndEndsTheLook", func(t *testing.T) {
		hasty, err := Open(t.Context(), Options{Path: path, BusyTimeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer hasty.Close()
		l, err := ledger.Open(t.Context(), hasty)
		if err != nil {
			t.Fatal(err)
		}
		lock, err := sql.Open("sqlite", "file:"+path)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		lock.SetMaxOpenConns(1)
		if _, err := lock.Exec("BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		checks := l.Inspect(t.Context(), ledger.Inspection{Renew: 20 * time.Second, Shared: true})
		wantCheck(t, checks, "latency", health.Fail, "does not answer", "lock")
		if len(checks) != 1 {
			t.Errorf("%d checks of a ledger that does not answer: %+v", len(checks), checks)
		}
	})
	t.Run("FileInMemoryIsAWarning", func(t *testing.T) {
		dir := t.TempDir()
		if disk, err := health.DiskOf("/dev/shm"); err != nil || !disk.Volatile {
			t.Skip("no tmpfs at hand")
		}
		volatile, err := Open(t.Context(), Options{Path: filepath.Join("/dev/shm", filepath.Base(filepath.Dir(dir))+"-gpuq", "ledger.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer removeAll(t, filepath.Dir(volatile.path))
		defer volatile.Close()
		if err := volatile.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantCheck(t, volatile.Inspect(t.Context()), "file", health.Warn, "tmpfs", "reboot")
	})
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
