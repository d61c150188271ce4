package sqlite_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/ledgertest"
)

// An observed store is a store, and tells each operation with what came of it.
func TestObserved(t *testing.T) {
	t.Run("Contract", func(t *testing.T) {
		_, open := opener(t)
		ledgertest.Run(t, func(t testing.TB) ledger.Store {
			return ledger.Observed(open(t), func(string, string, time.Duration) {})
		})
	})
	t.Run("EachOperationIsToldOnce", func(t *testing.T) {
		_, open := opener(t)
		var told []string
		s := ledger.Observed(open(t), func(operation, result string, took time.Duration) {
			if took < 0 {
				t.Errorf("%s took %s", operation, took)
			}
			told = append(told, operation+" "+result)
		})
		ctx, doc := t.Context(), json.RawMessage(`{"id":"a","n":1}`)
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_ = s.Prepare(ctx)
		_ = s.Insert(ctx, ledger.Jobs, "a", doc)
		_ = s.Insert(ctx, ledger.Jobs, "a", doc)
		for _, n := range []int{1, 1} {
			_, _ = s.Update(ctx, ledger.Jobs, "a", []ledger.Cond{{Field: "n", Op: ledger.Eq, Value: n}}, ledger.Update{Set: map[string]any{"n": 2}})
		}
		_, _ = s.Get(ctx, ledger.Jobs, "a")
		_, _ = s.Get(ctx, ledger.Jobs, "b")
		_, _ = s.Get(gone, ledger.Jobs, "a")
		_, _ = s.Find(ctx, ledger.Jobs, ledger.Query{})
		_ = s.Delete(ctx, ledger.Jobs, "a")
		_ = s.Close()
		_, _ = s.Get(ctx, ledger.Jobs, "a")
		want := []string{
			"insert ok", "insert exists", "update ok", "update no_match", "get ok", "get not_found", "get canceled",
			"find ok", "delete ok", "get failed",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told\n%q, want\n%q", told, want)
		}
	})
}
