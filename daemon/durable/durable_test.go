package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	for _, text := range []string{"first", "", "third"} {
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Fatalf("got %q, %v; want %q", got, err, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v; want that only its owner reads it", info.Mode(), err)
	}
	expectAlone(t, filepath.Dir(path), "state.json")
}

// What cannot be replaced stays as it is, and nothing is left beside it.
func TestReplaceThatFailsChangesNothing(t *testing.T) {
	dir := t.TempDir()
	inTheWay := filepath.Join(dir, "state.json")
	if err := os.MkdirAll(filepath.Join(inTheWay, "kept"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(inTheWay, []byte("new")); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if _, err := os.Stat(filepath.Join(inTheWay, "kept")); err != nil {
		t.Error(err)
	}
	expectAlone(t, dir, "state.json")
	if err := Replace(filepath.Join(dir, "missing", "state.json"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that there is no such directory", err)
	}
}

func expectAlone(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the directory has %v, %v; want %s alone", entries, err, name)
	}
}
