package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

// ledgerRestored makes the ledger of the settings, which was put back from a
// backup, another ledger, and says what it did. It holds the lock of this host's
// state directory meanwhile: its own gpuqd is stopped, and does not start.
func ledgerRestored(ctx context.Context, path string, out io.Writer) error {
	cfg, err := config.Load(path)
	if err != nil {
		return errSettings{err}
	}
	password, err := ledgerPassword(cfg.Ledger, path)
	if err != nil {
		return errSettings{err}
	}
	journal, err := runner.OpenJournal(cfg.Host.StateDir)
	if errors.Is(err, runner.ErrLocked) {
		return errors.New("gpuqd runs on this host: stop it on every host, put the copy of the ledger in its place again, and repeat this")
	}
	if err != nil {
		return err
	}
	defer journal.Close()
	if err := checkCopy(cfg.Ledger); err != nil {
		return err
	}
	store, err := openStore(ctx, cfg.Ledger, password)
	if err != nil {
		return err
	}
	watch := max(2*cfg.Lease.Renew.Std(), watchMin)
	done, err := ledger.Restore(ctx, store, ledger.Restoration{
		Who: userName(), Host: cfg.Host.Name, Now: func() job.Time { return job.At(time.Now()) },
		Watch: func(ctx context.Context) error {
			fmt.Fprintf(out, "watching the ledger for %s, to see that no gpuqd works with it\n", watch)
			return pause(ctx, watch)
		},
	})
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	_, err = io.WriteString(out, restoredText(done))
	return err
}

// watchMin is longer than a gpuqd waits that is refused a renewal, since its session
// is older here than it knows: it tries again every few seconds, and probes the
// ledger meanwhile. The others write at least once in twice the renewal interval.
const watchMin = 10 * time.Second

// ledgerPassword returns the ledger's password. A credential of gpuqd.service is
// looked for beside the settings, whence the unit loads it, where there is no unit.
func ledgerPassword(l config.Ledger, settings string) (string, error) {
	if os.Getenv("CREDENTIALS_DIRECTORY") == "" {
		dir, err := filepath.Abs(filepath.Dir(settings))
		if err != nil {
			return "", err
		}
		if err := os.Setenv("CREDENTIALS_DIRECTORY", dir); err != nil {
			return "", err
		}
	}
	return l.Secret()
}

// checkCopy refuses a SQLite ledger whose file is not there: opening it would make
// an empty one.
func checkCopy(l config.Ledger) error {
	if l.Kind != config.LedgerSQLite {
		return nil
	}
	_, err := os.Stat(l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no ledger at %s: put the copy in its place first", l.Path)
	}
	return err
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restoredText says what was done, and what is left to do.
func restoredText(r *ledger.Restored) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ledger %s is ledger %s now\n", r.Was, r.ID)
	fmt.Fprintf(&b, "sessions ended: %d%s\n", len(r.Sessions), named(r.Sessions))
	var again, killed []string
	for _, j := range r.Requeued {
		if j.State == job.Killed {
			killed = append(killed, string(j.ID))
		} else {
			again = append(again, string(j.ID))
		}
	}
	fmt.Fprintf(&b, "jobs queued again, which were claimed or running: %d%s\n", len(again), named(again))
	if len(killed) > 0 {
		fmt.Fprintf(&b, "jobs killed, as somebody had asked: %d%s\n", len(killed), named(killed))
	}
	if len(r.Drained) > 0 {
		fmt.Fprintf(&b, "drained in this copy, or a device of theirs: %d%s\n", len(r.Drained), named(r.Drained))
	}
	b.WriteString("start gpuqd on every host\n")
	return b.String()
}

// namedMost bounds what a line lists.
const namedMost = 20

// named is a list behind its count.
func named(list []string) string {
	switch n := len(list); {
	case n == 0:
		return ""
	case n > namedMost:
		return fmt.Sprintf(" (%s, and %d more)", strings.Join(list[:namedMost], ", "), n-namedMost)
	}
	return " (" + strings.Join(list, ", ") + ")"
}
