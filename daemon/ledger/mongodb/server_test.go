package mongodb_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/mongodb"
	"gpuqd/test/services"
	"gpuqd/test/wait"
)

// prepared returns a store on a fresh database that holds {"id": "counter", "n": 0}.
func prepared(t *testing.T, m *services.Mongo, database string, timeout time.Duration) *mongodb.Store {
	t.Helper()
	slow := openTest(t, mongodb.Options{URI: m.URI(), Database: database, SingleNode: true})
	if err := slow.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := slow.Insert(t.Context(), ledger.Scratch, "counter", []byte(`{"id":"counter","n":0}`)); err != nil {
		t.Fatal(err)
	}
	store := openTest(t, mongodb.Options{URI: m.URI(), Database: database, SingleNode: true, Timeout: timeout})
	if _, err := store.Get(t.Context(), ledger.Scratch, "counter"); err != nil {
		t.Fatal(err)
	}
	return store
}

func count(ctx context.Context, store *mongodb.Store) error {
	_, err := store.Update(ctx, ledger.Scratch, "counter", nil, ledger.Update{Inc: map[string]int64{"n": 1}})
	return err
}

// wantUnknown checks for an error that leaves the outcome open.
func wantUnknown(t *testing.T, err error) {
	t.Helper()
	if err == nil || errors.Is(err, ledger.ErrNoMatch) || errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrExists) {
		t.Fatalf("got %v, want an error without a meaning of its own", err)
	}
}

func TestServer(t *testing.T) {
	m := startServer(t)
	t.Run("LoneServerIsRefusedUnlessAccepted", func(t *testing.T) {
		err := openTest(t, mongodb.Options{URI: m.URI(), Database: "lone"}).Prepare(t.Context())
		if !errors.Is(err, ledger.ErrUnfit) || !strings.Contains(err.Error(), "single_node = true") {
			t.Errorf("got %v, want ErrUnfit with what to do", err)
		}
	})
	t.Run("FrozenServerFailsInTimeAndThawedWorks", func(t *testing.T) {
		const timeout = 500 * time.Millisecond
		store := prepared(t, m, "frozen", timeout)
		if err := m.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err := count(t.Context(), store)
		_, readErr := store.Get(t.Context(), ledger.Scratch, "counter")
		took := time.Since(began)
		if err := m.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		wantUnknown(t, err)
		wantUnknown(t, readErr)
		if took > 20*timeout {
			t.Errorf("two calls of at most %s each took %s", timeout, took)
		}
		wait.For(t, 30*time.Second, func() error { return count(t.Context(), store) })
	})
	t.Run("CancelledCallReturnsAtOnce", func(t *testing.T) {
		store := prepared(t, m, "cancelled", time.Minute)
		if err := m.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- count(ctx, store) }()
		cancel()
		select {
		case err := <-done:
			wantUnknown(t, err)
		case <-time.After(20 * time.Second):
			t.Error("the call outlived its context")
		}
		if err := m.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		wait.For(t, 30*time.Second, func() error { return count(t.Context(), store) })
	})
	t.Run("HandleOfAServerThatIsGoneClosesInTime", func(t *testing.T) {
		store := prepared(t, m, "closed", time.Minute)
		m.Process.Kill()
		began := time.Now()
		if err := store.Close(); err != nil {
			t.Logf("close: %v", err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := m.Start(ctx); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("RestartedServerKeepsItsDataAndTheHandleWorks", func(t *testing.T) {
		store := prepared(t, m, "restarted", time.Second)
		for _, end := range []func(){m.Stop, m.Process.Kill} {
			if err := count(t.Context(), store); err != nil {
				t.Fatal(err)
			}
			end()
			wantUnknown(t, count(t.Context(), store))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := m.Start(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			wait.For(t, 30*time.Second, func() error {
				_, err := store.Get(t.Context(), ledger.Scratch, "counter")
				return err
			})
		}
		doc, err := store.Update(t.Context(), ledger.Scratch, "counter", []ledger.Cond{{Field: "n", Op: ledger.Eq, Value: 2}}, ledger.Update{Inc: map[string]int64{"n": 1}})
		if err != nil {
			t.Fatalf("two increments were acknowledged: %s %v", doc, err)
		}
	})
}

// FerretDB without the gate lets several compare-and-sets win. The ledger must
// notice by itself. A single race can come out right by luck, so the claim is
// that it does not come out right every time.
func TestLedgerRefusesAServerWithoutAtomicUpdates(t *testing.T) {
	const tries = 10
	ports, err := services.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := services.NewMongo(t.Context(), t.TempDir(), ports[0])
	if err != nil {
		t.Fatal(err)
	}
	if m.Genuine() {
		t.Skip("a genuine mongod has no gate to take away")
	}
	m.Process.Args = append(m.Process.Args, "--ungated")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop) // after the stores have closed
	refused := 0
	for range tries {
		_, err := ledger.Open(ctx, openTest(t, mongodb.Options{URI: m.URI(), SingleNode: true}))
		if err == nil {
			continue
		}
		if !errors.Is(err, ledger.ErrUnfit) || !strings.Contains(err.Error(), "FerretDB") {
			t.Fatalf("got %v, want ErrUnfit that names FerretDB", err)
		}
		refused++
	}
	t.Logf("%d of %d starts were refused", refused, tries)
	if refused == 0 {
		t.Error("it was never refused")
	}
}
