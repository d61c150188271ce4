package runner

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// Sweep removes settled attempts (committed, discarded or revoked) that ended
// longer than keep ago, and the oldest of the others until the settled ones take
// no more than bytesMax on disk (0 is no bound). An attempt that is not settled
// is never removed. It returns how many were.
func (j *Journal) Sweep(keep time.Duration, bytesMax int64) (int, error) {
	list, listErr := j.List()
	type settled struct {
		a     *Attempt
		since time.Time
		bytes int64
	}
	var found []settled
	var total int64
	for _, a := range list {
		since, ok, err := a.settledAt()
		listErr = errors.Join(listErr, err)
		if !ok {
			continue
		}
		bytes := sizeOf(a.dir)
		total += bytes
		found = append(found, settled{a, since, bytes})
	}
	slices.SortFunc(found, func(x, y settled) int {
		return cmp.Or(x.since.Compare(y.since), cmp.Compare(x.a.dir, y.a.dir))
	})
	removed := 0
	for _, s := range found {
		if time.Since(s.since) <= keep && (bytesMax == 0 || total <= bytesMax) {
			break // sorted: the rest is younger
		}
		if err := s.a.Remove(); err != nil {
			listErr = errors.Join(listErr, err)
			continue
		}
		total -= s.bytes
		removed++
	}
	return removed, listErr
}

// settledAt returns when the attempt's fate was settled.
func (a *Attempt) settledAt() (time.Time, bool, error) {
	if v, ok, err := a.Verdict(); err != nil || ok {
		if err != nil {
			return time.Time{}, false, err
		}
		return v.Time, true, nil
	}
	r, ok, err := a.Revoked()
	if err != nil || !ok {
		return time.Time{}, false, err
	}
	return r.Time, true, nil
}

// sizeOf returns the bytes in a directory's files; what vanishes counts nothing.
func sizeOf(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}
