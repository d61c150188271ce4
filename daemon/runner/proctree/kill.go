package proctree

import (
	"time"

	"golang.org/x/sys/unix"
)

// KillAll kills everything that m marks until nothing is left, removes the
// cgroup, and returns what was still alive after wait.
func KillAll(m Mark, wait time.Duration) ([]int, error) {
	pause := 5 * time.Millisecond
	for end := time.Now().Add(wait); ; time.Sleep(pause) {
		pause = min(2*pause, time.Second)
		if err := m.Cgroup.Kill(); err != nil {
			return nil, err
		}
		procs, err := Find(m)
		if err != nil {
			return nil, err
		}
		if len(procs) == 0 {
			return nil, m.Cgroup.Remove()
		}
		if time.Now().After(end) {
			return pidsOf(procs), nil
		}
		for _, p := range procs {
			_ = Signal(p, unix.SIGKILL) // gone already, or the next pass tells
		}
	}
}

func pidsOf(procs []Process) []int {
	pids := make([]int, len(procs))
	for i, p := range procs {
		pids[i] = p.PID
	}
	return pids
}
