package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpuqd/daemon/ledger"

	"golang.org/x/sys/unix"
)

func openInternal(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestPrepare(t *testing.T) {
	t.Run("RefusesNetworkFileSystemsAndLeavesNothing", func(t *testing.T) {
		for _, magic := range []int64{unix.NFS_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, 0x0bd00bd0} {
			s := openInternal(t, filepath.Join(t.TempDir(), "ledger.db"))
			s.fsType = func(string) (int64, error) { return magic, nil }
			err := s.Prepare(t.Context())
			if !errors.Is(err, ledger.ErrUnfit) || !strings.Contains(err.Error(), "local disk") {
				t.Errorf("%#x: %v", magic, err)
			}
			if info, err := os.Stat(s.path); err != nil || info.Size() != 0 {
				t.Errorf("%#x: SQLite has written to the file", magic)
			}
		}
	})
	t.Run("AsksForTheFileSystemOfItsDirectory", func(t *testing.T) {
		const procMagic = 0x9fa0
		if magic, err := fsType("/proc"); err != nil || magic != procMagic {
			t.Errorf("got %#x (%v) for /proc, want %#x", magic, err, procMagic)
		}
		s := openInternal(t, filepath.Join(t.TempDir(), "ledger.db"))
		asked := ""
		s.fsType = func(path string) (int64, error) { asked = path; return fsType(path) }
		if err := s.Prepare(t.Context()); err != nil || asked != filepath.Dir(s.path) {
			t.Errorf("asked for %q: %v", asked, err)
		}
	})
	t.Run("RefusesAFileOfAnotherKind", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := openInternal(t, path).Prepare(t.Context()); !errors.Is(err, ledger.ErrUnfit) {
			t.Errorf("got %v, want ErrUnfit", err)
		}
	})
	t.Run("RefusesAnotherProgramsDatabase", func(t *testing.T) {
		for _, statement := range []string{"CREATE TABLE theirs (a)", "PRAGMA application_id = 42"} {
			path := filepath.Join(t.TempDir(), "ledger.db")
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = db.Exec(statement)
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			if err := openInternal(t, path).Prepare(t.Context()); !errors.Is(err, ledger.ErrUnfit) {
				t.Errorf("%s: got %v, want ErrUnfit", statement, err)
			}
		}
	})
	t.Run("FilesAreForTheirOwnerAlone", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state", "ledger")
		s := openInternal(t, filepath.Join(dir, "ledger.db"))
		if err := s.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]os.FileMode{dir: 0o700, s.path: 0o600, s.path + "-wal": 0o600, s.path + "-shm": 0o600} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("%s has mode %o, want %o", path, got, want)
			}
		}
	})
	t.Run("ALooseFileIsTightened", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		openInternal(t, path)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	})
	t.Run("PathsWithURLCharacters", func(t *testing.T) {
		s := openInternal(t, filepath.Join(t.TempDir(), "a?mode=memory&b#c%20d é", "ledger.db"))
		if err := s.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(s.path); err != nil || info.Size() == 0 {
			t.Errorf("SQLite wrote elsewhere: %v", err)
		}
	})
	t.Run("ConnectionsAreDurableAndReadersCannotWrite", func(t *testing.T) {
		s := openInternal(t, filepath.Join(t.TempDir(), "ledger.db"))
		if err := s.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal"} {
			got, err := s.write(t.Context(), "PRAGMA "+pragma)
			if err != nil || string(first(got)) != want {
				t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
			}
		}
		if _, err := s.read(t.Context(), "DELETE FROM scratch RETURNING ''"); err == nil {
			t.Error("a reader has written")
		}
	})
	t.Run("RacingPreparesAgree", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ledger.db")
		errs := make(chan error)
		for range 8 {
			s := openInternal(t, path)
			go func() { errs <- s.Prepare(context.Background()) }()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// A full disk is told apart, changes nothing, and needs no restart. The page
// limit makes SQLite meet it as it meets the file system's.
func TestFullDisk(t *testing.T) {
	s := openInternal(t, filepath.Join(t.TempDir(), "ledger.db"))
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write(t.Context(), "PRAGMA max_page_count = 60"); err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat("x", 8<<10)
	stored := 0
	var err error
	for ; err == nil && stored < 100; stored++ {
		id := fmt.Sprint(stored)
		err = s.Insert(t.Context(), ledger.Scratch, id, []byte(fmt.Sprintf(`{"id":%q,"n":0,"filler":%q}`, id, filler)))
	}
	stored-- // the last one failed
	if !errors.Is(err, ErrDiskFull) {
		t.Fatalf("after %d documents: %v, want ErrDiskFull", stored, err)
	}
	_, err = s.Update(t.Context(), ledger.Scratch, "0", nil, ledger.Update{Set: map[string]any{"more": filler + filler}})
	if !errors.Is(err, ErrDiskFull) {
		t.Fatalf("update: %v, want ErrDiskFull", err)
	}
	docs, err := s.Find(t.Context(), ledger.Scratch, ledger.Query{Without: []string{"filler"}})
	if err != nil || len(docs) != stored {
		t.Fatalf("%d documents are left (%v), want %d", len(docs), err, stored)
	}
	if _, err := s.write(t.Context(), "PRAGMA max_page_count = 100000"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), ledger.Scratch, "0", nil, ledger.Update{Set: map[string]any{"more": filler + filler}}); err != nil {
		t.Fatalf("after room was made: %v", err)
	}
}

// The searches that daemons make at every tick must not read the whole table.
func TestSearchesUseIndexes(t *testing.T) {
	s := openInternal(t, filepath.Join(t.TempDir(), "ledger.db"))
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	states := ledger.Cond{Field: "state", Op: ledger.In, Value: []string{"claimed", "running"}}
	for name, c := range map[string]struct {
		collection ledger.Collection
		query      ledger.Query
	}{
		"held":    {ledger.Jobs, ledger.Query{When: []ledger.Cond{states}}},
		"held by": {ledger.Jobs, ledger.Query{When: []ledger.Cond{{Field: "owner.session", Op: ledger.Eq, Value: "s"}, states}}},
		"overdue": {ledger.Jobs, ledger.Query{When: []ledger.Cond{states, {Field: "published_at", Op: ledger.Lt, Value: "t"}}, Sort: "published_at", Limit: 9}},
		"list":    {ledger.Jobs, ledger.Query{Sort: "submitted_at", Desc: true, Limit: 9, Without: []string{"history"}}},
		"mine":    {ledger.Jobs, ledger.Query{When: []ledger.Cond{{Field: "submitter", Op: ledger.Eq, Value: "a"}}, Sort: "submitted_at", Desc: true, Limit: 9}},
		"ids":     {ledger.Jobs, ledger.Query{When: []ledger.Cond{{Field: "id", Op: ledger.In, Value: []string{"a", "b"}}}}},
		"dead":    {ledger.DeadLetters, ledger.Query{Sort: "at", Desc: true, Limit: 9}},
		"ahead": {ledger.Jobs, ledger.Query{When: []ledger.Cond{
			{Field: "queue", Op: ledger.Eq, Value: "q"}, {Field: "state", Op: ledger.Eq, Value: "queued"}, {Field: "published_at", Op: ledger.Lt, Value: "t"},
		}, Limit: 9, Without: []string{"spec"}}},
		"letter": {ledger.DeadLetters, ledger.Query{When: []ledger.Cond{{Field: "id", Op: ledger.Gt, Value: "a"}, {Field: "id", Op: ledger.Lt, Value: "ag"}}, Sort: "id", Limit: 2}},
		"old":    {ledger.DeadLetters, ledger.Query{When: []ledger.Cond{{Field: "at", Op: ledger.Lt, Value: "t"}}, Sort: "at", Limit: 9}},
	} {
		table, err := tableOf(c.collection)
		if err != nil {
			t.Fatal(err)
		}
		var args arguments
		query, err := findSQL(table, c.query, &args)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := s.reader.Query("EXPLAIN QUERY PLAN "+query, args.values...)
		if err != nil {
			t.Fatal(err)
		}
		plan := ""
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan += detail + "\n"
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, "USING INDEX") {
			t.Errorf("%s: the plan of\n%s\nis\n%s", name, query, plan)
		}
	}
}
