package proctree

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ownCgroup returns the directory of the caller's cgroup in the hierarchy of a
// v1 controller, or of v2 for "".
func ownCgroup(controller string) (string, error) {
	mount, root, err := cgroupMount(controller)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(fields) < 3 || !slices.Contains(strings.Split(fields[1], ","), controller) {
			continue
		}
		rel, err := filepath.Rel(root, fields[2])
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			return "", fmt.Errorf("own cgroup %s is not below %s, which is mounted", fields[2], root)
		}
		return filepath.Join(mount, rel), nil
	}
	return "", fmt.Errorf("the process is in no cgroup of %s", hierarchy(controller))
}

// cgroupMount returns where the hierarchy of a v1 controller, or v2 for "", is
// mounted and which cgroup is its root.
// Source: proc_pid_mountinfo(5).
func cgroupMount(controller string) (mount, root string, err error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		sep := slices.Index(fields, "-")
		if sep < 6 || sep+3 >= len(fields) {
			continue
		}
		is := fields[sep+1] == "cgroup2"
		if controller != "" {
			is = fields[sep+1] == "cgroup" && slices.Contains(strings.Split(fields[sep+3], ","), controller)
		}
		if is {
			return fields[4], fields[3], nil
		}
	}
	return "", "", errors.Join(fmt.Errorf("%s is not mounted", hierarchy(controller)), lines.Err())
}

func hierarchy(controller string) string {
	if controller == "" {
		return "cgroup v2"
	}
	return "the " + controller + " controller of cgroup v1"
}
