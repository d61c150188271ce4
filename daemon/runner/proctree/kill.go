package proctree

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// KillAll kills everything that m marks until nothing is left, removes the
// cgroup, and returns what was still alive after wait.
func KillAll(m Mark, wait time.Duration) ([]int, error) {
	pause := 5 * time.Millisecond
	// A dying process loses its environment before its open files, a GPU's among
	// them: what was found once counts until it is dead.
	known := make(map[Process]bool)
	empty, needed := 0, 1 // looks in a row that found nothing
	for end := time.Now().Add(wait); ; time.Sleep(pause) {
		pause = min(2*pause, time.Second)
		if err := m.Cgroup.Kill(); err != nil && !readOnly(err) {
			return nil, err
		}
		found, err := Find(m)
		if err != nil {
			return nil, err
		}
		for _, p := range found {
			known[p] = true
		}
		left := alive(known)
		if len(found) > 0 || len(left) > 0 {
			empty = 0
		} else if empty++; empty == needed {
			if err := m.Cgroup.Remove(); !readOnly(err) {
				return nil, err
			}
			return nil, nil // it goes with its unit
		}
		if len(found) > 0 {
			needed = 2 // it may have forked before it died, and a look is no instant
		}
		if time.Now().After(end) {
			if len(left) == 0 {
				left = found
			}
			return pidsOf(left), nil
		}
		for _, p := range left {
			_ = Signal(p, unix.SIGKILL) // gone already, or the next pass tells
		}
	}
}

// alive returns those of known that are alive, and forgets the others.
func alive(known map[Process]bool) []Process {
	var left []Process
	for p := range known {
		if p.Alive() {
			left = append(left, p)
		} else {
			delete(known, p)
		}
	}
	return left
}

func pidsOf(procs []Process) []int {
	pids := make([]int, len(procs))
	for i, p := range procs {
		pids[i] = p.PID
	}
	return pids
}

// readOnly reports whether the caller may only look at cgroups, as a service with
// ProtectControlGroups= may: signals reach the processes all the same.
func readOnly(err error) bool { return errors.Is(err, unix.EROFS) }
