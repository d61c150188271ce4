package cluster

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another `make up` or `make down` is at work.
var ErrLocked = errors.New("another make up or make down is at work here: wait for it to end")

// Lock makes the caller the only one who may bring the cluster in dir up or
// down. The lock is the directory's own; it is gone with the process, or with
// the directory.
func Lock(dir string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("lock the cluster: %w", err)
		}
		file, err := os.Open(dir)
		if err != nil {
			return nil, fmt.Errorf("lock the cluster: %w", err)
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = file.Close() // read only
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ErrLocked
			}
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if isSame(file, dir) {
			return func() { _ = file.Close() }, nil
		}
		_ = file.Close() // removed meanwhile by a make down: lock its successor
	}
}

// isSame reports whether an open directory is the one at path.
func isSame(file *os.File, path string) bool {
	opened, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(opened, named)
}
