package ledgertest

import (
	"testing"

	"gpuqd/daemon/ledger"

	"github.com/google/uuid"
)

func insertClaims(t *testing.T, _ Open, store ledger.Store) {
	ctx := testContext(t)
	t.Run("StoredDocumentReadsBack", func(t *testing.T) {
		id := put(t, store, `"a": 1`)
		wantStored(t, store, id, `"a": 1`)
	})
	t.Run("TakenIDIsRefusedAndKeepsItsDocument", func(t *testing.T) {
		id := put(t, store, `"a": 1`)
		wantError(t, store.Insert(ctx, ledger.Scratch, id, document(id, `"a": 2`)), ledger.ErrExists)
		wantStored(t, store, id, `"a": 1`)
	})
	t.Run("SameIDInAnotherCollectionIsFree", func(t *testing.T) {
		id := put(t, store, `"a": 1`)
		wantError(t, store.Insert(ctx, ledger.Events, id, document(id, "")), nil)
		wantError(t, store.Delete(ctx, ledger.Events, id), nil)
		wantStored(t, store, id, `"a": 1`)
	})
	t.Run("IDThatIsNoUUID", func(t *testing.T) {
		id := `gpuq.job.default.normal.g1.any 'quoted" $oid é ` + uuid.NewString()
		if err := store.Insert(ctx, ledger.Scratch, id, []byte(`{"id": "gpuq.job.default.normal.g1.any 'quoted\" $oid é `+id[len(id)-36:]+`"}`)); err != nil {
			t.Fatal(err)
		}
		_, err := store.Get(ctx, ledger.Scratch, id)
		wantError(t, err, nil)
	})
	t.Run("DocumentOfAnotherIDIsRefused", func(t *testing.T) {
		id := uuid.NewString()
		wantPlainError(t, store.Insert(ctx, ledger.Scratch, id, document("another", "")))
		_, err := store.Get(ctx, ledger.Scratch, id)
		wantError(t, err, ledger.ErrNotFound)
	})
	t.Run("TextThatIsNoObjectIsRefused", func(t *testing.T) {
		for _, text := range []string{``, `{`, `[]`, `null`, `"text"`, `{"id": "x"} {"id": "x"}`} {
			wantPlainError(t, store.Insert(ctx, ledger.Scratch, "x", []byte(text)))
		}
		_, err := store.Get(ctx, ledger.Scratch, "x")
		wantError(t, err, ledger.ErrNotFound)
	})
	t.Run("DeletedDocumentIsGoneAndItsIDFree", func(t *testing.T) {
		id := put(t, store, "")
		wantError(t, store.Delete(ctx, ledger.Scratch, id), nil)
		_, err := store.Get(ctx, ledger.Scratch, id)
		wantError(t, err, ledger.ErrNotFound)
		putAs(t, store, id, `"again": true`)
	})
	t.Run("DeleteOfNothingIsNoError", func(t *testing.T) {
		wantError(t, store.Delete(ctx, ledger.Scratch, uuid.NewString()), nil)
	})
	t.Run("GetOfNothingIsNotFound", func(t *testing.T) {
		_, err := store.Get(ctx, ledger.Scratch, uuid.NewString())
		wantError(t, err, ledger.ErrNotFound)
	})
	t.Run("UnknownCollectionIsRefused", func(t *testing.T) {
		wantPlainError(t, store.Insert(ctx, `x"; --`, "x", document("x", "")))
	})
}
