package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Observer is told of every operation on a store: its name, such as "update",
// its result as resultOf names it, and the time it took. It must not block.
type Observer func(operation, result string, took time.Duration)

// Observed is a store that tells of its operations and otherwise is the one given.
func Observed(s Store, tell Observer) Store { return observed{s, tell} }

type observed struct {
	Store
	tell Observer
}

var _ Store = observed{}

// resultOf names what became of an operation. An update that does not match, and
// an insert of what is there, are answers, not failures.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNoMatch):
		return "no_match"
	case errors.Is(err, ErrExists):
		return "exists"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "failed"
}

func (o observed) told(operation string, began time.Time, err error) {
	o.tell(operation, resultOf(err), time.Since(began))
}

// Insert implements Store.
func (o observed) Insert(ctx context.Context, c Collection, id string, doc json.RawMessage) error {
	began := time.Now()
	err := o.Store.Insert(ctx, c, id, doc)
	o.told("insert", began, err)
	return err
}

// Update implements Store.
func (o observed) Update(ctx context.Context, c Collection, id string, when []Cond, u Update) (json.RawMessage, error) {
	began := time.Now()
	doc, err := o.Store.Update(ctx, c, id, when, u)
	o.told("update", began, err)
	return doc, err
}

// Get implements Store.
func (o observed) Get(ctx context.Context, c Collection, id string) (json.RawMessage, error) {
	began := time.Now()
	doc, err := o.Store.Get(ctx, c, id)
	o.told("get", began, err)
	return doc, err
}

// Find implements Store.
func (o observed) Find(ctx context.Context, c Collection, q Query) ([]json.RawMessage, error) {
	began := time.Now()
	docs, err := o.Store.Find(ctx, c, q)
	o.told("find", began, err)
	return docs, err
}

// Delete implements Store.
func (o observed) Delete(ctx context.Context, c Collection, id string) error {
	began := time.Now()
	err := o.Store.Delete(ctx, c, id)
	o.told("delete", began, err)
	return err
}
