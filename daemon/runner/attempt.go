package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner/proctree"
)

// Attempt is one attempt's directory. It holds nothing open; its methods may be
// called at the same time, also by the daemon and the shim.
type Attempt struct {
	dir    string
	key    Key
	intent Intent
	syncs  syncs
}

// OpenAttempt opens an attempt by its directory, as the shim does. The daemon
// goes through its Journal.
func OpenAttempt(dir string) (*Attempt, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open attempt: %w", err)
	}
	return openAttempt(abs, nil)
}

func openAttempt(dir string, s syncs) (*Attempt, error) {
	name := filepath.Base(dir)
	key, err := ParseKey(name)
	if err != nil {
		return nil, fmt.Errorf("open attempt: %w: %w", ErrDamaged, err)
	}
	a := &Attempt{dir: dir, key: key, syncs: s}
	data, err := os.ReadFile(a.path("intent"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Lstat(dir); errors.Is(statErr, fs.ErrNotExist) {
			return nil, fmt.Errorf("open attempt %s: %w", key, ErrNotFound)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open attempt %s: %w: %w", key, ErrDamaged, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open attempt %s: %w", key, err) // it may be read another time
	}
	ok, err := unseal(data, &a.intent)
	if !ok || a.intent.Key() != key {
		return nil, fmt.Errorf("open attempt %s: its intent: %w", key, errors.Join(ErrDamaged, err))
	}
	if _, err := os.Lstat(a.path("lock")); err != nil {
		return nil, fmt.Errorf("open attempt %s: %w: %w", key, ErrDamaged, err)
	}
	info, err := os.Lstat(a.path("record"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open attempt %s: %w", key, err)
	}
	if err != nil || info.Size() != int64(slotCount)*slotBytes {
		return nil, fmt.Errorf("open attempt %s: its record is missing or of another size: %w", key, errors.Join(ErrDamaged, err))
	}
	return a, nil
}

func (a *Attempt) path(name string) string { return filepath.Join(a.dir, name) }

// Key returns the attempt's name.
func (a *Attempt) Key() Key { return a.key }

// Dir returns the attempt's directory.
func (a *Attempt) Dir() string { return a.dir }

// Intent returns what the attempt is to run. The caller must not change the
// maps and slices in it.
func (a *Attempt) Intent() *Intent { return &a.intent }

// read reads one slot, naming the attempt in errors.
func (a *Attempt) read(s slot, what string, v any) (bool, error) {
	ok, err := readSlot(a.path("record"), s, v)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return false, fmt.Errorf("read %s of attempt %s: %w", what, a.key, err)
	}
	return ok, nil
}

func (a *Attempt) write(s slot, what string, v any) error {
	if err := a.syncs.writeSlot(a.path("record"), s, v); err != nil {
		return fmt.Errorf("write %s of attempt %s: %w", what, a.key, err)
	}
	return nil
}

// slotOf reads one slot into a new T.
func slotOf[T any](a *Attempt, s slot, what string) (*T, bool, error) {
	v := new(T)
	ok, err := a.read(s, what, v)
	if !ok {
		return nil, false, err
	}
	return v, true, nil
}

// Started returns the record of the start; false where there is none.
func (a *Attempt) Started() (*Started, bool, error) { return slotOf[Started](a, slotStarted, "start") }

// Revoked returns the revocation; false where there is none.
func (a *Attempt) Revoked() (*Revoked, bool, error) {
	return slotOf[Revoked](a, slotRevoked, "revocation")
}

// StopRequest returns what RequestStop wrote last; false where nothing.
func (a *Attempt) StopRequest() (*Stop, bool, error) {
	return slotOf[Stop](a, slotStop, "stop request")
}

// Stopping returns why the shim is ending, or ended, the attempt; false where it
// is not.
func (a *Attempt) Stopping() (*Stop, bool, error) {
	return slotOf[Stop](a, slotStopping, "stop reason")
}

// Exit returns how the attempt ended; false where it has not.
func (a *Attempt) Exit() (*Exit, bool, error) { return slotOf[Exit](a, slotExit, "exit") }

// Verdict returns what became of the result; false where that is open.
func (a *Attempt) Verdict() (*Verdict, bool, error) {
	return slotOf[Verdict](a, slotVerdict, "verdict")
}

// MarkCommitted notes that the ledger has the result. The files stay until
// Sweep or Remove.
func (a *Attempt) MarkCommitted(commitID string) error {
	return a.write(slotVerdict, "verdict", Verdict{CommitID: clip(commitID, 200), Time: time.Now().UTC()})
}

// MarkDiscarded notes that the result was refused. The files stay for audit.
func (a *Attempt) MarkDiscarded(reason string) error {
	return a.write(slotVerdict, "verdict", Verdict{Discarded: clip(reason, 1000), Time: time.Now().UTC()})
}

// LockFree reports whether nobody holds the attempt's lock: it has no shim, or
// not yet.
func (a *Attempt) LockFree() (bool, error) {
	lock, err := tryLock(a.path("lock"), unix.LOCK_SH)
	if errors.Is(err, ErrBusy) {
		return false, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	if err != nil {
		return false, fmt.Errorf("test lock of attempt %s: %w", a.key, err)
	}
	unlock(lock)
	return true, nil
}

// RequestStop asks the shim to end the attempt, and returns when the request is
// on disk. The first reason counts; a later request can only shorten the grace.
// It is no error where the attempt has ended or was never started: a shim that
// finds the request before the start runs nothing.
func (a *Attempt) RequestStop(s Stop) error {
	s.Detail = clip(s.Detail, 300)
	if s.Time.IsZero() {
		s.Time = time.Now().UTC()
	}
	if err := a.write(slotStop, "stop request", s); err != nil {
		return err
	}
	started, ok, err := a.Started()
	if ok {
		// A hint only: the shim also looks by itself at every tick.
		_ = proctree.Signal(proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}, unix.SIGUSR1)
	}
	return err
}

// Remove deletes the attempt's files. It returns ErrBusy while a shim is alive.
func (a *Attempt) Remove() error {
	lock, err := a.lockAfterShim()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove attempt %s: %w", a.key, err)
	}
	defer unlock(lock)
	// Hidden first: a crash half way leaves nothing that looks damaged.
	hidden := filepath.Join(filepath.Dir(a.dir), newPrefix+"removed-"+a.key.String())
	err = os.Rename(a.dir, hidden)
	if err == nil {
		err = os.RemoveAll(hidden)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove attempt %s: %w", a.key, err)
	}
	return nil
}
