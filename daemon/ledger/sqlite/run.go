package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

// Errors that an operator acts on. Both leave the ledger as it was.
var (
	// ErrDiskFull: the file system, or the quota on it, has no room left.
	ErrDiskFull = errors.New("the disk that holds the ledger is full: make room, nothing else is needed")
	// ErrLocked: another process held the file's lock for too long. The next
	// call works as soon as the lock is gone.
	ErrLocked = errors.New("another process holds the ledger's lock")
)

// errType: a statement met a field of another type than the update needs.
var errType = errors.New("a field has the wrong type: want an object as parent, a number to add to, an array to push to")

// Waits for a lock held by another process: short, growing and random, so that
// no process is starved by another in step with it.
const (
	waitFirst = 200 * time.Microsecond
	waitMost  = 4 * time.Millisecond
)

// write runs one writing statement and returns its rows. A statement that has
// begun is never interrupted: it takes one short step on one document, and an
// interrupted one would leave open whether it was applied. The context counts
// while waiting for the turn and for locks, where nothing has happened yet.
func (s *Store) write(ctx context.Context, query string, args ...any) ([]json.RawMessage, error) {
	deadline := time.Now().Add(s.busyTimeout)
	if err := s.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	return waitOut(ctx, deadline, func() ([]json.RawMessage, error) {
		return collect(context.WithoutCancel(ctx), s.writer, query, args...)
	})
}

func (s *Store) takeTurn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	late := time.NewTimer(s.busyTimeout)
	defer late.Stop()
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
		return fmt.Errorf("%w: writes before this one have waited %s for it", ErrLocked, s.busyTimeout)
	}
}

// read runs one reading statement and returns its rows. It ends with ctx.
func (s *Store) read(ctx context.Context, query string, args ...any) ([]json.RawMessage, error) {
	return waitOut(ctx, time.Now().Add(s.busyTimeout), func() ([]json.RawMessage, error) {
		return collect(ctx, s.reader, query, args...)
	})
}

// waitOut repeats try while it fails for a lock. A locked statement has not
// begun, so that repeating it is safe.
func waitOut(ctx context.Context, deadline time.Time, try func() ([]json.RawMessage, error)) ([]json.RawMessage, error) {
	wait := waitFirst
	for {
		docs, err := try()
		if err == nil || !isTransient(ctx, err) {
			return docs, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w for longer than the busy timeout: %w", ErrLocked, err)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: %w", ErrLocked, context.Cause(ctx))
		case <-timer.C:
		}
		wait = min(2*wait, waitMost)
	}
}

// collect runs a statement to its end. A writing statement commits when its last
// row has been fetched, so the errors of fetching and closing count.
func collect(ctx context.Context, db *pool, query string, args ...any) (docs []json.RawMessage, err error) {
	rows, err := db.query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var doc string
		if err := rows.Scan(&doc); err != nil {
			return nil, err
		}
		docs = append(docs, json.RawMessage(doc))
	}
	return docs, rows.Err()
}

// isTransient reports whether the statement did not run for a reason that
// passes: a lock, or an interrupt meant for the statement before it (the driver
// may deliver a cancelled reader's interrupt late, to the next on its connection).
func isTransient(ctx context.Context, err error) bool {
	switch code(err) & 0xff {
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED, codes.SQLITE_PROTOCOL:
		return true
	case codes.SQLITE_INTERRUPT:
		return ctx.Err() == nil
	}
	return false
}

func isDuplicate(err error) bool {
	c := code(err)
	return c == codes.SQLITE_CONSTRAINT_PRIMARYKEY || c == codes.SQLITE_CONSTRAINT_UNIQUE
}

// isMalformed recognises the error that the guards of changeSQL raise on
// purpose. Stored documents and arguments are well-formed JSON at all times.
func isMalformed(err error) bool { return code(err) == codes.SQLITE_ERROR }

// code returns SQLite's extended result code, or 0.
func code(err error) int {
	var e *driver.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// wrap adds the operation to err, and names a full disk; nil stays nil.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	if code(err)&0xff == codes.SQLITE_FULL {
		err = fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
