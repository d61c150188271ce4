package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// markerEnv is in the environment of every server and daemon of a cluster and
// names its directory. Shims and commands do not inherit it; they are known by
// the journals of this cluster's workers.
const markerEnv = "GPUQ_CLUSTER"

// Marker returns that variable with its value, for the environment of a process
// that is to end with the cluster in dir.
func Marker(dir string) string { return markerEnv + "=" + dir }

// finder finds processes of one cluster and of nobody else.
type finder struct {
	marker string   // of servers and daemons; "" finds none of them
	states []string // state directories whose attempts are meant
}

// attempts returns the "<job id>.<attempt>" of every attempt that is meant.
func (f finder) attempts() (map[string]bool, error) {
	keys := make(map[string]bool)
	for _, state := range f.states {
		entries, err := os.ReadDir(filepath.Join(state, "attempts"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for attempts: %w", err)
		}
		for _, e := range entries {
			keys[e.Name()] = true
		}
	}
	return keys, nil
}

// find returns the processes, shims first: a shim that outlived its command
// would record an exit that a dead host never saw.
func (f finder) find() ([]proctree.Process, error) {
	attempts, err := f.attempts()
	if err != nil {
		return nil, err
	}
	all, err := proctree.All()
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var shims, others []proctree.Process
	for pid, stat := range all {
		switch {
		case pid == os.Getpid() || !stat.Alive():
		case f.isShim(pid):
			shims = append(shims, stat.Process)
		case f.isMarked(pid, attempts):
			others = append(others, stat.Process)
		}
	}
	for _, p := range append(shims, others...) {
		below, err := proctree.Descendants(p.PID)
		if err != nil {
			return nil, fmt.Errorf("look for processes: %w", err)
		}
		for _, stat := range below {
			if stat.PID != os.Getpid() {
				others = append(others, stat.Process)
			}
		}
	}
	return append(shims, others...), nil
}

// isShim reports whether a process is a shim of one of the attempts.
func (f finder) isShim(pid int) bool {
	args := procStrings(pid, "cmdline")
	if len(args) < 2 || filepath.Base(args[0]) != "gpuqd-shim" {
		return false
	}
	for _, arg := range args[1:] {
		for _, state := range f.states {
			if strings.HasPrefix(arg, filepath.Join(state, "attempts")+"/") {
				return true
			}
		}
	}
	return false
}

// isMarked reports whether a process is a server of the cluster, or belongs to
// the command of one of the attempts.
func (f finder) isMarked(pid int, attempts map[string]bool) bool {
	var id, attempt string
	for _, v := range procStrings(pid, "environ") {
		if v == f.marker && f.marker != "" {
			return true
		}
		if value, ok := strings.CutPrefix(v, runner.EnvJobID+"="); ok {
			id = value
		}
		if value, ok := strings.CutPrefix(v, runner.EnvAttempt+"="); ok {
			attempt = value
		}
	}
	return id != "" && attempts[id+"."+attempt]
}

// removeCgroups removes what is left of the attempts' cgroups; most have none.
func (f finder) removeCgroups() error {
	attempts, err := f.attempts()
	if err != nil {
		return err
	}
	var errs []error
	for name := range attempts {
		if key, err := runner.ParseKey(name); err == nil {
			errs = append(errs, proctree.FindCgroup(key.CgroupName()).Remove())
		}
	}
	return errors.Join(errs...)
}

// procStrings returns one of the zero-separated lists that /proc has of a
// process, nothing where it cannot be read.
func procStrings(pid int, file string) []string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return nil
	}
	return strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
}

// killAll kills what f finds until nothing is left, and removes the cgroups of
// attempts whose shims can no longer do it.
func (f finder) killAll(ctx context.Context) error {
	for {
		found, err := f.find()
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return f.removeCgroups()
		}
		for _, p := range found {
			_ = proctree.Signal(p, syscall.SIGKILL) // gone already: the next look tells
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d processes of the cluster will not end, process %d (%s) first: %w",
				len(found), found[0].PID, commandName(found[0].PID), context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
