package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets every local user connect. What a user may do is decided by
// the credentials that the kernel gives with each connection, not by who can
// open the file: a group would have to be made and kept on every host, and says
// less, since one who may connect would still have to be told from another.
// Where only some may use the queue, restrict the directory: it is root's.
const socketMode = 0o666

// listen opens the socket. It holds a lock on the directory meanwhile, so that
// of two daemons that find a dead one's file only one replaces it.
func listen(path string) (*net.UnixListener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("open the directory of the control socket: %w: create it, or set control.socket", err)
	}
	defer dir.Close() // releases the lock
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock the directory of %s: %w", path, err)
	}
	if err := clearDead(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(fmt.Errorf("open the control socket to users: %w", err), l.Close())
	}
	return l, nil
}

// clearDead removes the socket file of a daemon that is gone.
func clearDead(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: remove it, or set control.socket", path)
	}
	// A dead daemon's socket refuses at once. A living one accepts, or, with a
	// full backlog, blocks: only the refusal is proof of death.
	nc, err := net.DialTimeout("unix", path, 2*time.Second)
	if err == nil {
		_ = nc.Close() // it was opened only to be told from a dead one
		return fmt.Errorf("another daemon answers on %s: stop it, or give this one another control.socket", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out whether a daemon answers on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the control socket of a daemon that is gone: %w", err)
	}
	return nil
}

// peerUID returns the user ID of the process that connected.
func peerUID(nc *net.UnixConn) (uint32, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var (
		cred    *unix.Ucred
		credErr error
	)
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, fmt.Errorf("read the peer's credentials: %w", credErr)
	}
	return cred.Uid, nil
}

// userName returns the local user's name, or "uid:N" where the host has none
// for the ID. No account can have that name, so it is never another's.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.LookupId(id)
	if err != nil || u.Username == "" {
		return "uid:" + id
	}
	return u.Username
}
