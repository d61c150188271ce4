// Package ledgertest is the one suite for every kind of ledger store: the
// contract of ledger.Store, races between goroutines and between processes, and
// the protocol of package ledger on top.
package ledgertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

// Open returns a new handle on the store under test. All handles of one test
// share their data. The handle closes with the test.
type Open func(t testing.TB) ledger.Store

// callTimeout bounds each case: a store that hangs fails, by name.
const callTimeout = 60 * time.Second

// Run holds a store to the contract of ledger.Store.
func Run(t *testing.T, open Open) {
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	store := open(t)
	for range 2 { // the second time it is all there already
		if err := store.Prepare(ctx); err != nil {
			t.Fatalf("prepare: %v", err)
		}
	}
	for _, group := range []struct {
		name   string
		claims func(*testing.T, Open, ledger.Store)
	}{
		{"Insert", insertClaims},
		{"Condition", conditionClaims},
		{"Update", updateClaims},
		{"Race", raceClaims},
		{"Handles", handleClaims},
		{"Find", findClaims},
		{"RoundTrip", roundTripClaims}, // last: some servers get slow among its documents
	} {
		t.Run(group.name, func(t *testing.T) { group.claims(t, open, store) })
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
	t.Cleanup(cancel)
	return ctx
}

// put inserts a document of the given fields under a fresh ID, which it returns.
func put(t testing.TB, store ledger.Store, fields string) string {
	t.Helper()
	id := uuid.NewString()
	putAs(t, store, id, fields)
	return id
}

// putAs inserts a document; fields is the inside of a JSON object.
func putAs(t testing.TB, store ledger.Store, id, fields string) {
	t.Helper()
	if err := store.Insert(testContext(t), ledger.Scratch, id, document(id, fields)); err != nil {
		t.Fatalf("insert %s: %v", fields, err)
	}
}

func document(id, fields string) json.RawMessage {
	if fields != "" {
		fields = ", " + fields
	}
	return json.RawMessage(fmt.Sprintf(`{"id": %q%s}`, id, fields))
}

// wantStored checks the stored document by a read.
func wantStored(t testing.TB, store ledger.Store, id, fields string) {
	t.Helper()
	doc, err := store.Get(testContext(t), ledger.Scratch, id)
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	wantJSON(t, doc, document(id, fields))
}

// wantJSON compares documents by value; numbers by their text, so that 1 is not
// 1.5 rounded nor 2^53+1 read through a float.
func wantJSON(t testing.TB, got, want json.RawMessage) {
	t.Helper()
	if !reflect.DeepEqual(decode(t, got), decode(t, want)) {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func decode(t testing.TB, doc json.RawMessage) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s is not JSON: %v", doc, err)
	}
	return v
}

// wantError checks for one of the store's own errors, nil included.
func wantError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

// wantPlainError checks for an error that is none of those with a meaning of
// their own: they would let the caller take it for a lost race.
func wantPlainError(t testing.TB, got error) {
	t.Helper()
	if got == nil {
		t.Fatal("got no error, want one")
	}
	for _, meaning := range []error{ledger.ErrNoMatch, ledger.ErrExists, ledger.ErrNotFound} {
		if errors.Is(got, meaning) {
			t.Fatalf("got error %v, which means %q", got, meaning)
		}
	}
}
