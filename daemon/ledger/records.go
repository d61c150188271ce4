package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/job"

	"github.com/google/uuid"
)

// DeadLetter is a message that was set aside for good, with its reason.
type DeadLetter struct {
	ID        string   `json:"id"` // content hash: the same letter is kept once
	At        job.Time `json:"at"`
	Reason    string   `json:"reason"`
	Queue     string   `json:"queue"` // where it came from
	User      string   `json:"user"`  // broker account that published it, as validated
	MessageID string   `json:"message_id"`
	Body      []byte   `json:"body"` // at most DeadBodyBytesMax of it
	BodyBytes int      `json:"body_bytes"`
	Host      string   `json:"host"` // the daemon that recorded it
}

// DeadBodyBytesMax bounds what is kept of a dead letter's body.
const DeadBodyBytesMax = 1 << 20

// Seal fills in the identity and cuts the body to its bound.
func (d *DeadLetter) Seal() {
	sum := sha256.New()
	for _, part := range []string{d.Queue, d.User, d.MessageID, d.Reason} {
		fmt.Fprintf(sum, "%d:%s:", len(part), part)
	}
	sum.Write(d.Body)
	d.ID = hex.EncodeToString(sum.Sum(nil))
	d.BodyBytes = max(d.BodyBytes, len(d.Body))
	d.Body = d.Body[:min(len(d.Body), DeadBodyBytesMax)]
}

// RecordDeadLetter keeps a sealed letter; one that is kept already is no error.
func (l *Ledger) RecordDeadLetter(ctx context.Context, d DeadLetter) error {
	err := l.store.Insert(ctx, DeadLetters, d.ID, mustJSON(d))
	if err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("record a dead letter: %w", err)
	}
	return nil
}

// DeadLetterList returns the newest dead letters first.
func (l *Ledger) DeadLetterList(ctx context.Context, limit int) ([]*DeadLetter, error) {
	docs, err := l.store.Find(ctx, DeadLetters, Query{Sort: "at", Desc: true, Limit: limit})
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return decodeAll[DeadLetter](docs)
}

// DeadLetter returns the letter whose ID begins with prefix, in lower-case hex.
// ErrNotFound where none does; ErrConflict where several do.
func (l *Ledger) DeadLetter(ctx context.Context, prefix string) (*DeadLetter, error) {
	if prefix == "" || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%q is not the beginning of a dead letter's ID: %w", prefix, ErrNotFound)
	}
	if len(prefix) >= hex.EncodedLen(sha256.Size) {
		doc, err := l.store.Get(ctx, DeadLetters, prefix)
		if err != nil {
			return nil, fmt.Errorf("read dead letter %s: %w", prefix, err)
		}
		return decode[DeadLetter](doc)
	}
	// All IDs have one length, so those that begin with it come after it, and
	// before what follows the last digit in its place.
	docs, err := l.store.Find(ctx, DeadLetters, Query{
		When: []Cond{{"id", Gt, prefix}, {"id", Lt, prefix + "g"}}, Sort: "id", Limit: 2,
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("find dead letter %s: %w", prefix, err)
	case len(docs) == 0:
		return nil, fmt.Errorf("no dead letter begins with %s: %w", prefix, ErrNotFound)
	case len(docs) > 1:
		return nil, fmt.Errorf("several dead letters begin with %s, give more of it: %w", prefix, ErrConflict)
	}
	return decode[DeadLetter](docs[0])
}

// ForgetDeadLetter removes a letter; one that is gone is no error.
func (l *Ledger) ForgetDeadLetter(ctx context.Context, id string) error {
	if err := l.store.Delete(ctx, DeadLetters, id); err != nil {
		return fmt.Errorf("forget dead letter %s: %w", id, err)
	}
	return nil
}

// forgetBatch bounds what ForgetDeadLettersBefore reads at once.
const forgetBatch = 200

// ForgetDeadLettersBefore removes all letters that are older, the oldest first,
// and counts them, also where it fails on the way. Those that another call
// removes meanwhile may be counted by both.
func (l *Ledger) ForgetDeadLettersBefore(ctx context.Context, before job.Time) (int, error) {
	for n := 0; ; {
		docs, err := l.store.Find(ctx, DeadLetters, Query{
			When: []Cond{{"at", Lt, before.String()}}, Sort: "at", Limit: forgetBatch, Without: []string{"body"},
		})
		if err != nil {
			return n, fmt.Errorf("list old dead letters: %w", err)
		}
		letters, err := decodeAll[DeadLetter](docs)
		if err != nil {
			return n, err
		}
		for _, d := range letters {
			if err := l.ForgetDeadLetter(ctx, d.ID); err != nil {
				return n, err
			}
			n++
		}
		if len(letters) < forgetBatch {
			return n, nil
		}
	}
}

// Event is an action of an operator, or one of the daemon that an operator will
// ask about.
type Event struct {
	ID     string   `json:"id"`
	At     job.Time `json:"at"`
	Host   string   `json:"host"`
	Who    string   `json:"who"`
	What   string   `json:"what"` // "kill", "expire_session", …
	Target string   `json:"target"`
	Why    string   `json:"why"`
}

// RecordEvent keeps an event.
func (l *Ledger) RecordEvent(ctx context.Context, e Event) error {
	e.ID = uuid.NewString()
	if err := l.store.Insert(ctx, Events, e.ID, mustJSON(e)); err != nil {
		return fmt.Errorf("record the event %s of %s: %w", e.What, e.Target, err)
	}
	return nil
}

// EventFilter selects events.
type EventFilter struct {
	Since  job.Time // at this time or later; zero: all
	Target string   // "": all
	Limit  int
}

// EventList returns events, the newest first.
func (l *Ledger) EventList(ctx context.Context, f EventFilter) ([]*Event, error) {
	q := Query{Sort: "at", Desc: true, Limit: f.Limit}
	if f.Target != "" {
		q.When = append(q.When, Cond{"target", Eq, f.Target})
	}
	if !f.Since.IsZero() {
		// Stored times have microseconds, so just before means at or after.
		q.When = append(q.When, Cond{"at", Gt, job.At(f.Since.Add(-time.Microsecond)).String()})
	}
	docs, err := l.store.Find(ctx, Events, q)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return decodeAll[Event](docs)
}

// ErrShapesFull: no further shape may come into use.
var ErrShapesFull = errors.New("too many shapes are in use")

type shapeDoc struct {
	Queue string   `json:"id"`
	At    job.Time `json:"at"`
}

// RegisterShape notes that a queue is in use, so that every daemon looks at it.
// It returns ErrShapesFull when that would be more than most. Racing calls can
// pass the bound by as many as race; it guards the broker, not a promise.
func (l *Ledger) RegisterShape(ctx context.Context, queue string, most int, now job.Time) error {
	known, err := l.ShapeList(ctx)
	if err != nil {
		return err
	}
	for _, q := range known {
		if q == queue {
			return nil
		}
	}
	if len(known) >= most {
		return fmt.Errorf("%w: %d of %d; use one of their pools, priorities and GPU counts, or raise take.shapes_max", ErrShapesFull, len(known), most)
	}
	err = l.store.Insert(ctx, Shapes, queue, mustJSON(shapeDoc{Queue: queue, At: now}))
	if err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("register shape %s: %w", queue, err)
	}
	return nil
}

// ShapeList returns the queues in use, sorted.
func (l *Ledger) ShapeList(ctx context.Context) ([]string, error) {
	docs, err := l.store.Find(ctx, Shapes, Query{Sort: "id"})
	if err != nil {
		return nil, fmt.Errorf("list shapes: %w", err)
	}
	shapes, err := decodeAll[shapeDoc](docs)
	if err != nil {
		return nil, err
	}
	queues := make([]string, len(shapes))
	for i, s := range shapes {
		queues[i] = s.Queue
	}
	return queues, nil
}
