// Package sqlite keeps the ledger in one SQLite file, for daemons that share one
// machine. Each collection is a table of (id, doc), doc being JSON text, and
// each compare-and-set is one UPDATE … RETURNING.
//
// Several processes may use the file at once. Writes are one statement each, so
// SQLite's own lock orders them; within a process they also pass one at a time
// through a single connection, in the order of their arrival.
package sqlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/ledger"

	driver "modernc.org/sqlite"
)

// Options say where the ledger is.
type Options struct {
	// Path of the file. It and its directory are made if absent, for the owner
	// alone; the directory also holds SQLite's -wal and -shm files.
	Path string
	// BusyTimeout bounds the wait for other processes' locks; 0 is 5 s. The
	// caller's context bounds it, too.
	BusyTimeout time.Duration
}

const busyTimeoutDefault = 5 * time.Second

// readersMax bounds the concurrent reads of one process. Readers never wait for
// writers, so a few are enough to keep a disk busy.
const readersMax = 4

// Store is a ledger.Store in a SQLite file.
type Store struct {
	path        string
	busyTimeout time.Duration
	fsType      func(path string) (int64, error)

	writer *pool         // one connection
	turn   chan struct{} // capacity 1: holds the token of the write under way
	reader *pool         // up to readersMax connections that cannot write
}

var _ ledger.Store = (*Store)(nil)

// Open makes the file if it is absent and returns a store on it; Prepare is
// what first reads it. Close it when done.
func Open(_ context.Context, o Options) (*Store, error) {
	if o.Path == "" {
		return nil, errors.New("the sqlite ledger has no path: set where its file lives")
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("find the sqlite ledger: %w", err)
	}
	if strings.ContainsRune(path, 0) {
		return nil, errors.New("the path of the sqlite ledger has a zero byte")
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = busyTimeoutDefault
	}
	if err := createFile(path); err != nil {
		return nil, fmt.Errorf("create the sqlite ledger: %w", err)
	}
	s := &Store{path: path, busyTimeout: o.BusyTimeout, fsType: fsType, turn: make(chan struct{}, 1)}
	// What Debian's SQLite does, too: a commit then writes all that is needed to
	// read it back, but costs no entry in the file system's journal for the time
	// of the write. It holds for the process.
	//
	// Source: modernc.org/sqlite, Fdatasync.
	if _, err := driver.Fdatasync(true); err != nil {
		return nil, fmt.Errorf("sync with fdatasync: %w", err)
	}
	// The busy timeouts are 0: this package waits itself, since SQLite's own
	// wait ignores contexts and sleeps up to 100 ms at a time.
	if s.writer, err = openDB(path, "synchronous(FULL)", "busy_timeout(0)"); err != nil {
		return nil, err
	}
	if s.reader, err = openDB(path, "query_only(1)", "busy_timeout(0)"); err != nil {
		s.writer.Close()
		return nil, err
	}
	s.writer.SetMaxOpenConns(1)
	s.reader.SetMaxOpenConns(readersMax)
	s.reader.SetMaxIdleConns(readersMax)
	return s, nil
}

// Kind implements ledger.Store.
func (s *Store) Kind() string { return "sqlite" }

// Close implements ledger.Store. The readers go first: the last connection to
// close folds the write-ahead log into the file, which a reader may not do.
func (s *Store) Close() error { return errors.Join(s.reader.Close(), s.writer.Close()) }

// Insert implements ledger.Store.
func (s *Store) Insert(ctx context.Context, c ledger.Collection, id string, doc json.RawMessage) error {
	table, err := tableOf(c)
	if err != nil {
		return err
	}
	var head struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(doc, &head); err != nil || head.ID != id {
		return fmt.Errorf("insert into %s: not a JSON document with the id %q", c, id)
	}
	_, err = s.write(ctx, "INSERT INTO "+table+" (id, doc) VALUES (?, json(?)) RETURNING ''", id, string(doc))
	if isDuplicate(err) {
		return ledger.ErrExists
	}
	return wrap(err, "insert into %s", c)
}

// Update implements ledger.Store.
func (s *Store) Update(ctx context.Context, c ledger.Collection, id string, when []ledger.Cond, u ledger.Update) (json.RawMessage, error) {
	table, err := tableOf(c)
	if err != nil {
		return nil, err
	}
	var args arguments
	change, err := changeSQL(u, &args)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", c, err)
	}
	where, err := whereSQL(when, &args)
	if err != nil {
		return nil, fmt.Errorf("update %s: %w", c, err)
	}
	query := "UPDATE " + table + " SET doc = " + change + " WHERE id = " + args.add(id) + " AND " + where + " RETURNING doc"
	docs, err := s.write(ctx, query, args.values...)
	switch {
	case isMalformed(err):
		return nil, fmt.Errorf("update %s: %w", c, errType)
	case err != nil:
		return nil, wrap(err, "update %s", c)
	case len(docs) == 0:
		return nil, ledger.ErrNoMatch
	}
	return docs[0], nil
}

// Get implements ledger.Store. A read in WAL mode sees every commit of every
// process that ended before the read began.
func (s *Store) Get(ctx context.Context, c ledger.Collection, id string) (json.RawMessage, error) {
	table, err := tableOf(c)
	if err != nil {
		return nil, err
	}
	docs, err := s.read(ctx, "SELECT doc FROM "+table+" WHERE id = ?", id)
	if err != nil {
		return nil, wrap(err, "get from %s", c)
	}
	if len(docs) == 0 {
		return nil, ledger.ErrNotFound
	}
	return docs[0], nil
}

// Find implements ledger.Store. Documents that sort alike come in the order of
// their IDs.
func (s *Store) Find(ctx context.Context, c ledger.Collection, q ledger.Query) ([]json.RawMessage, error) {
	table, err := tableOf(c)
	if err != nil {
		return nil, err
	}
	var args arguments
	query, err := findSQL(table, q, &args)
	if err != nil {
		return nil, fmt.Errorf("find in %s: %w", c, err)
	}
	docs, err := s.read(ctx, query, args.values...)
	return docs, wrap(err, "find in %s", c)
}

// Delete implements ledger.Store.
func (s *Store) Delete(ctx context.Context, c ledger.Collection, id string) error {
	table, err := tableOf(c)
	if err != nil {
		return err
	}
	_, err = s.write(ctx, "DELETE FROM "+table+" WHERE id = ? RETURNING ''", id)
	return wrap(err, "delete from %s", c)
}
