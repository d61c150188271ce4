package campaign

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// isolatedEnv is set in the process that has a mount namespace of its own.
const isolatedEnv = "GPUQ_CAMPAIGN_ISOLATED"

// Isolated reports whether this process may mount small disks: nobody else sees
// them, and they are gone with its last process.
func Isolated() bool { return os.Getenv(isolatedEnv) != "" }

// Isolate runs this program again, with the same arguments, in a mount namespace
// of its own, and returns its exit code. ErrNoNamespace says that it was not run:
// this user may not.
func Isolate() (code int, err error) {
	if os.Getuid() != 0 {
		return 0, ErrNoNamespace
	}
	// The kernel ties the signal below to the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoNamespace, err)
	}
	passed := make(chan os.Signal, 1) // the first one ends it
	signal.Notify(passed, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(passed)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-passed:
			_ = cmd.Process.Signal(sig) // ended meanwhile: the wait tells
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, err
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// ErrNoNamespace means that this user may not have a mount namespace.
var ErrNoNamespace = errors.New("a mount namespace is not to be had: disks cannot be filled (run as root)")
