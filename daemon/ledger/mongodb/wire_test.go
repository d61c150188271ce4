package mongodb_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/mongodb"

	"go.mongodb.org/mongo-driver/v2/bson"
)

var (
	found   = bson.D{{Key: "_id", Value: "a"}, {Key: "n", Value: int64(2)}}
	unheard = bson.E{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 64}, {Key: "codeName", Value: "WriteConcernTimeout"}, {Key: "errmsg", Value: "waiting for replication timed out"}}}
	taken   = bson.E{Key: "writeErrors", Value: bson.A{bson.D{{Key: "index", Value: 0}, {Key: "code", Value: 11000}, {Key: "errmsg", Value: "E11000 duplicate key error"}}}}
)

func update(t *testing.T, store *mongodb.Store) error {
	_, err := store.Update(t.Context(), ledger.Scratch, "a", []ledger.Cond{{Field: "n", Op: ledger.Eq, Value: 1}},
		ledger.Update{Set: map[string]any{"n": 2}})
	return err
}

// What the protocol rests on must be in every request, whatever the URI says.
func TestRequests(t *testing.T) {
	f := startFake(t, map[string]bson.D{
		"findAndModify": {{Key: "ok", Value: 1}, {Key: "value", Value: found}},
		"find":          {{Key: "ok", Value: 1}, {Key: "cursor", Value: bson.D{{Key: "id", Value: int64(0)}, {Key: "ns", Value: "gpuqd.scratch"}, {Key: "firstBatch", Value: bson.A{found}}}}},
		"insert":        {{Key: "ok", Value: 1}, {Key: "n", Value: 1}},
	})
	store := openTest(t, mongodb.Options{URI: f.uri() + "&w=1&journal=false&readConcernLevel=local&readPreference=nearest&retryWrites=false"})
	if err := update(t, store); err != nil {
		t.Fatal(err)
	}
	if err := store.Insert(t.Context(), ledger.Scratch, "a", []byte(`{"id":"a"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(t.Context(), ledger.Scratch, "a"); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"findAndModify", "insert"} {
		request := f.last(t, command)
		concern := request.Lookup("writeConcern")
		if concern.Type != bson.TypeEmbeddedDocument {
			t.Fatalf("%s has no write concern: %s", command, request)
		}
		if w, _ := concern.Document().Lookup("w").StringValueOK(); w != "majority" {
			t.Errorf("%s asks for %s", command, concern)
		}
		if j, _ := concern.Document().Lookup("j").BooleanOK(); !j {
			t.Errorf("%s asks for %s", command, concern)
		}
		if request.Lookup("txnNumber").Type == 0 {
			t.Errorf("%s has no transaction number: a repetition would not be recognised", command)
		}
		wantBound(t, command, request)
	}
	request := f.last(t, "find")
	if level, _ := request.Lookup("readConcern", "level").StringValueOK(); level != "linearizable" {
		t.Errorf("find reads with %s", request.Lookup("readConcern"))
	}
	wantBound(t, "find", request)
}

func wantBound(t *testing.T, command string, request bson.Raw) {
	t.Helper()
	if ms, ok := request.Lookup("maxTimeMS").AsInt64OK(); !ok || ms <= 0 {
		t.Errorf("%s has no bound in time: %s", command, request)
	}
}

// A write whose majority did not answer may or may not last: its error must not
// read as a lost race, and never as success.
func TestUnconfirmedWriteIsUnknown(t *testing.T) {
	f := startFake(t, map[string]bson.D{
		"findAndModify": {{Key: "ok", Value: 1}, {Key: "value", Value: found}, unheard},
		"insert":        {{Key: "ok", Value: 1}, {Key: "n", Value: 1}, unheard},
		"delete":        {{Key: "ok", Value: 1}, {Key: "n", Value: 1}, unheard},
	})
	store := openTest(t, mongodb.Options{URI: f.uri()})
	for name, err := range map[string]error{
		"update": update(t, store),
		"insert": store.Insert(t.Context(), ledger.Scratch, "a", []byte(`{"id":"a"}`)),
		"delete": store.Delete(t.Context(), ledger.Scratch, "a"),
	} {
		if err == nil || errors.Is(err, ledger.ErrNoMatch) || errors.Is(err, ledger.ErrExists) {
			t.Errorf("%s: got %v, want an unknown outcome", name, err)
		}
	}
}

func TestTakenID(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer bson.D
		exists bool
	}{
		{"Confirmed", bson.D{{Key: "ok", Value: 1}, {Key: "n", Value: 0}, taken}, true},
		{"Unconfirmed", bson.D{{Key: "ok", Value: 1}, {Key: "n", Value: 0}, taken, unheard}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFake(t, map[string]bson.D{"insert": c.answer})
			store := openTest(t, mongodb.Options{URI: f.uri()})
			err := store.Insert(t.Context(), ledger.Scratch, "a", []byte(`{"id":"a"}`))
			if err == nil || errors.Is(err, ledger.ErrExists) != c.exists {
				t.Errorf("got %v, want ErrExists: %v", err, c.exists)
			}
		})
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Run("AReplicaSetOfOneUnlessAccepted", func(t *testing.T) {
		f := startFake(t, nil)
		err := openTest(t, mongodb.Options{URI: f.uri()}).Prepare(t.Context())
		if !errors.Is(err, ledger.ErrUnfit) || !strings.Contains(err.Error(), "single_node = true") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("AMajorityThatCannotBe", func(t *testing.T) {
		f := startFake(t, map[string]bson.D{
			"insert":      {{Key: "ok", Value: 1}, {Key: "n", Value: 1}, {Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 100}, {Key: "errmsg", Value: "Not enough data-bearing nodes"}}}},
			"listIndexes": {{Key: "ok", Value: 1}, {Key: "cursor", Value: bson.D{{Key: "id", Value: int64(0)}, {Key: "ns", Value: "gpuqd.jobs"}, {Key: "firstBatch", Value: bson.A{}}}}},
		})
		err := openTest(t, mongodb.Options{URI: f.uri(), SingleNode: true}).Prepare(t.Context())
		if !errors.Is(err, ledger.ErrUnfit) || !strings.Contains(err.Error(), "majority") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpen(t *testing.T) {
	for name, o := range map[string]mongodb.Options{
		"Empty":           {},
		"NoScheme":        {URI: "db1:27017"},
		"BadOption":       {URI: "mongodb://alice:s3cret@db1/?replicaSet=a&maxPoolSize=many"},
		"BadPassword":     {URI: "mongodb://alice:s3cret%zz@db1/"},
		"SlashInPassword": {URI: "mongodb://alice:s3cret/x@db1/"},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := mongodb.Open(t.Context(), o)
			if err == nil {
				store.Close()
				t.Fatal("it was opened")
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
	t.Run("ServerThatIsGoneFailsInTime", func(t *testing.T) {
		f := startFake(t, nil)
		uri := f.uri()
		f.listener.Close()
		store := openTest(t, mongodb.Options{URI: uri, Timeout: 200 * time.Millisecond})
		_, err := store.Get(t.Context(), ledger.Scratch, "a")
		if err == nil || errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
}
