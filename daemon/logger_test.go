package main

import (
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"gpuqd/daemon/config"
)

// stream returns the two ends of a connected socket, as systemd gives a unit one
// for its stderr, and what JOURNAL_STREAM then says.
func stream(t *testing.T) (stderr, journal *os.File, name string) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	stderr, journal = os.NewFile(uintptr(fds[0]), "stderr"), os.NewFile(uintptr(fds[1]), "journal")
	t.Cleanup(func() { _, _ = stderr.Close(), journal.Close() })
	var stat syscall.Stat_t
	if err := syscall.Fstat(fds[0], &stat); err != nil {
		t.Fatal(err)
	}
	return stderr, journal, fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

func TestLogger(t *testing.T) {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	t.Run("JournalStreamIsNeverWrittenTo", func(t *testing.T) {
		stderr, journal, name := stream(t)
		t.Setenv("JOURNAL_STREAM", name)
		log, sender := newLogger(config.Log{Level: "debug", Format: config.LogAuto, JournalSocket: config.Default().Log.JournalSocket}, new(slog.LevelVar), stderr)
		if sender == nil {
			t.Fatal("the log is not journald's")
		}
		defer sender.Close()
		log.Debug("one line", "attempt", 1)
		stdlog.Print("a library says something")
		_ = stderr.Close()
		if text, err := io.ReadAll(journal); err != nil || len(text) > 0 {
			t.Errorf("stderr has %q, %v", text, err)
		}
	})
	t.Run("RedirectedStderrHasText", func(t *testing.T) {
		_, _, name := stream(t)
		t.Setenv("JOURNAL_STREAM", name) // of the parent's stderr, not of this one
		stderr, file, _ := stream(t)
		log, sender := newLogger(config.Log{Level: "info", Format: config.LogAuto}, new(slog.LevelVar), stderr)
		log.Info("one line", "attempt", 1)
		_ = stderr.Close()
		text, err := io.ReadAll(file)
		if err != nil || sender != nil || !strings.Contains(string(text), `level=INFO msg="one line" attempt=1`) {
			t.Errorf("stderr has %q, %v", text, err)
		}
	})
	t.Run("FormatThatIsNamedIsUsed", func(t *testing.T) {
		stderr, file, name := stream(t)
		t.Setenv("JOURNAL_STREAM", name)
		log, sender := newLogger(config.Log{Level: "info", Format: config.LogJSON}, new(slog.LevelVar), stderr)
		log.Info("one line", "attempt", 1)
		_ = stderr.Close()
		text, err := io.ReadAll(file)
		if err != nil || sender != nil || !strings.Contains(string(text), `"msg":"one line","attempt":1}`) {
			t.Errorf("stderr has %q, %v", text, err)
		}
	})
	t.Run("ConnectionIsNoJournal", func(t *testing.T) {
		if isJournal(os.Stderr, "") || isJournal(os.Stderr, "1:2") {
			t.Error("a stream that is not named is taken for journald's")
		}
	})
}
