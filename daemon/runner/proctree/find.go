package proctree

import (
	"errors"
	"os"
	"time"
)

// Mark is by what the processes of one attempt are known. Every part may be
// empty.
type Mark struct {
	Cgroup  Cgroup   // all that is in it
	Leader  Process  // the command: all of its session
	Shim    Process  // all its descendants, but not itself
	Environ []string // "NAME=value": all that have each of them
	Since   uint64   // of those with Environ, what started at this tick or later; 0: all
}

// Descendants returns the living processes below pid, however deep. Beside an error
// it returns those that could be looked at.
func Descendants(pid int) ([]Stat, error) {
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	defer proc.close()
	all, err := proc.all()
	return below(all, map[int]bool{pid: true}), err
}

// below returns the living processes of all that descend from a root, without
// the roots themselves.
func below(all map[int]Stat, roots map[int]bool) []Stat {
	children := make(map[int][]int, len(all))
	for pid, s := range all {
		children[s.PPID] = append(children[s.PPID], pid)
	}
	var found []Stat
	seen := make(map[int]bool)
	var queue []int
	for root := range roots {
		queue = append(queue, root)
	}
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		for _, child := range children[pid] {
			if seen[child] || roots[child] {
				continue
			}
			seen[child] = true
			queue = append(queue, child)
			if all[child].Alive() {
				found = append(found, all[child])
			}
		}
	}
	return found
}

// looks bounds how often Find looks again since a process could not be told: it
// ended, and may have forked another that was not in the picture, or became another
// program. A few have no environment for good.
const looks = 5

// Find returns the living processes that m marks, and their descendants.
func Find(m Mark) ([]Process, error) {
	for look := 1; ; look++ {
		found, err := find(m)
		if !errors.Is(err, errGone) {
			return found, err
		}
		if look == looks {
			return found, nil
		}
		time.Sleep(time.Millisecond)
	}
}

// kernelThreads is the parent of all kernel threads, which have no environment.
const kernelThreads = 2

// find is one look. It returns errGone beside what it found where a process could
// not be told.
func find(m Mark) ([]Process, error) {
	inCgroup, err := m.Cgroup.PIDs()
	if err != nil {
		return nil, err
	}
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	defer proc.close()
	// After the cgroup, so that its processes are in the picture.
	all, err := proc.since(m.first())
	if err != nil {
		return nil, err
	}
	marked := make(map[int]bool)
	for _, pid := range inCgroup {
		marked[pid] = true
	}
	if !holds(all, marked) { // one is older than the shim, and was moved there
		if all, err = proc.all(); err != nil {
			return nil, err
		}
	}
	self, want := os.Getpid(), m.environ()
	session := m.sessionIn(all)
	var gone error
	for pid, s := range all {
		switch {
		case pid == self || pid == 1 || pid == kernelThreads || s.PPID == kernelThreads:
		case session != 0 && s.Session == session:
			marked[pid] = true
		case len(want) > 0 && s.Ticks >= m.Since && s.Alive():
			has, err := proc.hasEnviron(pid, want)
			if errors.Is(err, errGone) {
				gone = err
			} else if err != nil {
				return nil, err
			}
			if has {
				marked[pid] = true
			}
		}
	}
	shim, ok := all[m.Shim.PID]
	shimIs := ok && m.Shim.PID > 0 && shim.Ticks == m.Shim.Ticks
	if shimIs {
		delete(marked, m.Shim.PID)
	}
	var found []Process
	for pid := range marked {
		if s, ok := all[pid]; ok && s.Alive() {
			found = append(found, s.Process)
		}
	}
	roots := marked
	if shimIs {
		roots[m.Shim.PID] = true
	}
	for _, s := range below(all, roots) {
		if s.PID != self {
			found = append(found, s.Process)
		}
	}
	return found, gone
}

func holds(all map[int]Stat, pids map[int]bool) bool {
	for pid := range pids {
		if _, ok := all[pid]; !ok {
			return false
		}
	}
	return true
}

// first is the process that no other with the mark is older than: the shim, which
// started its command. Without one, every process may have the mark.
func (m Mark) first() Process {
	if m.Since == 0 || m.Since != m.Shim.Ticks {
		return Process{}
	}
	return m.Shim
}

// sessionIn returns the session that the leader made, 0 where it is gone. While
// a session has members, its number goes to no new process; a leader with
// another start means that the number was used again.
func (m Mark) sessionIn(all map[int]Stat) int {
	if m.Leader.PID <= 0 {
		return 0
	}
	if s, ok := all[m.Leader.PID]; ok && s.Ticks != m.Leader.Ticks {
		return 0
	}
	return m.Leader.PID
}
