package ledgertest

import (
	"errors"
	"fmt"
	"testing"

	"gpuqd/daemon/ledger"
)

// subject is the document that the conditions below are tried on.
const subject = `"text": "b", "empty": "", "int": 5, "big": 9007199254740993, "float": 1.5, "zero": 0,
	"yes": true, "no": false, "null": null, "list": ["b", 5], "tree": {"leaf": "x", "none": null, "deep": {"n": 7}}`

// conditions says of each whether the subject meets it.
var conditions = []struct {
	cond ledger.Cond
	want bool
}{
	{ledger.Cond{Field: "text", Op: ledger.Eq, Value: "b"}, true},
	{ledger.Cond{Field: "text", Op: ledger.Eq, Value: "B"}, false},
	{ledger.Cond{Field: "text", Op: ledger.Eq, Value: "b' OR '1'='1"}, false},
	{ledger.Cond{Field: "text", Op: ledger.Eq, Value: ""}, false},
	{ledger.Cond{Field: "text", Op: ledger.Eq, Value: nil}, false},
	{ledger.Cond{Field: "empty", Op: ledger.Eq, Value: ""}, true},
	{ledger.Cond{Field: "empty", Op: ledger.Eq, Value: nil}, false},
	{ledger.Cond{Field: "int", Op: ledger.Eq, Value: 5}, true},
	{ledger.Cond{Field: "int", Op: ledger.Eq, Value: int64(5)}, true},
	{ledger.Cond{Field: "int", Op: ledger.Eq, Value: "5"}, false},
	{ledger.Cond{Field: "big", Op: ledger.Eq, Value: int64(9007199254740993)}, true},
	{ledger.Cond{Field: "big", Op: ledger.Eq, Value: int64(9007199254740992)}, false},
	{ledger.Cond{Field: "zero", Op: ledger.Eq, Value: nil}, false},
	{ledger.Cond{Field: "zero", Op: ledger.Eq, Value: false}, false},
	{ledger.Cond{Field: "yes", Op: ledger.Eq, Value: true}, true},
	{ledger.Cond{Field: "yes", Op: ledger.Eq, Value: false}, false},
	{ledger.Cond{Field: "yes", Op: ledger.Eq, Value: 1}, false},
	{ledger.Cond{Field: "no", Op: ledger.Eq, Value: false}, true},
	{ledger.Cond{Field: "no", Op: ledger.Eq, Value: nil}, false},
	{ledger.Cond{Field: "null", Op: ledger.Eq, Value: nil}, true},
	{ledger.Cond{Field: "null", Op: ledger.Eq, Value: ""}, false},
	{ledger.Cond{Field: "null", Op: ledger.Eq, Value: 0}, false},
	{ledger.Cond{Field: "absent", Op: ledger.Eq, Value: nil}, true},
	{ledger.Cond{Field: "absent", Op: ledger.Eq, Value: ""}, false},
	{ledger.Cond{Field: "list", Op: ledger.Eq, Value: nil}, false},
	{ledger.Cond{Field: "tree", Op: ledger.Eq, Value: nil}, false},
	{ledger.Cond{Field: "tree.leaf", Op: ledger.Eq, Value: "x"}, true},
	{ledger.Cond{Field: "tree.leaf", Op: ledger.Eq, Value: "y"}, false},
	{ledger.Cond{Field: "tree.none", Op: ledger.Eq, Value: nil}, true},
	{ledger.Cond{Field: "tree.absent", Op: ledger.Eq, Value: nil}, true},
	{ledger.Cond{Field: "tree.deep.n", Op: ledger.Eq, Value: 7}, true},
	{ledger.Cond{Field: "null.leaf", Op: ledger.Eq, Value: nil}, true},
	{ledger.Cond{Field: "null.leaf", Op: ledger.Eq, Value: "x"}, false},
	{ledger.Cond{Field: "absent.leaf.n", Op: ledger.Eq, Value: nil}, true},

	{ledger.Cond{Field: "text", Op: ledger.In, Value: []string{"a", "b"}}, true},
	{ledger.Cond{Field: "text", Op: ledger.In, Value: []string{"a"}}, false},
	{ledger.Cond{Field: "text", Op: ledger.In, Value: []string{}}, false},
	{ledger.Cond{Field: "int", Op: ledger.In, Value: []string{"5"}}, false},
	{ledger.Cond{Field: "null", Op: ledger.In, Value: []string{"", "null"}}, false},
	{ledger.Cond{Field: "absent", Op: ledger.In, Value: []string{""}}, false},
	{ledger.Cond{Field: "tree.leaf", Op: ledger.In, Value: []string{"x", "y"}}, true},

	{ledger.Cond{Field: "int", Op: ledger.Lt, Value: 6}, true},
	{ledger.Cond{Field: "int", Op: ledger.Lt, Value: 5}, false},
	{ledger.Cond{Field: "int", Op: ledger.Lt, Value: "6"}, false},
	{ledger.Cond{Field: "int", Op: ledger.Lte, Value: 5}, true},
	{ledger.Cond{Field: "int", Op: ledger.Lte, Value: 4}, false},
	{ledger.Cond{Field: "int", Op: ledger.Gt, Value: 4}, true},
	{ledger.Cond{Field: "int", Op: ledger.Gt, Value: 5}, false},
	{ledger.Cond{Field: "float", Op: ledger.Lt, Value: 2}, true},
	{ledger.Cond{Field: "float", Op: ledger.Lte, Value: 1}, false},
	{ledger.Cond{Field: "text", Op: ledger.Lt, Value: "c"}, true},
	{ledger.Cond{Field: "text", Op: ledger.Lt, Value: "b"}, false},
	{ledger.Cond{Field: "text", Op: ledger.Lte, Value: "b"}, true},
	{ledger.Cond{Field: "text", Op: ledger.Gt, Value: ""}, true},
	{ledger.Cond{Field: "text", Op: ledger.Gt, Value: 0}, false},
	{ledger.Cond{Field: "empty", Op: ledger.Lt, Value: "2026-11-22T14:00:00.000000Z"}, true},
	{ledger.Cond{Field: "empty", Op: ledger.Gt, Value: ""}, false},
	{ledger.Cond{Field: "null", Op: ledger.Lt, Value: 1}, false},
	{ledger.Cond{Field: "null", Op: ledger.Lte, Value: "z"}, false},
	{ledger.Cond{Field: "null", Op: ledger.Gt, Value: -1}, false},
	{ledger.Cond{Field: "absent", Op: ledger.Lt, Value: 1}, false},
	{ledger.Cond{Field: "absent", Op: ledger.Lte, Value: "z"}, false},
	{ledger.Cond{Field: "absent", Op: ledger.Gt, Value: ""}, false},
	{ledger.Cond{Field: "yes", Op: ledger.Lt, Value: 2}, false},
}

// conditionClaims tries each condition in an update and in a search: both must
// give the same answer.
func conditionClaims(t *testing.T, _ Open, store ledger.Store) {
	ctx := testContext(t)
	id := put(t, store, subject)
	for _, c := range conditions {
		t.Run(fmt.Sprintf("%s_%s_%v", c.cond.Field, c.cond.Op, c.cond.Value), func(t *testing.T) {
			_, err := store.Update(ctx, ledger.Scratch, id, []ledger.Cond{c.cond}, ledger.Update{Inc: map[string]int64{"tries": 1}})
			if err != nil && !errors.Is(err, ledger.ErrNoMatch) {
				t.Fatal(err)
			}
			if got := err == nil; got != c.want {
				t.Errorf("the update matched: %v, want %v", got, c.want)
			}
			found, err := store.Find(ctx, ledger.Scratch, ledger.Query{When: []ledger.Cond{{Field: "id", Op: ledger.Eq, Value: id}, c.cond}})
			if err != nil {
				t.Fatal(err)
			}
			if got := len(found) == 1; got != c.want {
				t.Errorf("the search matched: %v, want %v", got, c.want)
			}
		})
	}
	t.Run("AllMustHold", func(t *testing.T) {
		for value, want := range map[string]error{"b": nil, "c": ledger.ErrNoMatch} {
			_, err := store.Update(ctx, ledger.Scratch, id, []ledger.Cond{
				{Field: "int", Op: ledger.Gt, Value: 4}, {Field: "int", Op: ledger.Lt, Value: 6}, {Field: "text", Op: ledger.Eq, Value: value},
			}, ledger.Update{Inc: map[string]int64{"tries": 1}})
			wantError(t, err, want)
		}
	})
	t.Run("MalformedOnesAreErrorsNotMismatches", func(t *testing.T) {
		for _, bad := range []ledger.Cond{
			{Field: "", Op: ledger.Eq, Value: nil},
			{Field: "$where", Op: ledger.Eq, Value: "1"},
			{Field: "a..b", Op: ledger.Eq, Value: nil},
			{Field: `a" = 1 OR "1`, Op: ledger.Eq, Value: nil},
			{Field: "a') --", Op: ledger.Eq, Value: nil},
			{Field: "text", Op: "ne", Value: "b"},
			{Field: "text", Op: ledger.In, Value: "b"},
			{Field: "int", Op: ledger.Lt, Value: nil},
			{Field: "tree", Op: ledger.Eq, Value: map[string]any{"$gt": ""}},
		} {
			_, err := store.Update(ctx, ledger.Scratch, id, []ledger.Cond{bad}, ledger.Update{Inc: map[string]int64{"tries": 1}})
			wantPlainError(t, err)
			_, err = store.Find(ctx, ledger.Scratch, ledger.Query{When: []ledger.Cond{bad}})
			wantPlainError(t, err)
		}
	})
}
