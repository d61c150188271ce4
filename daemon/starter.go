package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"gpuqd/daemon/account"
	"gpuqd/daemon/config"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/systemd"
)

// accounts finds whom a submitter's jobs run as.
type accounts func(ctx context.Context, submitter string) (*runner.Account, error)

// newStarter returns how attempts are started here, and who they run as; nil is the
// daemon's own user. It writes into cfg which starter "auto" came to be.
func newStarter(ctx context.Context, cfg *config.Config) (runner.Starter, accounts, error) {
	r := &cfg.Runner
	if r.Starter == config.StarterAuto {
		r.Starter = config.StarterProcess
		if startedBySystemd() {
			r.Starter = config.StarterSystemd
		}
	}
	if r.Starter == config.StarterProcess {
		starter, err := runner.NewProcessStarter(r.Shim)
		return starter, nil, err
	}
	starter, err := systemd.New(ctx, r.Shim)
	if err != nil {
		return nil, nil, err
	}
	if err := openWay(cfg.Host.StateDir, r.WorkRoot); err != nil {
		return nil, nil, errors.Join(err, starter.Close())
	}
	who := account.New(account.Rules{Accounts: r.Accounts, Default: r.AccountDefault, AllowRoot: r.AllowRoot})
	return starter, who.Resolve, nil
}

// openWay lets the jobs' accounts pass through, not look into, gpuqd's own
// directories above theirs, which the process starter makes for one user alone.
// What is private in them says so itself. A work root elsewhere is the operator's.
func openWay(state, workRoot string) error {
	dirs := []string{state}
	if workRoot == "" {
		dirs = append(dirs, filepath.Join(state, "work"))
	}
	for _, dir := range dirs {
		if err := os.Chmod(dir, 0o711); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("let the jobs' accounts pass through: %w", err)
		}
	}
	return nil
}

// startedBySystemd reports whether this process is a service of the system's
// systemd, and not only somewhere below one, such as a terminal's.
//
// Source: systemd.exec(5), $SYSTEMD_EXEC_PID (since 248) and $INVOCATION_ID.
func startedBySystemd() bool {
	if os.Geteuid() != 0 || os.Getenv("INVOCATION_ID") == "" {
		return false // a service of a user cannot start units of the system
	}
	pid, known := os.LookupEnv("SYSTEMD_EXEC_PID")
	if !known {
		return os.Getppid() == 1
	}
	return pid == strconv.Itoa(os.Getpid())
}
