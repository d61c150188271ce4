package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/ledger"
	"gpuqd/daemon/ledger/mongodb"
	"gpuqd/daemon/ledger/sqlite"
	"gpuqd/test/services"
)

// The suite has the cases that people thought of. Here chance puts operations
// together, on documents shaped like jobs and hosts, and each real store must
// answer as the simulated one does.

func TestSameAnswersAsSQLite(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			real, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "ledger.db")})
			if err != nil {
				t.Fatal(err)
			}
			defer real.Close()
			sameAnswers(t, real, seed, 1000)
		})
	}
}

// Few operations: the stand-in for MongoDB is slow.
func TestSameAnswersAsMongoDB(t *testing.T) {
	ports, err := services.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	server, err := services.NewMongo(t.Context(), t.TempDir(), ports[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	t.Logf("the server is %s", server.Kind)
	real, err := mongodb.Open(t.Context(), mongodb.Options{URI: server.URI(), SingleNode: true, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	sameAnswers(t, real, 100, 1000)
}

// sameAnswers puts the same operations to both stores.
func sameAnswers(t *testing.T, real ledger.Store, seed uint64, operations int) {
	t.Helper()
	if err := real.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	simulated := NewPort()
	r := dice{rand.New(rand.NewPCG(seed, 1))}
	outcomes := map[string]int{}
	for n := range operations {
		op := r.operation(t)
		want, got := op.on(real), op.on(simulated)
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d, operation %d: %s\nthe %s store: %s\nthe simulated: %s", seed, n, op.name, real.Kind(), want, got)
		}
		outcomes[op.kind+" "+want.err]++
	}
	for _, needed := range []string{"insert ", "insert exists", "update ", "update no match", "update fails", "get ", "get not found", "find ", "find fails", "delete "} {
		if outcomes[needed] == 0 {
			t.Errorf("seed %d never came to %q: %v", seed, needed, outcomes)
		}
	}
}

// operation is one call of a store.
type operation struct {
	kind, name string
	on         func(ledger.Store) answer
}

// answer is what came of it, in a form that can be compared.
type answer struct {
	err  string
	docs []any
}

func (a answer) String() string {
	text, _ := json.Marshal(a.docs)
	return fmt.Sprintf("error %q, documents %s", a.err, text)
}

func answerOf(err error, docs ...json.RawMessage) answer {
	a := answer{}
	for meaning, text := range map[error]string{ledger.ErrExists: "exists", ledger.ErrNoMatch: "no match", ledger.ErrNotFound: "not found"} {
		if errors.Is(err, meaning) {
			a.err = text
		}
	}
	if err != nil && a.err == "" {
		a.err = "fails" // in the words of each store
	}
	for _, doc := range docs {
		if doc == nil {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(doc))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			v = err.Error()
		}
		a.docs = append(a.docs, v)
	}
	return a
}

// dice draws operations.
type dice struct{ *rand.Rand }

func pick[T any](r dice, list ...T) T { return list[r.IntN(len(list))] }

func (r dice) collection() ledger.Collection { return pick(r, ledger.Jobs, ledger.Jobs, ledger.Hosts) }

func (r dice) id() string { return pick(r, "a", "b", "c", "d", "e-1", `f'"é`) }

// value draws something of any kind that documents hold and conditions ask for.
func (r dice) value() any {
	return pick[any](r, nil, true, false, "queued", "running", "claimed", "", "2026-11-22T14:00:00.000000Z", `<"\é>`, 0, 1, 2, -3, int64(1)<<53+1)
}

func (r dice) owner() any {
	if r.IntN(3) == 0 {
		return nil
	}
	return map[string]any{"host": r.id(), "session": pick(r, "s1", "s2"), "claim_id": pick(r, "c1", "c2"), "devices": []string{"GPU-1"}, "running": ""}
}

var states = []string{"waiting", "queued", "claimed", "running", "succeeded"}

func (r dice) document(id string) map[string]any {
	doc := map[string]any{
		"id": id, "state": pick(r, states...), "queue": pick(r, "q1", "q2"), "attempt": r.IntN(3), "fence": r.IntN(4),
		"published_at": pick(r, "", "2026-01-01", "2026-01-02", "2026-01-03"), "owner": r.owner(), "kill": pick[any](r, nil, map[string]any{"id": "k"}),
		"history": []any{map[string]any{"state": "queued"}}, "half": 1.5, "mixed": r.value(),
		"session": map[string]any{"id": pick(r, "s1", "s2"), "renew_seq": r.IntN(3), "state": pick(r, "live", "expired")},
	}
	for _, field := range []string{"mixed", "half", "kill", "published_at"} {
		if r.IntN(4) == 0 {
			delete(doc, field)
		}
	}
	return doc
}

// paths are what conditions ask for: no arrays, in which MongoDB looks at the
// elements and the ledger never does.
var paths = []string{
	"id", "state", "queue", "attempt", "fence", "published_at", "owner", "owner.host", "owner.session", "owner.running",
	"kill", "kill.id", "half", "mixed", "session.id", "session.renew_seq", "session.state", "absent", "absent.below",
}

func (r dice) conditions() []ledger.Cond {
	var list []ledger.Cond
	for range r.IntN(5) / 2 {
		c := ledger.Cond{Field: pick(r, paths...), Op: pick(r, ledger.Eq, ledger.Eq, ledger.Lt, ledger.Lte, ledger.Gt), Value: r.value()}
		switch r.IntN(8) {
		case 0, 1, 2:
			c = ledger.Cond{Field: "state", Op: ledger.In, Value: []string{pick(r, states...), pick(r, states...)}}
		case 3:
			c = ledger.Cond{Field: pick(r, "fence", "attempt", "session.renew_seq", "half"), Op: c.Op, Value: r.IntN(4)}
		case 4:
			c = ledger.Cond{Field: "published_at", Op: c.Op, Value: pick(r, "", "2026-01-01", "2026-01-02", "2026-01-03")}
		case 5:
			c = ledger.Cond{Field: pick(r, "owner.host", "id", "owner.session"), Op: ledger.In, Value: []string{r.id(), r.id(), "s1"}}
		}
		list = append(list, c)
	}
	return list
}

func (r dice) update() ledger.Update {
	u := ledger.Update{Set: map[string]any{}, Inc: map[string]int64{}, Push: map[string]any{}}
	for range r.IntN(3) {
		switch r.IntN(8) {
		case 0:
			u.Set["state"] = pick(r, states...)
		case 1:
			u.Set["owner"] = r.owner()
		case 2:
			u.Set["owner.running"] = "now"
		case 3:
			u.Set["session.renew_seq"] = r.IntN(3)
		case 4:
			u.Set["published_at"] = pick(r, "", "2026-01-02", "2026-01-04")
		case 5:
			u.Set["mixed"] = r.value()
		case 6:
			u.Set[pick(r, "new", "made.below", "kill.who", "session.by.whom")] = r.value()
		case 7:
			u.Set["session"] = map[string]any{"id": "s3", "renew_seq": 1, "state": "live"}
		}
	}
	for range r.IntN(3) {
		u.Inc[pick(r, "attempt", "fence", "absent_too", "half", "mixed", "session.renew_seq", "state")] = int64(r.IntN(5) - 2)
	}
	if r.IntN(2) == 0 {
		u.Push[pick(r, "history", "history", "history", "more", "state")] = map[string]any{"state": pick(r, states...), "at": r.value()}
	}
	return u
}

func (r dice) query() ledger.Query {
	q := ledger.Query{When: r.conditions(), Desc: r.IntN(2) == 0}
	q.Sort = pick(r, "", "id", "published_at", "fence", "state", "session.renew_seq", "half", "absent")
	if q.Sort != "" {
		q.Limit = r.IntN(4)
	}
	for range r.IntN(3) {
		q.Without = append(q.Without, pick(r, "history", "owner", "kill", "absent"))
	}
	slices.Sort(q.Without)
	q.Without = slices.Compact(q.Without)
	return q
}

func (r dice) operation(t *testing.T) operation {
	ctx, c, id := t.Context(), r.collection(), r.id()
	switch n := r.IntN(20); {
	case n < 4:
		doc, err := json.Marshal(r.document(id))
		if err != nil {
			t.Fatal(err)
		}
		return operation{"insert", fmt.Sprintf("insert into %s: %s", c, doc), func(s ledger.Store) answer { return answerOf(s.Insert(ctx, c, id, doc)) }}
	case n < 12:
		when, u := r.conditions(), r.update()
		return operation{"update", fmt.Sprintf("update %s %s when %v: %v", c, id, when, u), func(s ledger.Store) answer {
			doc, err := s.Update(ctx, c, id, when, u)
			return answerOf(err, doc)
		}}
	case n < 14:
		return operation{"get", fmt.Sprintf("get %s %s", c, id), func(s ledger.Store) answer {
			doc, err := s.Get(ctx, c, id)
			return answerOf(err, doc)
		}}
	case n < 19:
		q := r.query()
		return operation{"find", fmt.Sprintf("find in %s: %+v", c, q), func(s ledger.Store) answer {
			docs, err := s.Find(ctx, c, q)
			a := answerOf(err, docs...)
			if q.Sort == "" { // the order is open
				slices.SortFunc(a.docs, func(x, y any) int { return bytes.Compare(fmt.Append(nil, x), fmt.Append(nil, y)) })
			}
			return a
		}}
	}
	return operation{"delete", fmt.Sprintf("delete from %s: %s", c, id), func(s ledger.Store) answer { return answerOf(s.Delete(ctx, c, id)) }}
}
