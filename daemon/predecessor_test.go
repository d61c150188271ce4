package main

import (
	"errors"
	"os"
	"testing"
)

func TestPredecessorsEnd(t *testing.T) {
	m := markIn(t.TempDir())
	expect := func(want end, boot string) {
		t.Helper()
		if got, err := m.begin(boot); err != nil || got != want {
			t.Errorf("the last daemon ended %q (%v), want %q", got, err, want)
		}
	}
	expect(endNone, "boot-1")
	if err := m.ended(); err != nil {
		t.Fatal(err)
	}
	expect(endOrdered, "boot-1")
	expect(endDied, "boot-1") // nobody said that it had ended
	expect(endHost, "boot-2")
	if err := m.ended(); err != nil {
		t.Fatal(err)
	}
	expect(endOrdered, "boot-3") // a shutdown of the host, in order
}

// What cannot be read or written is no reason to guess.
func TestPredecessorsMarkThatCannotBeRead(t *testing.T) {
	m := markIn(t.TempDir())
	if err := os.Mkdir(m.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if end, err := m.begin("boot-1"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("it ended %q (%v), and the mark is a directory", end, err)
	}
}
