package main

import (
	"errors"
	"io/fs"
	"sync/atomic"
	"time"

	"gpuqd/daemon/runner"
)

// leaseState is what the session's deadline file says to this attempt now.
type leaseState int

const (
	leaseLive    leaseState = iota // it may run; also where no lease guards it
	leaseLate                      // past the deadline, or no word for it: stand still
	leaseExpired                   // the session is over: end
)

func (s leaseState) String() string {
	return [...]string{"live", "its deadline has passed, or its deadline file is missing or another session's", "the session has expired"}[s]
}

// lease is the attempt's view of its session's lease. Reading the file is apart
// from judging it, so that a disk that hangs keeps no attempt running past its
// deadline.
type lease struct {
	file, session, boot string
	last                atomic.Pointer[runner.Deadline]
}

func newLease(in *runner.Intent, boot string) *lease {
	return &lease{file: in.DeadlineFile, session: in.Session, boot: boot}
}

// refresh reads the file. One that is missing grants nothing; one that cannot be
// read leaves the last word standing, until its deadline.
func (l *lease) refresh() {
	if l.file == "" {
		return
	}
	d, err := runner.ReadDeadline(l.file)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		l.last.Store(&d)
	}
}

// state judges the last word that was read.
func (l *lease) state() leaseState {
	if l.file == "" {
		return leaseLive
	}
	d := l.last.Load()
	switch {
	case d == nil:
		return leaseLate
	case d.Session == l.session && d.BootID == l.boot && d.State == runner.SessionExpired:
		return leaseExpired
	case d.Live(l.session, l.boot, runner.Boottime()):
		return leaseLive
	}
	return leaseLate
}

// read refreshes and judges.
func (l *lease) read() leaseState {
	l.refresh()
	return l.state()
}

// tick is how often the shim looks at its lease and for a stop request.
const tick = 200 * time.Millisecond
