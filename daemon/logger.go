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
	var sender *journald.Sender
	var to slog.Handler
	if format == config.LogJournal {
		sender = journald.New(l.JournalSocket, journald.Field{Name: "SYSLOG_IDENTIFIER", Value: "gpuqd"})
		to = handler.New(sender, level)
	} else {
		to = lines(format, stderr, level)
	}
	log := slog.New(to)
	slog.SetDefault(log) // what libraries say through package log, too
	return log, sender
}

func setLevel(level *slog.LevelVar, name string) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(name)); err != nil {
		l = slog.LevelInfo // config.Load has refused anything else
	}
	level.Set(l)
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
