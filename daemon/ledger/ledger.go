package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"gpuqd/daemon/job"

	"github.com/google/uuid"
)

// Ledger performs the transitions of jobs and sessions on a store.
type Ledger struct {
	store Store
	id    string
}

// The start-up check races so many compare-and-sets, so many times. One race
// alone lets a server whose updates are not atomic pass now and then (FerretDB
// 1.24: in 3 of 20 starts).
const (
	checkRacers = 16
	checkRounds = 8
)

// Open prepares the store, proves its compare-and-set, and returns the ledger
// that it holds; the first to open a store gives the ledger its ID. It returns
// ErrUnfit, wrapped, for a store on which several compare-and-sets win at once.
func Open(ctx context.Context, store Store) (*Ledger, error) {
	if err := store.Prepare(ctx); err != nil {
		return nil, fmt.Errorf("prepare the %s ledger: %w", store.Kind(), err)
	}
	for range checkRounds {
		if err := checkCAS(ctx, store); err != nil {
			return nil, fmt.Errorf("check the %s ledger: %w", store.Kind(), err)
		}
	}
	l := &Ledger{store: store}
	if err := l.identify(ctx); err != nil {
		return nil, fmt.Errorf("identify the %s ledger: %w", store.Kind(), err)
	}
	return l, nil
}

// ID is the ledger's own identity. Keys of the done-cache carry it, so that a
// restored or replaced ledger never believes an old cache.
func (l *Ledger) ID() string { return l.id }

// Kind names the store: "sqlite" or "mongodb".
func (l *Ledger) Kind() string { return l.store.Kind() }

// Close ends the ledger's connections.
func (l *Ledger) Close() error { return l.store.Close() }

// Probe reports whether the ledger takes writes.
func (l *Ledger) Probe(ctx context.Context, now job.Time) error {
	_, err := l.store.Update(ctx, Meta, metaID, nil, Update{Set: map[string]any{"probed_at": now}})
	return err
}

// checkCAS lets compare-and-sets race on a scratch document: exactly one may
// win. A server that evaluates the filter apart from the write lets several.
func checkCAS(ctx context.Context, store Store) error {
	id := uuid.NewString()
	doc := mustJSON(map[string]any{"id": id, "winner": nil, "wins": 0})
	if err := store.Insert(ctx, Scratch, id, doc); err != nil {
		return err
	}
	defer func() { _ = store.Delete(context.WithoutCancel(ctx), Scratch, id) }() // a leftover harms nobody
	var (
		wg   sync.WaitGroup
		errs = make([]error, checkRacers)
	)
	for i := range checkRacers {
		wg.Go(func() {
			_, errs[i] = store.Update(ctx, Scratch, id, []Cond{{"winner", Eq, nil}},
				Update{Set: map[string]any{"winner": i}, Inc: map[string]int64{"wins": 1}})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrNoMatch):
			return err
		}
	}
	if won != 1 {
		return fmt.Errorf("%w: %d of %d racing compare-and-sets won, exactly one may: its updates are not atomic "+
			"(FerretDB 1.x is known for it); use MongoDB, or the sqlite ledger on a single machine", ErrUnfit, won, checkRacers)
	}
	return nil
}

const metaID = "ledger"

// meta is the ledger's own document.
type meta struct {
	ID         string   `json:"id"`
	LedgerID   string   `json:"ledger_id"`
	Schema     int      `json:"schema"`
	ProbedAt   job.Time `json:"probed_at,omitzero"`   // the last probe of a daemon that had lost contact
	RestoredAt job.Time `json:"restored_at,omitzero"` // when Restore gave it its ID
}

func (l *Ledger) identify(ctx context.Context) error {
	err := l.store.Insert(ctx, Meta, metaID, mustJSON(meta{ID: metaID, LedgerID: uuid.NewString(), Schema: job.Schema}))
	if err != nil && !errors.Is(err, ErrExists) {
		return err
	}
	m, err := readMeta(ctx, l.store)
	if err != nil {
		return err
	}
	l.id = m.LedgerID
	return nil
}

// readMeta returns the identity of the ledger in a store. ErrNotFound where there is
// none, ErrUnfit where this version does not speak its schema.
func readMeta(ctx context.Context, store Store) (meta, error) {
	doc, err := store.Get(ctx, Meta, metaID)
	if err != nil {
		return meta{}, err
	}
	m, err := decode[meta](doc)
	if err != nil {
		return meta{}, fmt.Errorf("read its identity: %w", err)
	}
	if m.Schema != job.Schema {
		return meta{}, fmt.Errorf("%w: it has schema version %d, this gpuqd speaks %d: run the version that made it, or upgrade", ErrUnfit, m.Schema, job.Schema)
	}
	return *m, nil
}

func mustJSON(v any) json.RawMessage {
	doc, err := json.Marshal(v)
	if err != nil {
		panic("documents are plain data: " + err.Error())
	}
	return doc
}

// ErrUnreadable: a document is not what this version writes. Waiting does not
// mend it.
var ErrUnreadable = errors.New("a document of the ledger cannot be read")

func decode[T any](doc json.RawMessage) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(doc, v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return v, nil
}

func decodeAll[T any](docs []json.RawMessage) ([]*T, error) {
	all := make([]*T, 0, len(docs))
	for _, doc := range docs {
		v, err := decode[T](doc)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}
