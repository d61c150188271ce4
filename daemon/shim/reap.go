package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// reaped is what wait reports.
type reaped struct {
	ended chan commandEnd // the command's end, once
	gone  chan struct{}   // closed when there is no child: nothing of the tree is left
}

// commandEnd is the end of the command itself.
type commandEnd struct {
	unix.WaitStatus
	last bool // no child was left with it
}

// reap waits for the command and for every orphan of its tree. The shim is their
// subreaper, so "no child" proves that nothing is left, however deep.
func reap(pid int) *reaped {
	r := &reaped{make(chan commandEnd, 1), make(chan struct{})}
	go func() {
		defer close(r.gone)
		for {
			var status unix.WaitStatus
			got, err := unix.Wait4(-1, &status, unix.WALL, nil)
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil: // ECHILD
				return
			case got == pid && (status.Exited() || status.Signaled()):
				last := reapEnded()
				r.ended <- commandEnd{status, last}
				if last {
					return
				}
			}
		}
	}()
	return r
}

// reapEnded reaps what has ended already, and reports whether no child is left:
// most commands leave none, and their end needs no search for more.
func reapEnded() bool {
	for {
		got, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD
			return true
		case got == 0:
			return false
		}
	}
}
