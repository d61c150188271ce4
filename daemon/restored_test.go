package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

// restoredSettings writes a gpuqd.toml with a SQLite ledger.
func restoredSettings(t *testing.T) (path, state, file string) {
	t.Helper()
	dir := t.TempDir()
	path, state, file = filepath.Join(dir, "gpuqd.toml"), filepath.Join(dir, "state"), filepath.Join(dir, "ledger.db")
	text := fmt.Sprintf("[host]\nname = \"gpu1\"\nstate_dir = %q\n[ledger]\nkind = \"sqlite\"\npath = %q\n", state, file)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	return path, state, file
}

func TestLedgerRestoredRefuses(t *testing.T) {
	t.Run("WhereTheCopyIsNotThere", func(t *testing.T) {
		path, _, file := restoredSettings(t)
		err := ledgerRestored(t.Context(), path, io.Discard)
		if err == nil || !strings.Contains(err.Error(), "put the copy in its place first") || exitCode(err) != 1 {
			t.Errorf("got %v, want what to do", err)
		}
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it has made a file: %v", err)
		}
	})
	t.Run("WhereTheFileIsNoLedger", func(t *testing.T) {
		path, _, file := restoredSettings(t)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ledgerRestored(t.Context(), path, io.Discard); !errors.Is(err, ledger.ErrUnfit) {
			t.Errorf("got %v, want ErrUnfit", err)
		}
	})
	t.Run("WhereGpuqdRunsOnThisHost", func(t *testing.T) {
		path, state, _ := restoredSettings(t)
		journal, err := runner.OpenJournal(state)
		if err != nil {
			t.Fatal(err)
		}
		defer journal.Close()
		if err := ledgerRestored(t.Context(), path, io.Discard); err == nil || !strings.Contains(err.Error(), "gpuqd runs on this host: stop it on every host") {
			t.Errorf("got %v, want what to do", err)
		}
	})
	t.Run("SettingsWithAMistake", func(t *testing.T) {
		path, _, _ := restoredSettings(t)
		if err := os.WriteFile(path, []byte("[ledger]\nkind = \"paper\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ledgerRestored(t.Context(), path, io.Discard); exitCode(err) != exitSettings {
			t.Errorf("got %v, want an error of the settings", err)
		}
	})
}

// By hand there is no unit that has loaded the credentials.
func TestLedgersPasswordIsFoundBesideTheSettings(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ledger.password"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := config.Ledger{Kind: config.LedgerMongoDB, PasswordFile: "$CREDENTIALS_DIRECTORY/ledger.password"}
	if got, err := ledgerPassword(l, filepath.Join(dir, "gpuqd.toml")); err != nil || got != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRestoredSaysWhatWasDone(t *testing.T) {
	many := make([]string, namedMost+2)
	for i := range many {
		many[i] = fmt.Sprintf("h%d", i)
	}
	got := restoredText(&ledger.Restored{
		Was: "A", ID: "B", Sessions: many, Drained: []string{"h1"},
		Requeued: []*job.Job{{ID: "one", State: job.Queued}, {ID: "two", State: job.Killed}},
	})
	want := `ledger A is ledger B now
sessions ended: 22 (` + strings.Join(many[:namedMost], ", ") + `, and 2 more)
jobs queued again, which were claimed or running: 1 (one)
jobs killed, as somebody had asked: 1 (two)
drained in this copy, or a device of theirs: 1 (h1)
start gpuqd on every host
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := restoredText(&ledger.Restored{Was: "A", ID: "B"}); !strings.Contains(got, "sessions ended: 0\njobs queued again, which were claimed or running: 0\nstart") {
		t.Errorf("of nothing it says\n%s", got)
	}
}
