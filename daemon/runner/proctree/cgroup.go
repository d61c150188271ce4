package proctree

import (
	"bufio"
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

// NewCgroup makes a cgroup below the caller's own. It fails, which is usual,
// where there is no cgroup v2, it may not be written, or it is older than
// cgroup.kill (Linux 5.14).
func NewCgroup(name string) (Cgroup, error) {
	own, err := ownCgroup()
	if err != nil {
		return "", err
	}
	c := Cgroup(filepath.Join(own, name))
	if err := os.Mkdir(string(c), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make cgroup: %w", err)
	}
	for _, file := range []string{"cgroup.freeze", "cgroup.kill"} {
		if err := unix.Access(c.path(file), unix.W_OK); err != nil {
			return "", errors.Join(fmt.Errorf("use cgroup: %s: %w", file, err), os.Remove(string(c)))
		}
	}
	return c, nil
}

// FindCgroup returns the cgroup of that name below the caller's own, "" where
// there is none.
func FindCgroup(name string) Cgroup {
	own, err := ownCgroup()
	if err != nil {
		return ""
	}
	c := filepath.Join(own, name)
	if info, err := os.Stat(c); err != nil || !info.IsDir() {
		return ""
	}
	return Cgroup(c)
}

// ownCgroup returns the directory of the caller's cgroup v2.
func ownCgroup() (string, error) {
	mount, root, err := unifiedMount()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			rel, err := filepath.Rel(root, path)
			if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
				return "", fmt.Errorf("own cgroup %s is not below %s, which is mounted", path, root)
			}
			return filepath.Join(mount, rel), nil
		}
	}
	return "", errors.New("the process is in no cgroup v2")
}

// unifiedMount returns where cgroup v2 is mounted and which cgroup is its root.
// Source: proc_pid_mountinfo(5).
func unifiedMount() (mount, root string, err error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for i, f := range fields {
			if f == "-" && i >= 6 && i+1 < len(fields) && fields[i+1] == "cgroup2" {
				return fields[4], fields[3], nil
			}
		}
	}
	return "", "", errors.Join(errors.New("cgroup v2 is not mounted"), lines.Err())
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

// MemoryPeak returns the cgroup's largest memory use in bytes; false where the
// memory controller is not there.
func (c Cgroup) MemoryPeak() (int64, bool) {
	data, err := os.ReadFile(c.path("memory.peak"))
	if c == "" || err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
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
