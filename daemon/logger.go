package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"gpuqd/daemon/config"
	"gpuqd/daemon/journald"
	"gpuqd/daemon/journald/handler"
)

// newLogger returns the daemon's log of what is at least as important as level,
// which it sets, with the sender of its entries where they
// go to journald; nil where they are lines on stderr.
//
// Under systemd stderr is a stream to journald, and a write to it waits while
// journald stands still. So nothing is written there in normal work: an error
// that ends the daemon, and a panic, are all that is.
func newLogger(l config.Log, level *slog.LevelVar, stderr *os.File) (*slog.Logger, *journald.Sender) {
	setLevel(level, l.Level)
	format := l.Format
	if format == config.LogAuto {
		format = config.LogText
		if isJournal(stderr, os.Getenv("JOURNAL_STREAM")) {
			format = config.LogJournal
		}
	}
	if format == config.LogJournal {
		sender := journald.New(journald.Socket, journald.Field{Name: "SYSLOG_IDENTIFIER", Value: "gpuqd"})
		return slog.New(handler.New(sender, level)), sender
	}
	return slog.New(lines(format, stderr, level)), nil
}

func lines(format string, to io.Writer, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if format == config.LogJSON {
		return slog.NewJSONHandler(to, options)
	}
	return slog.NewTextHandler(to, options)
}

// isJournal reports whether a file is the stream to journald that systemd names
// in JOURNAL_STREAM: what a parent redirected has another inode.
//
// Source: systemd.exec(5), "$JOURNAL_STREAM".
func isJournal(file *os.File, stream string) bool {
	info, err := file.Stat()
	if err != nil || stream == "" {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && fmt.Sprintf("%d:%d", stat.Dev, stat.Ino) == stream
}
