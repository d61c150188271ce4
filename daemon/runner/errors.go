package runner

import (
	"errors"
	"fmt"
)

// What can be wrong with an attempt or a journal. Match with errors.Is.
var (
	// ErrLocked: another daemon uses the state directory.
	ErrLocked = errors.New("another gpuqd uses this state directory; stop it, or set another state directory")
	// ErrExists: Begin was called twice for one attempt, or an earlier one of its
	// number is not settled.
	ErrExists = errors.New("the attempt has a directory already")
	// ErrNotFound: the journal has no such attempt (any more).
	ErrNotFound = errors.New("this host has no such attempt")
	// ErrBusy: somebody holds the attempt's lock: its shim is alive.
	ErrBusy = errors.New("the attempt's lock is held: its shim is alive")
	// ErrStarted: the attempt was started, so it cannot be revoked.
	ErrStarted = errors.New("the attempt was started already")
	// ErrNotStarted: the attempt has no start and no shim; Revoke it.
	ErrNotStarted = errors.New("the attempt was never started")
	// ErrRefused: the shim declined to start the command, which never ran and
	// never will: the attempt is revoked. The wrapping error has the reason.
	ErrRefused = errors.New("the shim did not start the command")
	// ErrLost: the attempt was started, its shim is gone, and there is no exit
	// record. RecordLost ends it.
	ErrLost = errors.New("the attempt's shim is gone without an exit record")
	// ErrDamaged: a file of an attempt cannot be read back as written.
	ErrDamaged = errors.New("damaged")
)

// DamagedError reports an attempt directory that could not be read. It matches
// ErrDamaged.
type DamagedError struct {
	Name    string // of the directory in attempts/
	MovedTo string // where its files are kept now; "" where they could not be moved
	Err     error
}

func (e *DamagedError) Error() string {
	if e.MovedTo == "" {
		return fmt.Sprintf("attempt directory %s is damaged and was left in place: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("attempt directory %s is damaged; its files are kept in %s: %v", e.Name, e.MovedTo, e.Err)
}

// Unwrap makes the error match ErrDamaged and its cause.
func (e *DamagedError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// LeftoversError reports processes of an attempt that survived SIGKILL for a
// while (they sit in the kernel). The attempt's devices are not free.
type LeftoversError struct {
	Key  Key
	PIDs []int
}

func (e *LeftoversError) Error() string {
	return fmt.Sprintf("attempt %s: processes %v survive SIGKILL; they wait inside the kernel, see dmesg", e.Key, e.PIDs)
}
