package mongodb_test

import (
	"context"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/ledgertest"
	"gpuqd/daemon/ledger/mongodb"
	"gpuqd/test/services"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { ledgertest.Main(m, openAt) }

func openAt(ctx context.Context, uri string) (ledger.Store, error) {
	return mongodb.Open(ctx, mongodb.Options{URI: uri, SingleNode: true, Timeout: 30 * time.Second})
}

// startServer starts a server of the test's own.
func startServer(t testing.TB) *services.Mongo {
	t.Helper()
	ports, err := services.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := services.NewMongo(t.Context(), t.TempDir(), ports[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	t.Logf("the server is %s", m.Kind)
	return m
}

// openTest opens a store that closes with the test.
func openTest(t testing.TB, o mongodb.Options) *mongodb.Store {
	t.Helper()
	store, err := mongodb.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// opener returns handles on one database of its own: what one case leaves does
// not slow down the next.
func opener(m *services.Mongo, database string) ledgertest.Open {
	return func(t testing.TB) ledger.Store {
		return openTest(t, mongodb.Options{URI: m.URI(), Database: database, SingleNode: true, Timeout: 30 * time.Second})
	}
}

func TestStore(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("On", func(t *testing.T) {
		m := startServer(t)
		t.Run("Contract", func(t *testing.T) { ledgertest.Run(t, opener(m, "contract")) })
		t.Run("Processes", func(t *testing.T) { ledgertest.RunProcesses(t, m.URI(), opener(m, mongodb.DatabaseDefault)) })
		t.Run("Protocol", func(t *testing.T) { ledgertest.RunLedger(t, opener(m, "protocol")) })
	})
}
