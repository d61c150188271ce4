package campaign

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// living is one attempt whose shim runs now.
type living struct {
	key    runner.Key
	worker string
	shim   proctree.Process
}

// tree returns what the shim has started: the command and all it forked.
func (l living) tree() ([]proctree.Process, error) {
	return proctree.Find(proctree.Mark{Environ: []string{
		runner.EnvJobID + "=" + string(l.key.JobID),
		runner.EnvAttempt + "=" + strconv.Itoa(l.key.Attempt),
	}})
}

// attempts returns the living attempts of the cluster's workers, in the order of
// their keys.
func (r *rig) attempts() ([]living, error) {
	all, err := proctree.All()
	if err != nil {
		return nil, fmt.Errorf("look for shims: %w", err)
	}
	var list []living
	for pid, stat := range all {
		if !stat.Alive() {
			continue
		}
		args := strings.Split(readProc(pid, "cmdline"), "\x00")
		if filepath.Base(args[0]) != "gpuqd-shim" {
			continue
		}
		for _, worker := range r.Workers() {
			prefix := filepath.Join(r.StateDir(worker), "attempts") + "/"
			for _, arg := range args[1:] {
				name, ok := strings.CutPrefix(arg, prefix)
				if key, err := runner.ParseKey(name); ok && err == nil {
					list = append(list, living{key: key, worker: worker, shim: stat.Process})
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b living) int {
		if c := strings.Compare(a.key.String(), b.key.String()); c != 0 {
			return c
		}
		return a.shim.PID - b.shim.PID // the shim's child, before its exec, looks the same
	})
	return slices.CompactFunc(list, func(a, b living) bool { return a.key == b.key }), nil
}

// readProc returns a file of a process, without final zeros; "" where it is gone.
func readProc(pid int, name string) string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	if err != nil {
		return ""
	}
	return string(bytes.TrimRight(data, "\x00"))
}
