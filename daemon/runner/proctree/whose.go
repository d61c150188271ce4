package proctree

import (
	"os"
	"strconv"
	"strings"
)

// Whose is what tells whose a process is.
type Whose struct {
	Process
	Name string            // of the program, as the kernel keeps it
	UID  int               // the real user; -1 where that cannot be told
	Vars map[string]string // those asked for, of the nearest process that has all of them: itself, else an ancestor
	// Cgroup is the path of its cgroup, "" where that cannot be told. It counts where
	// the environment cannot be read.
	Cgroup string
}

// ancestorsMax bounds the way up: a job's processes are not nested deeper.
const ancestorsMax = 64

// Look tells whose a process is, by the variables named; ok is false where there is
// none that lives.
func Look(pid int, vars ...string) (w Whose, ok bool) {
	proc, err := openProc()
	if err != nil {
		return Whose{}, false
	}
	defer proc.close()
	stat, err := ReadStat(pid)
	if err != nil || !stat.Alive() {
		return Whose{}, false
	}
	w = Whose{Process: stat.Process, UID: proc.uid(pid), Cgroup: proc.cgroup(pid)}
	if name, err := proc.read(pid, "/comm"); err == nil {
		w.Name = strings.TrimSpace(string(name))
	}
	for s, up := stat, 0; up < ancestorsMax; up++ {
		if found := proc.vars(s.PID, vars); len(found) == len(vars) {
			w.Vars = found
			break
		}
		parent, err := ReadStat(s.PPID)
		// A parent that is younger has a PID that was used again.
		if err != nil || s.PPID <= 1 || parent.Ticks > s.Ticks {
			break
		}
		s = parent
	}
	return w, w.is()
}

// vars returns the variables of a process's environment that are asked for.
func (s *scan) vars(pid int, names []string) map[string]string {
	data, err := s.read(pid, "/environ")
	if err != nil {
		return nil
	}
	found := map[string]string{}
	for one := range strings.SplitSeq(string(data), "\x00") {
		name, value, _ := strings.Cut(one, "=")
		for _, want := range names {
			if _, twice := found[name]; name == want && !twice {
				found[name] = value
			}
		}
	}
	return found
}

// uid returns a process's real user.
//
// Source: proc_pid_status(5).
func (s *scan) uid(pid int) int {
	data, err := s.read(pid, "/status")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(line, "Uid:"); found {
			if fields := strings.Fields(rest); len(fields) > 0 {
				if uid, err := strconv.Atoi(fields[0]); err == nil {
					return uid
				}
			}
		}
	}
	return -1
}

// cgroup returns the path of a process's cgroup: of version 2, else of systemd's own
// hierarchy.
//
// Source: cgroups(7), /proc/pid/cgroup.
func (s *scan) cgroup(pid int) (path string) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		if fields[1] == "name=systemd" && path == "" || fields[0] == "0" && len(fields[2]) > 1 {
			path = fields[2]
		}
	}
	return path
}
