package ledgertest

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// awkward values must come back as they went in, whatever a database's own
// notation makes of them. Arrays stand in arrays only by way of an object: the
// ledger has no others, and FerretDB takes no others.
var awkward = map[string]any{
	"Unicode":         "Grüße, 世界, 🦀, \u200d\u2028\ufeff",
	"ControlBytes":    "tab\tnewline\nreturn\rescape\x1b nul\x00 del\x7f",
	"HTML":            "<a href='x'>&amp;</a>",
	"Backslashes":     `C:\new\table \u0041`,
	"Replacement":     "\ufffd",
	"DollarText":      "$set",
	"DottedText":      "owner.session",
	"ExtendedJSON":    `{"$numberLong": "5"}`,
	"Long":            strings.Repeat("lorem ", 40_000),
	"EmptyText":       "",
	"DateText":        "2026-11-22T14:00:00.000000Z",
	"ObjectIDText":    "507f1f77bcf86cd799439011",
	"Null":            nil,
	"True":            true,
	"EmptyArray":      []any{},
	"EmptyMap":        map[string]any{},
	"Mixed":           []any{1, "a", nil, true, 1.5, map[string]any{"a": []string{"b"}}},
	"Nested":          map[string]any{"a": []any{map[string]any{"b": map[string]any{"c": []any{}}}}},
	"Zero":            0,
	"Negative":        -42,
	"Int32Edge":       int64(math.MaxInt32) + 1,
	"Int53":           int64(1) << 53,
	"Int53And1":       int64(1)<<53 + 1,
	"Int64Max":        int64(math.MaxInt64),
	"Int64Min":        int64(math.MinInt64),
	"Float":           0.1,
	"FloatSum":        0.1 + 0.2,
	"FloatSmall":      5e-324,
	"FloatLarge":      math.MaxFloat64,
	"FloatExponent":   1e21,
	"FloatWhole":      2.0,
	"KeysOfOperators": map[string]any{"$oid": "5f", "$set": map[string]any{"a": 1}, "$ref": "x"},
	"KeysOfDates":     map[string]any{"$date": "2026-11-22T14:00:00Z"},
	"KeysWithDots":    map[string]any{"a.b": 1, ".": 2, "..": 3, "%2E": 4, "%": 5},
	"KeysLikeIDs":     map[string]any{"id": "inner", "_id": "other"},
	"KeysLikeNumbers": map[string]any{"0": "a", "1": "b"},
	"KeysInUnicode":   map[string]any{"größe": "世界", "a b": 1, "'": 2, `"`: 3},
}

func roundTripClaims(t *testing.T, _ Open, store ledger.Store) {
	ctx := testContext(t)
	for name, value := range awkward {
		t.Run(name, func(t *testing.T) {
			id := uuid.NewString()
			want := mustJSON(t, map[string]any{"id": id, "value": value, "in": map[string]any{"set": value}, "pushed": []any{map[string]any{"v": value}}})
			start := mustJSON(t, map[string]any{"id": id, "value": value, "in": map[string]any{}, "pushed": []any{}})
			if err := store.Insert(ctx, ledger.Scratch, id, start); err != nil {
				t.Fatal(err)
			}
			after, err := store.Update(ctx, ledger.Scratch, id, nil, ledger.Update{
				Set: map[string]any{"in.set": value}, Push: map[string]any{"pushed": map[string]any{"v": value}},
			})
			if err != nil {
				t.Fatal(err)
			}
			wantJSON(t, after, want)
			stored, err := store.Get(ctx, ledger.Scratch, id)
			if err != nil {
				t.Fatal(err)
			}
			wantJSON(t, stored, want)
		})
	}
	t.Run("Job", func(t *testing.T) { jobRoundTrip(t, store) })
}

// jobRoundTrip stores the document that matters most, with every field set.
func jobRoundTrip(t *testing.T, store ledger.Store) {
	ctx := testContext(t)
	spec := job.DefaultSpec()
	spec.Command = []string{"python", "-c", `print("$HOME {\"$oid\": 1}")`}
	spec.Env = map[string]string{"PATH_LIKE": "a.b:$c", "EMPTY": ""}
	spec.Labels = map[string]string{"0": "numeric", "team-a": "é.$"}
	now := job.At(callStart)
	j := job.New(job.NewID(), "alice", spec, now)
	j.Owner = &job.Owner{Host: "h", Session: "s", ClaimID: "c", Devices: []string{}}
	j.Kill = &job.Kill{ID: "k", Who: "bob", Reason: "r", At: now}
	j.Result = &job.Result{GPUSeconds: 0.1 + 0.2, CPUSeconds: 3, MemoryBytesMax: 80 << 30, LogTail: "\x1b[31m\u0000"}
	want := mustJSON(t, j)
	if err := store.Insert(ctx, ledger.Jobs, string(j.ID), want); err != nil {
		t.Fatal(err)
	}
	defer store.Delete(ctx, ledger.Jobs, string(j.ID))
	stored, err := store.Get(ctx, ledger.Jobs, string(j.ID))
	if err != nil {
		t.Fatal(err)
	}
	wantJSON(t, stored, want)
	var back job.Job
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	if got := mustJSON(t, back); string(got) != string(want) {
		t.Errorf("the job reads back as\n%s\nwant\n%s", got, want)
	}
}

func mustJSON(t testing.TB, v any) json.RawMessage {
	t.Helper()
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
