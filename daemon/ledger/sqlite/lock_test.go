package sqlite_test

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/sqlite"
)

// prepared returns a store on a fresh file that holds {"id": "counter", "n": 0}.
func prepared(t testing.TB, busyTimeout time.Duration) (*sqlite.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, BusyTimeout: busyTimeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if err := store.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Insert(t.Context(), ledger.Scratch, "counter", []byte(`{"id":"counter","n":0}`)); err != nil {
		t.Fatal(err)
	}
	return store, path
}

// count increments the counter.
func count(ctx context.Context, store *sqlite.Store) error {
	_, err := store.Update(ctx, ledger.Scratch, "counter", nil, ledger.Update{Inc: map[string]int64{"n": 1}})
	return err
}

func wantCounter(t *testing.T, store *sqlite.Store, want int) {
	t.Helper()
	doc, err := store.Get(t.Context(), ledger.Scratch, "counter")
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":"counter","n":` + strconv.Itoa(want) + `}`; string(doc) != want {
		t.Fatalf("got %s, want %s", doc, want)
	}
}

// Another process holds the file's lock for longer than any timeout. Writes
// fail in bounded time and change nothing, reads go on, and everything works
// right after the lock goes, with the same handle.
func TestLockHeldByAnotherProcess(t *testing.T) {
	const busyTimeout = 200 * time.Millisecond
	for name, release := range map[string]func(*other){
		"Released": func(o *other) { o.in.Close(); o.cmd.Wait() },
		"Killed":   func(o *other) { o.kill() },
	} {
		t.Run(name, func(t *testing.T) {
			store, path := prepared(t, busyTimeout)
			holder := startOther(t, "hold", path)
			if got := holder.line(t); got != "held" {
				t.Fatal(got)
			}
			began := time.Now()
			if err := count(t.Context(), store); !errors.Is(err, sqlite.ErrLocked) {
				t.Fatalf("got %v, want ErrLocked", err)
			}
			if waited := time.Since(began); waited < busyTimeout {
				t.Errorf("gave up after %s", waited)
			}
			short, cancel := context.WithTimeout(t.Context(), busyTimeout/10)
			defer cancel()
			if err := count(short, store); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want the context's own end", err)
			}
			if err := store.Insert(t.Context(), ledger.Scratch, "counter", []byte(`{"id":"counter"}`)); !errors.Is(err, sqlite.ErrLocked) {
				t.Fatalf("got %v, want ErrLocked", err)
			}
			wantCounter(t, store, 0)
			release(holder)
			if err := count(t.Context(), store); err != nil {
				t.Fatalf("after the lock has gone: %v", err)
			}
			wantCounter(t, store, 1)
		})
	}
}

// A write that waits goes on as soon as the lock goes.
func TestWriteWaitsForTheLock(t *testing.T) {
	store, path := prepared(t, time.Minute)
	holder := startOther(t, "hold", path)
	holder.line(t)
	done := make(chan error)
	go func() { done <- count(context.Background(), store) }()
	holder.in.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantCounter(t, store, 1)
}

// A process that is killed at any moment loses nothing that was acknowledged to
// it, and leaves a file that others write at once.
func TestKilledWriterLosesNothingAcknowledged(t *testing.T) {
	store, path := prepared(t, 0)
	acknowledged := 0
	for range 3 {
		writer := startOther(t, "count", path)
		for range 50 {
			n, err := strconv.Atoi(writer.line(t))
			if err != nil {
				t.Fatal(err)
			}
			acknowledged = n
		}
		writer.cmd.Process.Kill()
		for line, err := writer.out.ReadString('\n'); err == nil; line, err = writer.out.ReadString('\n') {
			if n, err := strconv.Atoi(line[:len(line)-1]); err == nil {
				acknowledged = n
			}
		}
		writer.cmd.Wait()
		if err := count(t.Context(), store); err != nil {
			t.Fatal(err)
		}
		doc, err := store.Update(t.Context(), ledger.Scratch, "counter", []ledger.Cond{{Field: "n", Op: ledger.Gt, Value: acknowledged}},
			ledger.Update{Set: map[string]any{"checked": true}})
		if err != nil {
			t.Fatalf("%d were acknowledged, the counter is behind: %s %v", acknowledged, doc, err)
		}
	}
}
