package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/ledgertest"
	"gpuqd/daemon/ledger/sqlite"

	"go.uber.org/goleak"
)

func openAt(ctx context.Context, path string) (ledger.Store, error) {
	return sqlite.Open(ctx, sqlite.Options{Path: path, BusyTimeout: 30 * time.Second})
}

// openTest returns a handle for a machine that is busy with other tests.
func openTest(t testing.TB, path string) *sqlite.Store {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, BusyTimeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// opener returns handles on one fresh file.
func opener(t *testing.T) (path string, open ledgertest.Open) {
	path = filepath.Join(t.TempDir(), "ledger.db")
	return path, func(t testing.TB) ledger.Store { return openTest(t, path) }
}

func TestStore(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("Contract", func(t *testing.T) {
		_, open := opener(t)
		ledgertest.Run(t, open)
	})
	t.Run("Processes", func(t *testing.T) {
		path, open := opener(t)
		ledgertest.RunProcesses(t, path, open)
	})
	t.Run("Protocol", func(t *testing.T) {
		_, open := opener(t)
		ledgertest.RunLedger(t, open)
	})
}
