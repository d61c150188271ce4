package device

import (
	"slices"
	"sync"
	"time"
)

// describeMost is how long an inventory waits to learn whose processes are. As a rule
// that takes microseconds; a process that hangs in the driver can keep who reads its
// files of /proc for ever.
const describeMost = time.Second

// left is one process on a device, with whose it is.
type left struct {
	Process
	owner   ProcessOwner
	known   bool // owner is; else the process is gone, or nobody can tell
	hangs   bool // nobody can tell, since who asks is kept waiting
	allowed bool // it is nobody's attempt's, and may be there
}

// asking are the processes that somebody is asked about and has not answered for: each
// costs one goroutine until the kernel lets it go.
type asking struct {
	mu   sync.Mutex
	pids map[int]bool
}

// begin reports whether nobody is being asked about the process yet.
func (a *asking) begin(pid int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.pids[pid] {
		return false
	}
	if a.pids == nil {
		a.pids = map[int]bool{}
	}
	a.pids[pid] = true
	return true
}

func (a *asking) end(pid int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pids, pid)
}

// owners says whose the processes of an inventory are. It waits for no process that
// hangs: m.mu is not held, and the source's goroutine goes on.
func (m *Manager) owners(inventory []Facts) map[string][]left {
	known := m.ask(inventory)
	all := map[string][]left{}
	for _, f := range inventory {
		for _, p := range f.Processes {
			one, ok := known[p.PID]
			one.Process, one.hangs = p, !ok
			one.allowed = one.known && one.owner.JobID == "" && slices.Contains(m.allowed, comm(one.owner.Name))
			all[f.UUID] = append(all[f.UUID], one)
		}
	}
	return all
}

// ask describes every process of an inventory once, all at the same time. Of those
// that are not named in the answer nobody could tell in time.
func (m *Manager) ask(inventory []Facts) map[int]left {
	type answer struct {
		pid int
		left
	}
	known, asked := map[int]left{}, map[int]bool{}
	for _, f := range inventory {
		for _, p := range f.Processes {
			if m.processes == nil {
				known[p.PID] = left{known: true}
			} else {
				asked[p.PID] = true
			}
		}
	}
	answers, open := make(chan answer, len(asked)), 0
	for pid := range asked {
		if !m.asking.begin(pid) {
			continue // since an earlier inventory
		}
		open++
		go func() {
			defer m.asking.end(pid)
			owner, ok := m.processes.Describe(pid)
			answers <- answer{pid, left{owner: owner, known: ok}}
		}()
	}
	if open == 0 {
		return known
	}
	late := time.NewTimer(describeMost)
	defer late.Stop()
	for ; open > 0; open-- {
		select {
		case a := <-answers:
			known[a.pid] = a.left
		case <-late.C:
			return known
		}
	}
	return known
}

// commBytes is how much of a program's name the kernel keeps.
//
// Source: proc_pid_comm(5), TASK_COMM_LEN less its end.
const commBytes = 15

// comm is a program's name as the kernel keeps it.
func comm(name string) string { return name[:min(len(name), commBytes)] }
