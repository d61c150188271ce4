package ledgertest

import (
	"testing"

	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

func updateClaims(t *testing.T, _ Open, store ledger.Store) {
	t.Run("Change", func(t *testing.T) { changeClaims(t, store) })
	t.Run("Refusal", func(t *testing.T) { refusalClaims(t, store) })
}

// changes says what each update makes of a document.
var changes = []struct {
	name, before string
	update       ledger.Update
	after        string
}{
	{
		"SetReplacesOneFieldAndKeepsTheRest", `"a": 1, "b": [1]`,
		ledger.Update{Set: map[string]any{"a": "x"}},
		`"a": "x", "b": [1]`,
	},
	{"SetAddsAField", ``, ledger.Update{Set: map[string]any{"a": false}}, `"a": false`},
	{"SetToNullKeepsTheField", `"a": {"b": 1}`, ledger.Update{Set: map[string]any{"a": nil}}, `"a": null`},
	{
		"SetOfAnObjectOverNull", `"owner": null`,
		ledger.Update{Set: map[string]any{"owner": map[string]any{"host": "h", "devices": []string{"GPU-1"}}}},
		`"owner": {"host": "h", "devices": ["GPU-1"]}`,
	},
	{
		"SetInsideAnObject", `"owner": {"host": "h", "at": ""}`,
		ledger.Update{Set: map[string]any{"owner.at": "t", "owner.new": 1}},
		`"owner": {"host": "h", "at": "t", "new": 1}`,
	},
	{"SetDeepInside", `"a": {"b": {"c": 1, "d": 2}}`, ledger.Update{Set: map[string]any{"a.b.c": []any{}}}, `"a": {"b": {"c": [], "d": 2}}`},
	{
		"SetTextIsNeverRead", `"a": 1`,
		ledger.Update{Set: map[string]any{"a": `{"$oid": "5f"}'); DROP TABLE jobs; --`}},
		`"a": "{\"$oid\": \"5f\"}'); DROP TABLE jobs; --"`,
	},
	{"SetOfABigInteger", `"a": 1`, ledger.Update{Set: map[string]any{"a": int64(9007199254740993)}}, `"a": 9007199254740993`},
	{"SetOfAFloat", `"a": 1`, ledger.Update{Set: map[string]any{"a": 0.1}}, `"a": 0.1`},
	{"IncCounts", `"n": 41`, ledger.Update{Inc: map[string]int64{"n": 1}}, `"n": 42`},
	{"IncOfNothingCountsFromZero", ``, ledger.Update{Inc: map[string]int64{"n": 3}}, `"n": 3`},
	{"IncByZeroAndLess", `"n": 5, "m": 5`, ledger.Update{Inc: map[string]int64{"n": 0, "m": -7}}, `"n": 5, "m": -2`},
	{"IncInsideAnObject", `"a": {"n": 1}`, ledger.Update{Inc: map[string]int64{"a.n": 1, "a.m": 1}}, `"a": {"n": 2, "m": 1}`},
	{"IncPastFloatPrecision", `"n": 9007199254740992`, ledger.Update{Inc: map[string]int64{"n": 1}}, `"n": 9007199254740993`},
	{
		"PushAppends", `"h": [{"s": "a"}]`,
		ledger.Update{Push: map[string]any{"h": map[string]any{"s": "b", "n": nil}}},
		`"h": [{"s": "a"}, {"s": "b", "n": null}]`,
	},
	{"PushToAnEmptyArray", `"h": []`, ledger.Update{Push: map[string]any{"h": "x"}}, `"h": ["x"]`},
	{"PushToNothingMakesTheArray", ``, ledger.Update{Push: map[string]any{"h": 1}}, `"h": [1]`},
	{
		"PushOfModifiersIsPlainData", `"h": []`,
		ledger.Update{Push: map[string]any{"h": map[string]any{"$each": []int{1}, "$slice": 0}}},
		`"h": [{"$each": [1], "$slice": 0}]`,
	},
	{
		"AllTogether", `"state": "queued", "attempt": 0, "owner": null, "history": [1]`,
		ledger.Update{
			Set:  map[string]any{"state": "claimed", "owner": map[string]any{"host": "h"}},
			Inc:  map[string]int64{"attempt": 1, "fence": 1},
			Push: map[string]any{"history": 2},
		},
		`"state": "claimed", "attempt": 1, "fence": 1, "owner": {"host": "h"}, "history": [1, 2]`,
	},
}

func changeClaims(t *testing.T, store ledger.Store) {
	ctx := testContext(t)
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			id := put(t, store, c.before)
			after, err := store.Update(ctx, ledger.Scratch, id, nil, c.update)
			if err != nil {
				t.Fatal(err)
			}
			wantJSON(t, after, document(id, c.after)) // what the caller goes on with
			wantStored(t, store, id, c.after)
		})
	}
}

// refusals are updates that no store may perform, even in part.
var refusals = []struct {
	name, before string
	update       ledger.Update
}{
	{"Nothing", ``, ledger.Update{}},
	{"SetOfTheIdentity", ``, ledger.Update{Set: map[string]any{"id": "x"}}},
	{"SetBelowNull", `"owner": null`, ledger.Update{Set: map[string]any{"owner.at": 1, "b": 1}}},
	{"SetBelowText", `"owner": "x"`, ledger.Update{Set: map[string]any{"owner.at": 1, "b": 1}}},
	{"IncOfText", `"n": "5"`, ledger.Update{Inc: map[string]int64{"n": 1}, Set: map[string]any{"b": 1}}},
	{"IncOfNull", `"n": null`, ledger.Update{Inc: map[string]int64{"n": 1}, Set: map[string]any{"b": 1}}},
	{"PushToText", `"h": "x"`, ledger.Update{Push: map[string]any{"h": 1}, Set: map[string]any{"b": 1}}},
	{"PushToNull", `"h": null`, ledger.Update{Push: map[string]any{"h": 1}, Set: map[string]any{"b": 1}}},
	{"OnePathTwice", `"n": 1`, ledger.Update{Set: map[string]any{"n": 5}, Inc: map[string]int64{"n": 1}}},
	{"OnePathInsideAnother", `"a": {"b": 1}`, ledger.Update{Set: map[string]any{"a": 5, "a.b": 1}}},
	{"PathWithAnOperator", ``, ledger.Update{Set: map[string]any{"$inc": 5}}},
	{"PathThatIsSQL", ``, ledger.Update{Set: map[string]any{`a', 1), doc = json('{}`: 5}}},
	{"PathIntoAnArray", `"h": [1]`, ledger.Update{Set: map[string]any{"h.0": 5}}},
	{"ValueThatIsNoData", ``, ledger.Update{Set: map[string]any{"a": make(chan int)}}},
}

func refusalClaims(t *testing.T, store ledger.Store) {
	ctx := testContext(t)
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			id := put(t, store, c.before)
			_, err := store.Update(ctx, ledger.Scratch, id, nil, c.update)
			wantPlainError(t, err)
			wantStored(t, store, id, c.before)
		})
	}
	t.Run("MismatchChangesNothing", func(t *testing.T) {
		id := put(t, store, `"state": "queued", "n": 1, "h": []`)
		_, err := store.Update(ctx, ledger.Scratch, id, []ledger.Cond{{Field: "state", Op: ledger.Eq, Value: "claimed"}},
			ledger.Update{Set: map[string]any{"state": "running"}, Inc: map[string]int64{"n": 1}, Push: map[string]any{"h": 1}})
		wantError(t, err, ledger.ErrNoMatch)
		wantStored(t, store, id, `"state": "queued", "n": 1, "h": []`)
	})
	t.Run("AbsentDocumentIsNoMatchAndIsNotMade", func(t *testing.T) {
		id := uuid.NewString()
		_, err := store.Update(ctx, ledger.Scratch, id, nil, ledger.Update{Set: map[string]any{"a": 1}})
		wantError(t, err, ledger.ErrNoMatch)
		_, err = store.Get(ctx, ledger.Scratch, id)
		wantError(t, err, ledger.ErrNotFound)
	})
}
