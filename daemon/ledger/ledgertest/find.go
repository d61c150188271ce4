package ledgertest

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

func findClaims(t *testing.T, _ Open, store ledger.Store) {
	ctx := testContext(t)
	batch := uuid.NewString() // keeps other cases' documents out
	ours := ledger.Cond{Field: "batch", Op: ledger.Eq, Value: batch}
	times := []string{"2026-01-03", "2026-01-01", "", "2026-01-02"}
	for i, at := range times {
		putAs(t, store, fmt.Sprintf("%s-%d", batch, i), fmt.Sprintf(`"batch": %q, "at": %q, "n": %d, "history": [1, 2], "keep": {"history": 3}`, batch, at, i))
	}
	find := func(t *testing.T, q ledger.Query) []json.RawMessage {
		t.Helper()
		q.When = append([]ledger.Cond{ours}, q.When...)
		docs, err := store.Find(ctx, ledger.Scratch, q)
		if err != nil {
			t.Fatal(err)
		}
		return docs
	}
	numbers := func(t *testing.T, docs []json.RawMessage) []int {
		t.Helper()
		var ns []int
		for _, doc := range docs {
			var d struct{ N int }
			if err := json.Unmarshal(doc, &d); err != nil {
				t.Fatal(err)
			}
			ns = append(ns, d.N)
		}
		return ns
	}
	for _, c := range []struct {
		name  string
		query ledger.Query
		want  []int
	}{
		{"SortedByTextOldestFirst", ledger.Query{Sort: "at"}, []int{2, 1, 3, 0}},
		{"SortedDescending", ledger.Query{Sort: "at", Desc: true}, []int{0, 3, 1, 2}},
		{"SortedByID", ledger.Query{Sort: "id", Desc: true}, []int{3, 2, 1, 0}},
		{"LimitKeepsTheFirst", ledger.Query{Sort: "at", Desc: true, Limit: 2}, []int{0, 3}},
		{"ConditionsAndSort", ledger.Query{Sort: "n", When: []ledger.Cond{{Field: "at", Op: ledger.Gt, Value: ""}, {Field: "at", Op: ledger.Lt, Value: "2026-01-03"}}}, []int{1, 3}},
		{"AmongIDs", ledger.Query{Sort: "n", When: []ledger.Cond{{Field: "id", Op: ledger.In, Value: []string{batch + "-3", batch + "-1", "none"}}}}, []int{1, 3}},
		{"ARangeOfIDs", ledger.Query{Sort: "id", When: []ledger.Cond{{Field: "id", Op: ledger.Gt, Value: batch + "-"}, {Field: "id", Op: ledger.Lt, Value: batch + "-2"}}}, []int{0, 1}},
		{"NoneIsEmpty", ledger.Query{When: []ledger.Cond{{Field: "n", Op: ledger.Gt, Value: 99}}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := numbers(t, find(t, c.query)); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	t.Run("LeavesOutTopLevelFieldsOnly", func(t *testing.T) {
		docs := find(t, ledger.Query{Sort: "n", Limit: 1, Without: []string{"history", "absent"}})
		wantJSON(t, docs[0], document(batch+"-0", fmt.Sprintf(`"batch": %q, "at": "2026-01-03", "n": 0, "keep": {"history": 3}`, batch)))
	})
	t.Run("MoreThanOneBatch", func(t *testing.T) {
		const many = 250 // servers answer with 101 first
		batch := uuid.NewString()
		for i := range many {
			putAs(t, store, fmt.Sprintf("%s-%03d", batch, i), fmt.Sprintf(`"batch": %q`, batch))
		}
		docs, err := store.Find(ctx, ledger.Scratch, ledger.Query{When: []ledger.Cond{{Field: "batch", Op: ledger.Eq, Value: batch}}})
		if err != nil || len(docs) != many {
			t.Fatalf("found %d (%v), want %d", len(docs), err, many)
		}
	})
}
