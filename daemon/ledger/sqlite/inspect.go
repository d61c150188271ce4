package sqlite

import (
	"context"
	"os"
	"path/filepath"

	"gpuqd/daemon/health"
	"gpuqd/daemon/ledger"
)

var _ ledger.Inspector = (*Store)(nil)

// Names of the checks.
const (
	checkSafety = "file"
	checkRoom   = "room"
)

// synchronous names SQLite's levels. Source: the SQLite manual, PRAGMA synchronous.
var synchronous = map[string]string{"0": "off", "1": "normal", "2": "full", "3": "extra"}

// Inspect implements ledger.Inspector.
func (s *Store) Inspect(ctx context.Context) []health.Check {
	return []health.Check{s.inspectFile(ctx), s.inspectRoom()}
}

// inspectFile asks what makes a commit durable.
func (s *Store) inspectFile(ctx context.Context) health.Check {
	mode, err := s.write(ctx, "PRAGMA journal_mode")
	if err != nil {
		return health.Bad(checkSafety, health.Unknown, "run gpuqctl doctor again when the ledger answers", "%v", err)
	}
	level, err := s.write(ctx, "PRAGMA synchronous")
	if err != nil {
		return health.Bad(checkSafety, health.Unknown, "run gpuqctl doctor again when the ledger answers", "%v", err)
	}
	disk, err := health.DiskOf(filepath.Dir(s.path))
	if err != nil {
		return health.Bad(checkSafety, health.Fail, "see that ledger.path is there", "%v", err)
	}
	journal, sync := string(first(mode)), synchronous[string(first(level))]
	const format = "%s on %s: journal_mode %s, synchronous %s"
	args := []any{s.path, disk.Kind, journal, sync}
	switch {
	case journal != "wal" || sync != "full" && sync != "extra":
		return health.Bad(checkSafety, health.Fail, "stop what changed it, such as another program that opened the file, and restart gpuqd: a power cut could take confirmed jobs back", format, args...)
	case disk.Network:
		return health.Bad(checkSafety, health.Fail, "move the file to a local disk, or use the mongodb ledger: SQLite's locks do not hold there", format, args...)
	case disk.Volatile:
		return health.Bad(checkSafety, health.Warn, "put ledger.path on a disk: with the next reboot the queue is gone", format, args...)
	}
	return health.Good(checkSafety, format, args...)
}

func (s *Store) inspectRoom() health.Check {
	disk, err := health.DiskOf(filepath.Dir(s.path))
	if err != nil {
		return health.Bad(checkRoom, health.Fail, "see that ledger.path is there", "%v", err)
	}
	check := disk.Room(checkRoom, "make room on that file system: on a full one nothing is claimed or committed")
	var size int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(s.path + suffix); err == nil {
			size += info.Size()
		}
	}
	check.Saw += "; the ledger takes " + health.Bytes(uint64(size))
	return check
}
