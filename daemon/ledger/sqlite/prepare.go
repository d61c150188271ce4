package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"gpuqd/daemon/ledger"

	codes "modernc.org/sqlite/lib"
)

// applicationID marks the file as a ledger of gpuqd ("gpuq" in ASCII).
const applicationID = 0x67707571

// creating is held while a file is made. Closing any descriptor of a file drops
// all POSIX locks of the process on it, also those of SQLite's connections: so
// the file is opened here only while it cannot have any.
var creating sync.Mutex

// createFile makes an empty database file for its owner alone, and the missing
// part of its directory. SQLite gives its other files the same mode.
func createFile(path string) error {
	creating.Lock()
	defer creating.Unlock()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return checkFile(path)
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// checkFile takes others' access away from a file that was there before: the
// ledger holds what people run.
func checkFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file: give the ledger a path of its own", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return os.Chmod(path, 0o600)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openDB returns a pool whose connections start with the given pragmas.
func openDB(path string, pragmas ...string) (*pool, error) {
	name := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	return newPool(db), nil
}

// Prepare implements ledger.Store. It refuses a network file system before
// SQLite first touches the file.
func (s *Store) Prepare(ctx context.Context) error {
	magic, err := s.fsType(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("find the file system of %s: %w", s.path, err)
	}
	if name := networkFS(magic); name != "" {
		return fmt.Errorf("%w: %s is on %s, where SQLite's locks and shared memory do not hold between hosts: "+
			"put the file on a local disk, or use the mongodb ledger", ledger.ErrUnfit, s.path, name)
	}
	if err := s.prepareFile(ctx); err != nil {
		return err
	}
	for _, c := range ledger.Collections {
		if err := s.prepareTable(ctx, c); err != nil {
			return fmt.Errorf("create the table %s: %w", c, err)
		}
	}
	return nil
}

// prepareFile turns the write-ahead log on and marks the file as ours.
func (s *Store) prepareFile(ctx context.Context) error {
	mark, err := s.write(ctx, "PRAGMA application_id")
	if code(err)&0xff == codes.SQLITE_NOTADB {
		return fmt.Errorf("%w: %s is no SQLite file: give the ledger a path of its own", ledger.ErrUnfit, s.path)
	}
	if err != nil {
		return wrap(err, "read the mark of %s", s.path)
	}
	switch string(first(mark)) {
	case fmt.Sprint(applicationID):
	case "0":
		tables, err := s.write(ctx, "SELECT name FROM sqlite_schema LIMIT 1")
		if err != nil {
			return wrap(err, "read the schema of %s", s.path)
		}
		if len(tables) > 0 && !knownTable(string(tables[0])) {
			return s.foreign()
		}
		if _, err := s.write(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
			return wrap(err, "mark %s", s.path)
		}
	default:
		return s.foreign()
	}
	mode, err := s.write(ctx, "PRAGMA journal_mode = WAL")
	if err != nil {
		return wrap(err, "turn on the write-ahead log of %s", s.path)
	}
	if got := string(first(mode)); got != "wal" {
		return fmt.Errorf("%w: %s cannot have a write-ahead log (SQLite answers %q): put it on a local disk", ledger.ErrUnfit, s.path, got)
	}
	return nil
}

func (s *Store) foreign() error {
	return fmt.Errorf("%w: %s is another program's database: give the ledger a path of its own", ledger.ErrUnfit, s.path)
}

// prepareTable creates a collection with its indexes. The ID ends each index, so
// that it also serves the order of Find.
func (s *Store) prepareTable(ctx context.Context, c ledger.Collection) error {
	table, err := tableOf(c)
	if err != nil {
		return err
	}
	if _, err := s.write(ctx, "CREATE TABLE IF NOT EXISTS "+table+" (id TEXT PRIMARY KEY NOT NULL, doc TEXT NOT NULL) STRICT"); err != nil {
		return err
	}
	for _, fields := range ledger.Indexes[c] {
		name := string(c) + "_by"
		columns := ""
		for _, field := range fields {
			column, _, err := columnOf(field)
			if err != nil {
				return err
			}
			name += "_" + strings.ReplaceAll(field, ".", "_")
			columns += column + ", "
		}
		if _, err := s.write(ctx, `CREATE INDEX IF NOT EXISTS "`+name+`" ON `+table+" ("+columns+"id)"); err != nil {
			return fmt.Errorf("index %s: %w", name, err)
		}
	}
	return nil
}

// knownTable reports whether a name is one of ours: a Prepare of another process
// may have come between.
func knownTable(name string) bool {
	for _, c := range ledger.Collections {
		if name == string(c) || strings.HasPrefix(name, string(c)+"_by_") || strings.HasPrefix(name, "sqlite_autoindex_"+string(c)+"_") {
			return true
		}
	}
	return false
}

func first(rows []json.RawMessage) json.RawMessage {
	if len(rows) == 0 {
		return nil
	}
	return rows[0]
}
