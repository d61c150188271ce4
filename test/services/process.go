// Package services starts the real third-party parts that gpuqd needs, RabbitMQ,
// Redis and a MongoDB-wire server, as ordinary processes on private ports and
// directories. Tests and the local cluster share it.
package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one server process. It leads a process group of its own, so that
// what it forks can be ended with it. Its output is appended to LogPath.
type Process struct {
	Name    string
	Path    string   // the program
	Args    []string // without the program
	Env     []string // added to the caller's environment
	Dir     string   // working directory; "" is the caller's
	LogPath string
	// Orphan lets the process outlive its parent. Tests leave it false: then the
	// kernel ends the server with a test binary that was killed.
	Orphan bool
	// Ready returns nil once the server answers; nil is ready at once.
	Ready func(context.Context) error

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has been waited for
	err  error         // how it ended; valid once done is closed
}

// Start starts the process and waits until it is ready, it exits, or ctx ends.
// It may be called again after the process has ended.
func (p *Process) Start(ctx context.Context) error {
	if err := p.launch(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	if p.Ready == nil {
		return nil
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := p.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended before it was ready (%v); its log is %s and ends with:\n%s",
				p.Name, p.Err(), p.LogPath, lastLines(p.LogPath))
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, whose log is %s: %w (last: %w)", p.Name, p.LogPath, context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// lastLines returns the end of a log, for an error about its process: tests
// remove the log with their directory.
func lastLines(path string) string {
	const most = 2000 // bytes
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

func (p *Process) launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && !isClosed(p.done) {
		return errors.New("it is running already")
	}
	if err := os.MkdirAll(filepath.Dir(p.LogPath), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Dir = p.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !p.Orphan {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	p.cmd, p.done, p.err = cmd, done, nil
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(done)
	}()
	return nil
}

// Pid returns the process ID, or 0 before the first start.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Running reports whether the process was started and has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && !isClosed(p.done)
}

// Done is closed when the process has ended; nil before the first start.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// Err says how the process ended; nil while it runs or when it exited 0.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Kill ends the process group with SIGKILL and waits for the process.
func (p *Process) Kill() { p.end(syscall.SIGKILL, 0) }

// Stop sends SIGTERM to the process, then after grace SIGKILL to its group, and
// waits for the process.
func (p *Process) Stop(grace time.Duration) { p.end(syscall.SIGTERM, grace) }

func (p *Process) end(sig syscall.Signal, grace time.Duration) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	if sig == syscall.SIGTERM && !isClosed(done) {
		_ = cmd.Process.Signal(sig) // ended meanwhile: the wait below sees it
		select {
		case <-done:
		case <-time.After(grace):
		}
	}
	// The group can outlive its leader; an empty group is no error to us.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	<-done
}

// Signal sends sig to the process group (SIGSTOP and SIGCONT freeze and thaw
// the server). After SIGSTOP it returns when all of the group stands still: on a
// busy machine some threads run on for a while, and would still answer.
func (p *Process) Signal(sig syscall.Signal) error {
	pid := p.Pid()
	if pid == 0 {
		return fmt.Errorf("signal %s: it was never started", p.Name)
	}
	if err := syscall.Kill(-pid, sig); err != nil || sig != syscall.SIGSTOP {
		return err
	}
	for end := time.Now().Add(stopWait); ; time.Sleep(time.Millisecond) {
		running, err := runningThreads(pid)
		if err != nil || running == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("freeze %s: %d of its threads run on after %s", p.Name, running, stopWait)
		}
	}
}

// stopWait bounds the wait for a thread that is in the kernel.
const stopWait = 30 * time.Second

// runningThreads counts the threads of a process group that a SIGSTOP has not
// stopped yet.
func runningThreads(group int) (n int, err error) {
	tasks, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended
		}
		// pid (name) state ppid pgrp ...: proc_pid_stat(5)
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 2 && fields[2] == strconv.Itoa(group) && !strings.Contains("TtZX", fields[0]) {
			n++
		}
	}
	return n, nil
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
