package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

// become makes the second stage the account that the command runs as, and makes
// its directory. An intent without an account leaves all as it is: the command
// runs as the shim's user, and the starter has made the directory.
func become(in *runner.Intent, shim int) error {
	account := in.Account
	switch {
	case account == nil:
		return nil
	case account.Problem != "":
		return errors.New(account.Problem)
	case account.UID == 0 && !account.AllowRoot:
		return fmt.Errorf("jobs do not run as root here (account %s): submit as yourself, or have the operator of this host map the submitter to another account in runner.accounts", account.Name)
	}
	if err := resetOOMScore(); err != nil {
		return err
	}
	// Whoever opens /dev/stdout or /dev/stderr by name is asked for rights to the
	// pipe, which is the shim's. Both are one.
	if err := unix.Fchown(unix.Stdout, account.UID, account.GID); err != nil {
		return fmt.Errorf("give the output to account %s: %w", account.Name, err)
	}
	made := makeWorkdir(in)
	if err := dropTo(account); err != nil {
		return fmt.Errorf("become account %s: %w", account.Name, err)
	}
	// The kernel forgets PDEATHSIG when credentials change. Between the two the
	// shim may have gone, and then nobody would guard the command.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tie the command to its shim: %w", err)
	}
	if os.Getppid() != shim {
		return errors.New("its shim is gone")
	}
	if made != nil {
		// A file server that takes nothing from root may take it from the account.
		if err := os.MkdirAll(in.Workdir, 0o700); err != nil {
			return fmt.Errorf("the job's own directory cannot be made on this host: %w (and as root: %w); the operator sets runner.work_root to a place that the jobs' users may write to", err, made)
		}
	}
	return checkWorkdir(in)
}

// checkWorkdir refuses a directory, or a link, that another account has put where
// the job's own is to be: whose it is, decides what the job finds there. Below a work
// root that users may write to, anybody who knows the job's ID can. Root's is the
// operator's doing.
func checkWorkdir(in *runner.Intent) error {
	var stat unix.Stat_t
	if in.Workdir == "" || unix.Lstat(in.Workdir, &stat) != nil {
		return nil // entering it, or the command, tells
	}
	if owner := int(stat.Uid); owner != in.Account.UID && owner != 0 {
		return fmt.Errorf("the job's own directory %s belongs to UID %d, and the job runs as %s (UID %d): the operator finds out who made it, and removes it or gives it to the account",
			in.Workdir, owner, in.Account.Name, in.Account.UID)
	}
	return nil
}

// dropTo changes groups, group and user, in the only order that works. All three
// calls act on every thread.
func dropTo(a *runner.Account) error {
	if err := syscall.Setgroups(a.Groups); err != nil {
		return fmt.Errorf("set groups %v: %w", a.Groups, err)
	}
	if err := syscall.Setgid(a.GID); err != nil {
		return fmt.Errorf("set group %d: %w", a.GID, err)
	}
	if err := syscall.Setuid(a.UID); err != nil {
		return fmt.Errorf("set user %d: %w", a.UID, err)
	}
	return nil
}

// resetOOMScore takes back what spares the shim from the kernel when memory runs
// out. With CAP_SYS_RESOURCE it becomes the floor too, so that the command cannot
// spare itself.
func resetOOMScore() error {
	const path = "/proc/self/oom_score_adj"
	score, err := os.ReadFile(path)
	if err == nil && bytes.HasPrefix(score, []byte("-")) {
		err = os.WriteFile(path, []byte("0"), 0)
	}
	if err != nil {
		return fmt.Errorf("let the kernel choose the command when memory runs out: %w", err)
	}
	return nil
}

// makeWorkdir makes the job's directory and gives it to the account; what was there
// before, and is not as this makes it, keeps its owner, and checkWorkdir looks at
// that. The directories above are made so that users can pass through but not look.
//
// Somebody may be able to write where it is made. So it is made as a new entry,
// which no link can stand in for, and given away by a descriptor of what is
// really there: an empty directory of ours, else it is nobody's business.
func makeWorkdir(in *runner.Intent) error {
	if in.Workdir == "" {
		return nil
	}
	parent, name := filepath.Split(filepath.Clean(in.Workdir))
	if err := os.MkdirAll(parent, 0o711); err != nil {
		return err
	}
	above, err := unix.Open(parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: parent, Err: err}
	}
	defer unix.Close(above)
	err = unix.Mkdirat(above, name, 0o700)
	there := errors.Is(err, unix.EEXIST)
	if err != nil && !there {
		return &fs.PathError{Op: "mkdir", Path: in.Workdir, Err: err}
	}
	fd, err := unix.Openat(above, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case err != nil && there:
		return nil // a link, or closed to root: what it is, entering it tells
	case err != nil:
		return &fs.PathError{Op: "open", Path: in.Workdir, Err: err}
	}
	dir := os.NewFile(uintptr(fd), in.Workdir)
	defer dir.Close()
	if err := give(dir, in.Account); err != nil && !there {
		return err
	}
	return nil
}

// give changes the owner of a directory that was made just now, or by an earlier
// attempt that came no further.
func give(dir *os.File, a *runner.Account) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	entries, err := dir.Readdirnames(1)
	if !ok || int(stat.Uid) != os.Geteuid() || info.Mode().Perm() != 0o700 || len(entries) > 0 {
		return fmt.Errorf("%s was exchanged while it was made", dir.Name())
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return dir.Chown(a.UID, a.GID)
}
