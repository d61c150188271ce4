package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// layout knows where a cluster's files are.
type layout struct {
	dir string
	// sockets is dir, unless the names in it would be too long for a socket.
	sockets string
}

// socketPathMax is the longest path of a Unix socket that Linux takes.
// Source: unix(7), sun_path without its final zero.
const socketPathMax = 107

func newLayout(dir string) (layout, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return layout{}, fmt.Errorf("find the cluster: %w", err)
	}
	l := layout{dir: dir, sockets: dir}
	if len(filepath.Join(l.journalSockets(workerName(workersMax)), longestSocket)) <= socketPathMax {
		return l, nil
	}
	// The name is a function of the directory, so that every program finds it.
	sum := sha256.Sum256([]byte(dir))
	l.sockets = filepath.Join("/tmp", fmt.Sprintf("gpuq-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6])))
	return l, nil
}

const socketName = "gpuqd.sock"

// longestSocket is the longest name of a socket of a worker's: one of journald's.
const longestSocket = "io.systemd.journal"

// make makes the directories that do not belong to a single service.
func (l layout) make() error {
	for _, dir := range []string{l.path("secrets"), l.path("run"), l.path("log"), l.path("work")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare the cluster: %w", err)
		}
	}
	if l.sockets == l.dir {
		return nil
	}
	// Below /tmp anybody could have been there first.
	err := os.Mkdir(l.sockets, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("prepare the cluster: %w", err)
	}
	info, err := os.Lstat(l.sockets)
	if err != nil {
		return fmt.Errorf("prepare the cluster: %w", err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(owner.Uid) != os.Getuid() || info.Mode().Perm() != 0o700 {
		return fmt.Errorf("prepare the cluster: %s is not a directory of yours alone: remove it", l.sockets)
	}
	return nil
}

// path returns a path below the cluster's directory.
func (l layout) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

func (l layout) log(unit string) string    { return l.path("log", unit+".log") }
func (l layout) settings() string          { return l.path("cluster.json") }
func (l layout) gpuqctl() string           { return l.path("gpuqctl.toml") }
func (l layout) workRoot() string          { return l.path("work") }
func (l layout) sqlite() string            { return l.path("ledger.db") }
func (l layout) worker(name string) string { return l.path(name) }
func (l layout) state(name string) string  { return l.path(name, "state") }
func (l layout) config(name string) string { return l.path(name, "gpuqd.toml") }
func (l layout) supervisor() string        { return filepath.Join(l.sockets, "supervisor.sock") }

// journalSockets is where a worker's journald has its sockets, and journal where it
// has its files.
func (l layout) journalSockets(worker string) string {
	return filepath.Join(l.sockets, worker, "journald")
}
func (l layout) journal(worker string) string { return l.path(worker, "journal") }

func (l layout) socket(worker string) string {
	if l.sockets == l.dir {
		return l.path(worker, socketName)
	}
	return filepath.Join(l.sockets, worker+".sock")
}

// remove deletes all files of the cluster. It refuses a directory that no
// cluster made.
func (l layout) remove() error {
	if _, err := os.Stat(l.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(l.settings()); err != nil {
		// An up that got nowhere leaves an empty directory; another is not ours.
		if err := os.Remove(l.dir); err != nil {
			return fmt.Errorf("%s has no cluster.json and is left alone: %w", l.dir, err)
		}
		return nil
	}
	if l.sockets != l.dir {
		if err := os.RemoveAll(l.sockets); err != nil {
			return fmt.Errorf("remove the cluster: %w", err)
		}
	}
	// The settings go last: what is left after an error can be removed again.
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("remove the cluster: %w", err)
	}
	for _, e := range entries {
		if l.path(e.Name()) == l.settings() {
			continue
		}
		if err := os.RemoveAll(l.path(e.Name())); err != nil {
			return fmt.Errorf("remove the cluster: %w", err)
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove the cluster: %w", err)
	}
	return nil
}

func workerName(n int) string { return "worker_" + strconv.Itoa(n) }

// workerNumber returns which worker a unit is, from 1.
func workerNumber(unit string) (n int, ok bool) {
	number, ok := strings.CutPrefix(unit, "worker_")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(number)
	return n, err == nil
}

func rabbitName(n int) string { return "rabbit_" + strconv.Itoa(n) }

const (
	redisName   = "redis"
	mongodbName = "mongodb"
)

// LogPath returns the log of a server or daemon of the cluster in dir, or of its
// "supervisor".
func LogPath(dir, unit string) string { return layout{dir: dir}.log(filepath.Base(unit)) }

// JournalPath returns the directory of a worker's journal in the cluster in dir,
// which only one that is watched has.
func JournalPath(dir, worker string) string { return layout{dir: dir}.journal(filepath.Base(worker)) }
