package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UnfinishedPrefix marks a directory in attempts/ that Begin has not finished.
// The journal passes it over, and removes it when it is opened.
const UnfinishedPrefix = ".new-"

const newPrefix = UnfinishedPrefix

// Journal is the host's journal of attempts: the directory attempts/ below the
// daemon's state directory. One daemon at a time has it.
type Journal struct {
	state string
	lock  *os.File
	syncs syncs // ObserveSyncs; nil for none
}

// OpenJournal opens the journal below the state directory, making both where
// they are missing. It returns ErrLocked where another daemon has it open.
func OpenJournal(state string) (*Journal, error) {
	state, err := filepath.Abs(state)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{state: state}
	for _, dir := range []string{j.attempts(), j.SessionDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	path := filepath.Join(state, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		_ = file.Close() // nothing was written
		j.lock, err = tryLock(path, unix.LOCK_EX)
	}
	if err != nil {
		if errors.Is(err, ErrBusy) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("open journal %s: %w", state, err)
	}
	if err := j.clean(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", state, err), j.Close())
	}
	return j, nil
}

// clean removes what a crash inside Begin left: such an attempt was not begun.
func (j *Journal) clean() error {
	entries, err := os.ReadDir(j.attempts())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			if err := os.RemoveAll(filepath.Join(j.attempts(), e.Name())); err != nil {
				return err
			}
		}
	}
	return j.syncs.dir(j.state)
}

// ObserveSyncs has tell told how long each fsync took that the daemon waited for
// in this journal; those of shims are not among them. Call it before any other method.
func (j *Journal) ObserveSyncs(tell func(took time.Duration)) { j.syncs = tell }

// Close lets another daemon open the journal. Attempts run on.
func (j *Journal) Close() error {
	if j.lock != nil {
		unlock(j.lock)
		j.lock = nil
	}
	return nil
}

func (j *Journal) attempts() string { return filepath.Join(j.state, "attempts") }

// SessionDir returns the directory that deadline files belong in.
func (j *Journal) SessionDir() string { return filepath.Join(j.state, "sessions") }

// DeadlinePath returns the path of a session's deadline file.
func (j *Journal) DeadlinePath(session string) string {
	return filepath.Join(j.SessionDir(), session+".deadline")
}

// Begin makes the attempt's directory: the intent, and the record with disk
// space for everything that is to follow. When it returns, all of it is on disk.
// It returns ErrExists where the attempt was begun before, unless that was under
// another claim and is settled: the ledger that gave it was put back to an earlier
// time since, and counts the job's attempts from there once more. The files of the
// old one are removed then.
func (j *Journal) Begin(in Intent) (*Attempt, error) {
	in.Schema = in.schema()
	if in.LeaseLoss == "" {
		in.LeaseLoss = LeaseFreeze
	}
	if in.LogBytesMax <= 0 {
		in.LogBytesMax = DefaultLogBytesMax
	}
	if len(in.Spec) == 0 {
		in.Spec = nil
	} else if !json.Valid(in.Spec) {
		return nil, fmt.Errorf("begin attempt %s: the spec is no JSON", in.Key())
	}
	if err := in.validate(); err != nil {
		return nil, fmt.Errorf("begin attempt %s: %w", in.Key(), err)
	}
	dir := filepath.Join(j.attempts(), in.Key().String())
	tmp, err := os.MkdirTemp(j.attempts(), newPrefix+in.Key().String()+"-")
	if err != nil {
		return nil, fmt.Errorf("begin attempt %s: %w", in.Key(), err)
	}
	if err = j.syncs.fill(tmp, &in); err == nil {
		err = os.Rename(tmp, dir)
	}
	if isTaken(err) {
		if err = j.giveWay(in); err == nil {
			err = os.Rename(tmp, dir)
		}
		if isTaken(err) {
			err = ErrExists
		}
	}
	if err != nil {
		return nil, fmt.Errorf("begin attempt %s: %w", in.Key(), errors.Join(err, os.RemoveAll(tmp)))
	}
	if err := j.syncs.dir(j.attempts()); err != nil {
		return nil, fmt.Errorf("begin attempt %s: %w", in.Key(), err)
	}
	return &Attempt{dir: dir, key: in.Key(), intent: in, syncs: j.syncs}, nil
}

func isTaken(err error) bool { return errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) }

// giveWay removes the directory in an attempt's place, or returns ErrExists.
func (j *Journal) giveWay(in Intent) error {
	old, err := j.Get(in.Key())
	if errors.Is(err, ErrNotFound) {
		return nil // it has just been removed
	}
	if err != nil {
		return errors.Join(ErrExists, err)
	}
	_, settled, err := old.settledAt()
	if err != nil || !settled || old.intent.ClaimID == in.ClaimID {
		return errors.Join(ErrExists, err)
	}
	return old.Remove()
}

// fill makes the files of an attempt, in a directory that List does not show.
func (s syncs) fill(dir string, in *Intent) error {
	intent, err := seal(in)
	if err != nil {
		return err
	}
	// Zeros are written, not only reserved: the later writes then change
	// nothing but the data of blocks that exist.
	return errors.Join(
		s.write(filepath.Join(dir, "intent"), intent),
		s.write(filepath.Join(dir, "record"), make([]byte, slotCount*slotBytes)),
		os.WriteFile(filepath.Join(dir, "lock"), nil, 0o600), // empty: its entry in dir is all of it
		s.dir(dir))
}

// Get returns one attempt; ErrNotFound where there is no directory, ErrDamaged
// where it cannot be read.
func (j *Journal) Get(key Key) (*Attempt, error) {
	return openAttempt(filepath.Join(j.attempts(), key.String()), j.syncs)
}

// List returns every attempt with a directory, settled ones too (see Verdict),
// in no order. Damaged directories do not hide the others: they are moved to
// attempts.damaged/, unless their lock is held, and reported as DamagedErrors
// joined into the error, which comes beside the attempts.
func (j *Journal) List() ([]*Attempt, error) {
	entries, err := os.ReadDir(j.attempts())
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	var list []*Attempt
	var damaged []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix) {
			continue // a Begin under way
		}
		a, err := openAttempt(filepath.Join(j.attempts(), e.Name()), j.syncs)
		switch {
		case err == nil:
			list = append(list, a)
		case errors.Is(err, ErrDamaged):
			damaged = append(damaged, j.setAside(e.Name(), err))
		case errors.Is(err, ErrNotFound): // removed meanwhile
		default:
			damaged = append(damaged, err)
		}
	}
	return list, errors.Join(damaged...)
}

// setAside moves a damaged directory out of the way and reports it.
func (j *Journal) setAside(name string, cause error) error {
	report := &DamagedError{Name: name, Err: cause}
	from := filepath.Join(j.attempts(), name)
	if info, err := os.Lstat(from); err == nil && info.IsDir() {
		lock, err := tryLock(filepath.Join(from, "lock"), unix.LOCK_EX)
		switch {
		case err == nil:
			defer unlock(lock)
		case !errors.Is(err, fs.ErrNotExist):
			report.Err = errors.Join(cause, err)
			return report
		}
	}
	to := filepath.Join(j.state, "attempts.damaged", name+"."+time.Now().UTC().Format("20060102T150405.000000000"))
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		report.Err = errors.Join(cause, err)
		return report
	}
	report.MovedTo = to
	return report
}
