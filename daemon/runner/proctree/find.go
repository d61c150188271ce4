package proctree

import "os"

// Mark is by what the processes of one attempt are known. Every part may be
// empty.
type Mark struct {
	Cgroup  Cgroup   // all that is in it
	Leader  Process  // the command: all of its session
	Shim    Process  // all its descendants, but not itself
	Environ []string // "NAME=value": all that have each of them
	Since   uint64   // of those with Environ, what started at this tick or later; 0: all
}

// Descendants returns the living processes below pid, however deep.
func Descendants(pid int) ([]Stat, error) {
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	defer proc.close()
	all, err := proc.all()
	if err != nil {
		return nil, err
	}
	return below(all, map[int]bool{pid: true}), nil
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

// Find returns the living processes that m marks, and their descendants.
func Find(m Mark) ([]Process, error) {
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
		if err := proc.add(all, pid); err != nil { // it may be older, and was moved there
			return nil, err
		}
	}
	self, want := os.Getpid(), m.environ()
	session := m.sessionIn(all)
	for pid, s := range all {
		switch {
		case pid == self || pid == 1:
		case session != 0 && s.Session == session:
			marked[pid] = true
		case len(want) > 0 && s.Ticks >= m.Since && s.Alive():
			has, err := proc.hasEnviron(pid, want)
			if err != nil {
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
	return found, nil
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
