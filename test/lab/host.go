package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Host is one host of a lab. Its methods may be called at the same time.
type Host struct {
	Name string

	lab    *Lab
	config string // of ssh

	mu     sync.Mutex
	master *exec.Cmd     // holds the connection that commands share; guarded by mu
	ended  chan struct{} // closed when master has; guarded by mu
}

// Result is how a command on a host ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// ErrUnreachable means that ssh did not get through to the host, or lost it.
var ErrUnreachable = errors.New("the host cannot be reached")

// sshFailed is the exit code of ssh for its own failures.
const sshFailed = 255

// Run runs a command line as root, in the host's shell. An exit code is no error.
func (h *Host) Run(ctx context.Context, command string) (Result, error) {
	return h.RunInput(ctx, nil, command)
}

// RunInput runs a command line that reads stdin.
func (h *Host) RunInput(ctx context.Context, stdin io.Reader, command string) (Result, error) {
	h.connect(ctx)
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "ssh", "-F", h.config, "-S", h.socket(), "-o", "ControlMaster=no", "root@"+h.Name, "--", command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("on %s, %q: %w", h.Name, command, context.Cause(ctx))
	case errors.As(err, &exit) && exit.ExitCode() != sshFailed:
		r.Code = exit.ExitCode()
		return r, nil
	case err != nil:
		return r, fmt.Errorf("on %s, %q: %w: %w: %s", h.Name, command, ErrUnreachable, err, strings.TrimSpace(r.Stderr))
	}
	return r, nil
}

// Output runs a command line that has to succeed, and returns what it printed.
func (h *Host) Output(ctx context.Context, command string) (string, error) {
	r, err := h.Run(ctx, command)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("on %s, %q: exit code %d: %s%s", h.Name, command, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout, err
}

// Write writes a file of root's on the host, replacing it as a whole.
func (h *Host) Write(ctx context.Context, path string, content []byte, mode os.FileMode) error {
	return h.write(ctx, path, bytes.NewReader(content), mode)
}

// Push copies a file of this machine to the host.
func (h *Host) Push(ctx context.Context, from, path string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return h.write(ctx, path, file, info.Mode().Perm())
}

func (h *Host) write(ctx context.Context, path string, content io.Reader, mode os.FileMode) error {
	r, err := h.RunInput(ctx, content, fmt.Sprintf("set -e; umask 077; mkdir -p -m 755 %q; cat >%q.part; chmod %o %q.part; sync %q.part; mv %q.part %q",
		filepath.Dir(path), path, mode, path, path, path, path))
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("write %s on %s: exit code %d: %s", path, h.Name, r.Code, r.Stderr)
	}
	return err
}

// Kill cuts the host's power: what was not synced is lost.
func (h *Host) Kill(ctx context.Context) error {
	err := h.lab.run(ctx, nil, "kill", h.Name)
	h.disconnect()
	return err
}

// Start boots the host and returns when it has booted.
func (h *Host) Start(ctx context.Context) error { return h.lab.run(ctx, nil, "start", h.Name) }

// Address is the host's in the network of its lab, where the other hosts reach it.
func (h *Host) Address() (string, error) {
	text, err := os.ReadFile(filepath.Join(h.lab.dir, "hosts", h.Name, "address"))
	return strings.TrimSpace(string(text)), err
}

// BootID names this boot of the host's; that of a container is made by its
// systemd alone, since the kernel is another's.
func (h *Host) BootID(ctx context.Context) (string, error) {
	out, err := h.Output(ctx, "cat /proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(out), err
}

// Reboot tells systemd to reboot, and returns as soon as it has been told.
func (h *Host) Reboot(ctx context.Context) error {
	_, err := h.Output(ctx, "systemctl --no-block reboot")
	return err
}

// WaitBooted returns when the host is up under another boot ID than the old one.
func (h *Host) WaitBooted(ctx context.Context, old string) error {
	for {
		now, err := h.BootID(ctx)
		if err == nil && now != old {
			var state Result
			if state, err = h.Run(ctx, "systemctl is-system-running --wait"); err == nil && settled(state.Stdout) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to boot: %w (last: %w)", h.Name, context.Cause(ctx), err)
		case <-time.After(200 * time.Millisecond):
			if err != nil {
				h.disconnect()
			}
		}
	}
}

func settled(state string) bool {
	state = strings.TrimSpace(state)
	return state == "running" || state == "degraded"
}

func (h *Host) socket() string { return filepath.Join(h.lab.masters, h.Name) }

// connect opens the connection that commands share, if none is open; opening one
// for each would cost more than most commands. Where it cannot be opened, the
// command's own ssh tries and says why.
func (h *Host) connect(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.master != nil {
		select {
		case <-h.ended:
		default:
			return
		}
	}
	_ = os.Remove(h.socket()) // of one that was ended
	master := exec.Command("ssh", "-F", h.config, "-S", h.socket(), "-o", "ControlMaster=yes", "-o", "ServerAliveInterval=2", "-N", "root@"+h.Name)
	master.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if master.Start() != nil {
		return
	}
	ended := make(chan struct{})
	h.master, h.ended = master, ended
	go func() {
		_ = master.Wait() // however it ends, the next command opens another
		close(ended)
	}()
	for {
		if _, err := os.Stat(h.socket()); err == nil {
			return
		}
		select {
		case <-ended:
			return
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// disconnect closes that connection.
func (h *Host) disconnect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.master == nil {
		return
	}
	_ = h.master.Process.Kill() // it may have ended
	<-h.ended
	h.master = nil
}
