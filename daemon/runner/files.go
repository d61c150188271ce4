package runner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// syncs is told how long each fsync took; nil is told nothing.
type syncs func(took time.Duration)

// sync puts on disk all that is needed to read the file back; its times are not.
func (s syncs) sync(file *os.File) error {
	return s.timed(func() error { return Datasync(file) })
}

func (s syncs) timed(sync func() error) error {
	began := time.Now()
	err := sync()
	if s != nil {
		s(time.Since(began))
	}
	return err
}

// Datasync is fdatasync(2): the file's data, and its size where that is new. A
// write in place then costs the file system no journal entry.
func Datasync(file *os.File) error { return datasync(int(file.Fd())) }

func datasync(fd int) error {
	_, err := retried(func() (int, error) { return 0, unix.Fdatasync(fd) })
	return os.NewSyscallError("fdatasync", err)
}

// openRaw opens a file that is read or written once, without asking whether it
// can be polled, which costs an os.File five system calls.
func openRaw(path string, flags int) (int, error) {
	fd, err := retried(func() (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// retried repeats a system call that a signal interrupted.
func retried(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}

// writeFile puts data at path, whole or not at all, and syncs the file and its
// directory.
func (s syncs) writeFile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := s.write(tmp, data); err != nil {
		_ = os.Remove(tmp) // the first error says more
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return s.dir(filepath.Dir(path))
}

// write makes the file at path with data in it, on disk.
func (s syncs) write(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, s.sync(file), file.Close())
}

func (s syncs) dir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(s.timed(dir.Sync), dir.Close())
}

// tryLock takes the flock of the file at path without waiting: exclusive, or
// shared to test that nobody holds it. It returns ErrBusy where somebody does.
// It does not make the file: beside a holder of a deleted one, a new one would
// look free. The file is close-on-exec, so no child inherits the lock.
func tryLock(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil {
		return file, nil
	}
	_ = file.Close() // read only so far
	if err == unix.EWOULDBLOCK {
		err = ErrBusy
	}
	return nil, err
}

// unlock releases a lock at once. Closing alone would not: a child that another
// goroutine just forked shares the descriptor until its exec.
func unlock(file *os.File) {
	_ = unix.Flock(int(file.Fd()), unix.LOCK_UN) // cannot fail on a held lock
	_ = file.Close()
}
