package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

// The second stage's descriptors.
const (
	fdGate   = 3 // a byte releases the command
	fdFailed = 4 // takes "<code> <reason>" where it cannot be executed
)

// execCommand waits to be released, then becomes the command. It returns only
// where that fails.
func execCommand(dir string) int {
	unix.CloseOnExec(fdGate)
	unix.CloseOnExec(fdFailed)
	a, err := runner.OpenAttempt(dir)
	if err != nil {
		return execFailed(126, err.Error())
	}
	in := a.Intent()
	env := in.Environ()
	shim := os.Getppid() // PDEATHSIG has been set: as long as this runs, it lives
	var b [1]byte
	if n, err := unix.Read(fdGate, b[:]); n != 1 || err != nil {
		return statusRefused // discarded, or the shim is gone
	}
	if in.NUMA != nil {
		if err := bind(in.NUMA, nodesDir); err != nil {
			noteFromSecondStage(a, err) // while this is root, who may write there
		}
	}
	if err := become(in, shim); err != nil {
		return execFailed(126, err.Error())
	}
	if err := enter(in); err != nil {
		return execFailed(126, err.Error())
	}
	path, err := lookPath(in.Command[0], env)
	if err != nil {
		return execFailed(127, err.Error())
	}
	resetSignals()
	err = syscall.Exec(path, in.Command, env)
	return execFailed(explain(path, err))
}

func execFailed(code int, reason string) int {
	_, _ = unix.Write(fdFailed, fmt.Appendf(nil, "%d %s", code, reason)) // the shim is gone if it fails
	return code
}

// enter goes to the working directory.
func enter(in *runner.Intent) error {
	dir := in.Dir
	if dir == "" {
		dir = in.Workdir
	}
	if dir == "" {
		dir = "/"
	}
	err := os.Chdir(dir)
	switch {
	case err != nil && dir == in.Workdir:
		return fmt.Errorf("the job's own directory cannot be entered on this host: %w; the operator sees to it that every directory above it may be passed through (chmod +x) by the jobs' users", err)
	case err != nil:
		return fmt.Errorf("the working directory cannot be entered on this host: %w; create it there, or submit with another one", err)
	}
	return nil
}

// lookPath finds a program as a shell does, in the PATH of env.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("there is no program %s on this host: install it there, or correct the path", name)
		}
		return name, nil
	}
	var list string
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			list = value
		}
	}
	found := ""
	for _, dir := range filepath.SplitList(list) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || info.IsDir() {
			continue
		}
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
		found = path
	}
	if found != "" {
		return found, nil // exec says why it cannot be run
	}
	return "", fmt.Errorf("there is no program %q in PATH=%s on this host: install it there, give its full path, or set PATH in the job's environment", name, list)
}

// explain says what to do about a failed exec.
func explain(path string, err error) (code int, reason string) {
	switch {
	case errors.Is(err, unix.ENOENT):
		return 127, path + " is there, but its interpreter or loader is not: check its first line, or build it for this host"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return 126, fmt.Sprintf("%s cannot be executed: %v; make it an executable file (chmod +x) in a place that the job's user may reach", path, err)
	case errors.Is(err, unix.ENOEXEC):
		return 126, path + " is no program this host can run: give a script a first line such as #!/bin/sh, or build it for this machine"
	case errors.Is(err, unix.E2BIG):
		return 126, "the arguments and the environment are too long for one command: put them into a file"
	}
	return 126, fmt.Sprintf("%s cannot be executed: %v", path, err)
}
