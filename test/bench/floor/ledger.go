package floor

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger/sqlite"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// The statements are what daemon/ledger/sqlite makes of the ledger's three
// transitions, less its guards: the same fields, conditions and indexes.
const (
	insertSQL = `INSERT INTO "jobs" (id, doc) VALUES (?1, json(?2)) RETURNING ''`
	claimSQL  = `UPDATE "jobs" SET doc = json_set(doc, '$."state"', 'claimed', '$."reason"', ?2, '$."owner"', json(?3),
		'$."attempt"', json_extract(doc, '$."attempt"') + 1, '$."fence"', json_extract(doc, '$."fence"') + 1,
		'$."history"[#]', json(?4))
		WHERE id = ?1 AND json_extract(doc, '$."state"') IN ('queued') AND json_extract(doc, '$."kill"') IS NULL RETURNING doc`
	startSQL = `UPDATE "jobs" SET doc = json_set(doc, '$."state"', 'running', '$."reason"', ?2, '$."owner"."running"', ?3,
		'$."history"[#]', json(?4))
		WHERE id = ?1 AND json_extract(doc, '$."state"') IN ('claimed') AND json_extract(doc, '$."owner"."claim_id"') = ?5
		AND json_extract(doc, '$."fence"') = ?6 RETURNING doc`
	commitSQL = `UPDATE "jobs" SET doc = json_set(doc, '$."state"', 'succeeded', '$."reason"', '', '$."owner"', NULL,
		'$."commit_id"', ?2, '$."not_before"', '', '$."result"', json(?3),
		'$."failures"', json_extract(doc, '$."failures"') + 0, '$."requeues"', json_extract(doc, '$."requeues"') + 0,
		'$."lost"', json_extract(doc, '$."lost"') + 0, '$."history"[#]', json(?4))
		WHERE id = ?1 AND json_extract(doc, '$."state"') IN ('claimed', 'running')
		AND json_extract(doc, '$."owner"."claim_id"') = ?5 AND json_extract(doc, '$."fence"') = ?6 RETURNING doc`
	getSQL = `SELECT doc FROM "jobs" WHERE id = ?1`
)

// book is the ledger's file: opened as daemon/ledger/sqlite opens it, one write
// after the other on one connection.
type book struct {
	writer, reader                *sql.DB
	turn                          chan struct{} // capacity 1
	insert, claim, start, commits *sql.Stmt
}

// openBook opens the file at path, whose tables and indexes gpuqd's own store makes.
func openBook(ctx context.Context, path string) (*book, error) {
	store, err := sqlite.Open(ctx, sqlite.Options{Path: path})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(store.Prepare(ctx), store.Close()); err != nil {
		return nil, err
	}
	b := &book{turn: make(chan struct{}, 1)}
	if b.writer, err = openDB(path, "synchronous(FULL)", "busy_timeout(0)"); err != nil {
		return nil, err
	}
	b.writer.SetMaxOpenConns(1)
	if b.reader, err = openDB(path, "query_only(1)", "busy_timeout(0)"); err != nil {
		return nil, errors.Join(err, b.close())
	}
	for _, s := range []struct {
		to   **sql.Stmt
		text string
	}{{&b.insert, insertSQL}, {&b.claim, claimSQL}, {&b.start, startSQL}, {&b.commits, commitSQL}} {
		if *s.to, err = b.writer.PrepareContext(ctx, s.text); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

func openDB(path string, pragmas ...string) (*sql.DB, error) {
	name := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	return sql.Open("sqlite", name.String())
}

func (b *book) close() error {
	if b.reader == nil {
		return b.writer.Close()
	}
	return errors.Join(b.reader.Close(), b.writer.Close())
}

// write runs one statement as a transaction of its own, which must change one row,
// and returns what it returns.
func (b *book) write(ctx context.Context, s *sql.Stmt, args ...any) (string, error) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var doc string
	n := 0
	for ; rows.Next(); n++ {
		if err := rows.Scan(&doc); err != nil {
			return "", err
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return "", err
	}
	if n != 1 {
		return "", fmt.Errorf("a compare-and-set of the floor changed %d documents, want 1", n)
	}
	return doc, nil
}

func (b *book) read(ctx context.Context, id job.ID) error {
	var doc string
	return b.reader.QueryRowContext(ctx, getSQL, string(id)).Scan(&doc)
}

// submit inserts a job's document, as an intake does.
func (b *book) submit(ctx context.Context, j *job.Job) error {
	_, err := b.write(ctx, b.insert, string(j.ID), text(j))
	return err
}

// claimed makes the job this host's.
func (b *book) claimed(ctx context.Context, id job.ID, owner job.Owner) error {
	reason := "claimed by " + owner.Host
	_, err := b.write(ctx, b.claim, string(id), reason, text(owner),
		text(job.Change{ID: owner.ClaimID, State: job.Claimed, At: owner.ClaimedAt, Host: owner.Host, Reason: reason}))
	return err
}

// running says that the command runs.
func (b *book) running(ctx context.Context, id job.ID, owner job.Owner) error {
	now, reason := job.At(time.Now()), "running on "+owner.Host
	_, err := b.write(ctx, b.start, string(id), reason, now.String(),
		text(job.Change{ID: "start-" + owner.ClaimID, State: job.Running, At: now, Host: owner.Host, Reason: reason}), owner.ClaimID, 1)
	return err
}

// commit writes the result.
func (b *book) commit(ctx context.Context, id job.ID, owner job.Owner, result job.Result) error {
	commitID := "commit-" + owner.ClaimID
	_, err := b.write(ctx, b.commits, string(id), commitID, text(result),
		text(job.Change{ID: commitID, State: job.Succeeded, At: result.EndedAt, Host: owner.Host}), owner.ClaimID, 1)
	return err
}

// text is a document's; all of them are plain data.
func text(v any) string {
	doc, err := json.Marshal(v)
	if err != nil {
		panic("documents are plain data: " + err.Error())
	}
	return string(doc)
}
