package proctree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is the directory of a cgroup (v2) that holds one attempt and nothing
// else; "" for none.
type Cgroup string

// NewCgroup makes a cgroup below the caller's own; see Below.
func NewCgroup(name string) (Cgroup, error) {
	own, err := Own()
	if err != nil {
		return "", err
	}
	return own.Below(name)
}

// Below makes a cgroup below c. It fails, which is usual, where there is no
// cgroup v2, it may not be written, or it is older than cgroup.kill (Linux 5.14).
func (c Cgroup) Below(name string) (Cgroup, error) {
	made := Cgroup(c.path(name))
	if err := os.Mkdir(string(made), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	for _, file := range []string{"cgroup.freeze", "cgroup.kill"} {
		if err := unix.Access(made.path(file), unix.W_OK); err != nil {
			return "", errors.Join(fmt.Errorf("use cgroup: %s: %w", file, err), os.Remove(string(made)))
		}
	}
	return made, nil
}

// FindCgroup returns the cgroup of that name below the caller's own, "" where
// there is none.
func FindCgroup(name string) Cgroup {
	own, err := Own()
	if err != nil {
		return ""
	}
	c := filepath.Join(string(own), name)
	if info, err := os.Stat(c); err != nil || !info.IsDir() {
		return ""
	}
	return Cgroup(c)
}

// Own returns the caller's cgroup v2; on a host with both versions that of the
// unified hierarchy.
func Own() (Cgroup, error) {
	c, err := ownCgroup("")
	return Cgroup(c), err
}

// Enter moves the calling process, all of its threads, into the cgroup.
func (c Cgroup) Enter() error {
	return os.WriteFile(c.path("cgroup.procs"), []byte("0"), 0)
}

func (c Cgroup) path(file string) string { return filepath.Join(string(c), file) }

// PIDs returns the processes in the cgroup and below it; none where it is gone.
func (c Cgroup) PIDs() ([]int, error) {
	if c == "" {
		return nil, nil
	}
	var pids []int
	err := filepath.WalkDir(string(c), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return ignoreGone(err)
		}
		data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return ignoreGone(err)
		}
		for _, f := range strings.Fields(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 { // 0: in another PID namespace
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read cgroup: %w", err)
	}
	return pids, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Has reports whether a process is in the cgroup or below it.
func (c Cgroup) Has(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if c == "" || err != nil {
		return false
	}
	name := "/" + filepath.Base(string(c))
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return strings.HasSuffix(path, name) || strings.Contains(path, name+"/")
		}
	}
	return false
}

// Freeze stops or resumes everything in the cgroup. The kernel stops each
// process as soon as it leaves the system call it is in; Freeze does not wait.
func (c Cgroup) Freeze(frozen bool) error {
	value := "0"
	if frozen {
		value = "1"
	}
	return os.WriteFile(c.path("cgroup.freeze"), []byte(value), 0)
}

// Frozen reports whether everything in the cgroup stands still.
func (c Cgroup) Frozen() bool {
	data, err := os.ReadFile(c.path("cgroup.events"))
	return err == nil && strings.Contains(string(data), "frozen 1")
}

// Kill sends SIGKILL to everything in the cgroup, forks under way included. It
// works on a frozen cgroup.
func (c Cgroup) Kill() error {
	if c == "" {
		return nil
	}
	return ignoreGone(os.WriteFile(c.path("cgroup.kill"), []byte("1"), 0))
}

// Remove deletes the cgroup and what the attempt made below it. Nothing may be
// running in it.
func (c Cgroup) Remove() error {
	if c == "" {
		return nil
	}
	var dirs []string
	err := filepath.WalkDir(string(c), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		return ignoreGone(err)
	})
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := removeCgroupDir(dirs[i]); err != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroupDir tries for a moment: a process that was reaped just now can
// still count as a member.
func removeCgroupDir(dir string) error {
	for try := 0; ; try++ {
		err := ignoreGone(unix.Rmdir(dir))
		if err == nil || !errors.Is(err, unix.EBUSY) || try == 50 {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}
