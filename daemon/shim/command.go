package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// command is the attempt's command between fork and exec. Its PID must be on
// disk before its first instruction runs, but is known only after the fork: so
// the shim forks itself as "gpuqd-shim exec", which waits for one byte before it
// executes the command in its place.
type command struct {
	pid    int
	cgroup proctree.Cgroup // "" for none
	gate   *os.File        // a byte here releases the command; its closing discards it
	failed *os.File        // what "gpuqd-shim exec" could not do; nothing once it has executed
	// failure has the same after release, and is closed when the command has
	// been executed or has ended.
	failure chan execFailure
}

// execFailure says why a command could not be executed.
type execFailure struct {
	code   int // 127 not found, 126 otherwise, as in a shell
	reason string
}

// fork starts the second stage, in a session and, where one can be had, a cgroup
// of its own. PDEATHSIG ends it with the shim, and stays across the exec.
func fork(a *runner.Attempt, out *output, p place) (*command, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	gateRead, gateWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gateRead.Close()
	failRead, failWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer failWrite.Close()
	cmd := &command{gate: gateWrite, failed: failRead, failure: make(chan execFailure, 1)}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), out.write.Fd(), out.write.Fd(), gateRead.Fd(), failWrite.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	argv := []string{"gpuqd-shim", "exec", a.Dir()}
	if p.parent != "" {
		if cmd.pid, cmd.cgroup, err = forkInCgroup(argv, attr, p.parent, a.Key().CgroupName()); err != nil {
			note("no cgroup for this attempt, the process tree serves instead: %v", err)
		}
	}
	if cmd.pid == 0 {
		attr.Sys.UseCgroupFD = false
		if cmd.pid, err = syscall.ForkExec(shimPath, argv, attr); err != nil {
			return nil, err
		}
	}
	out.writeEndGiven()
	return cmd, nil
}

// shimPath names this very binary, also when an upgrade has replaced it.
const shimPath = "/proc/self/exe"

// forkInCgroup forks into a new cgroup, so that the command is never outside it.
func forkInCgroup(argv []string, attr *syscall.ProcAttr, parent proctree.Cgroup, name string) (int, proctree.Cgroup, error) {
	cgroup, err := parent.Below(name)
	if err != nil {
		return 0, "", err
	}
	pid := 0
	dir, err := os.Open(string(cgroup))
	if err == nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
		pid, err = syscall.ForkExec(shimPath, argv, attr)
		_ = dir.Close() // read only
	}
	if err != nil {
		return 0, "", errors.Join(err, cgroup.Remove())
	}
	return pid, cgroup, nil
}

// release lets the command run. It does not wait for the exec, which can hang on
// a dead file system while the attempt must be guarded already.
func (c *command) release() {
	_, _ = c.gate.Write([]byte{1}) // fails only where it was killed: then wait tells
	_ = c.gate.Close()
	go func() {
		defer close(c.failure)
		text, _ := io.ReadAll(c.failed) // ends when the exec, or the end, closes the other end
		_ = c.failed.Close()
		code, reason, _ := strings.Cut(string(text), " ")
		if n, err := strconv.Atoi(code); err == nil {
			c.failure <- execFailure{n, reason}
		}
	}()
}

// discard ends the second stage without running the command.
func (c *command) discard() {
	_ = c.gate.Close()
	_ = c.failed.Close()
}
