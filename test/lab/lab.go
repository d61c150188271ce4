package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Lab is a set of hosts on one bridge.
type Lab struct {
	script   string
	env      []string
	dir      string // state; made by New, removed by Close
	masters  string // sockets of ssh
	lock     *os.File
	existing bool // somebody else's: Close leaves it
	hosts    map[string]*Host
}

// Kind is what a host is made of.
type Kind string

// Container hosts share this machine's kernel and its cgroup version, and boot in
// a second. Machine hosts are emulated where there is no KVM: slow, but with a
// kernel and cgroup v2 of their own.
const (
	Container Kind = "nspawn"
	Machine   Kind = "qemu"
)

// CacheDefault is where base systems and Debian packages are kept between runs:
// below no home, which the proxy's user could not enter.
const CacheDefault = "/var/cache/gpuq-lab"

// New makes a lab without hosts, whose base system has these Debian packages beside
// the usual ones. GPUQ_LAB_CACHE names another cache.
func New(packages ...string) (*Lab, error) {
	script, err := scriptPath()
	if err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		return nil, errors.New("hosts need root: namespaces, loop devices and a bridge are made. Run this as root")
	}
	cache := os.Getenv("GPUQ_LAB_CACHE")
	if cache == "" {
		cache = CacheDefault
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the lab's cache: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the lab's cache: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another lab of %s runs: wait until it is down: %w", cache, err)
	}
	if err := endEarlier(script, cache); err != nil {
		lock.Close()
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gpuq-lab-")
	if err == nil {
		err = os.Chmod(dir, 0o711) // the proxy for packages is another user
	}
	if err == nil {
		err = os.WriteFile(currentPath(cache), []byte(dir), 0o644)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	l := &Lab{script: script, dir: dir, lock: lock, hosts: map[string]*Host{}}
	l.masters = filepath.Join(dir, "masters")
	l.env = append(os.Environ(), "LAB_DIR="+dir, "LAB_CACHE="+cache, "LAB_PACKAGES="+strings.Join(packages, ","))
	if err := os.Mkdir(l.masters, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make the lab's directory: %w", err), l.Close())
	}
	if err := l.run(context.Background(), nil, "check"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// currentPath names the directory of the lab that uses a cache, or of one that was
// killed before it could end its hosts.
func currentPath(cache string) string { return filepath.Join(cache, "current") }

// endEarlier ends the hosts of a lab that could not do so itself. The lock says
// that nobody uses it.
func endEarlier(script, cache string) error {
	dir, err := os.ReadFile(currentPath(cache))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for an earlier lab: %w", err)
	}
	if _, err := os.Stat(string(dir)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	earlier := &Lab{script: script, env: append(os.Environ(), "LAB_DIR="+string(dir), "LAB_CACHE="+cache)}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := earlier.run(ctx, nil, "down"); err != nil {
		return fmt.Errorf("end the hosts of an earlier run: %w", err)
	}
	return nil
}

// Existing returns a lab that another program keeps: script answers to start,
// stop, kill, partition and heal as lab.sh does, config is its configuration of
// ssh. Up and Close neither make nor end hosts of it.
func Existing(script, config string, hosts ...string) (*Lab, error) {
	dir, err := os.MkdirTemp("", "gpuq-lab-")
	if err != nil {
		return nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	l := &Lab{script: script, dir: dir, masters: dir, existing: true, hosts: map[string]*Host{}, env: os.Environ()}
	for _, name := range hosts {
		l.hosts[name] = &Host{Name: name, lab: l, config: config}
	}
	return l, nil
}

// Up makes hosts of one kind, and returns when all have booted. The first ever
// makes a base system, which takes minutes and is kept.
func (l *Lab) Up(ctx context.Context, kind Kind, names ...string) error {
	if l.existing {
		return nil
	}
	for _, name := range names {
		l.hosts[name] = &Host{Name: name, lab: l, config: l.Config()}
	}
	return l.run(ctx, []string{"LAB_KIND=" + string(kind)}, append([]string{"up"}, names...)...)
}

// Config is the path of the configuration with which ssh reaches the hosts by name.
func (l *Lab) Config() string { return filepath.Join(l.dir, "ssh", "config") }

// Host returns a host by its name; nil where there is none.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// Partition drops every frame between two sets of hosts, both ways, until Heal.
// The caller still reaches all of them.
func (l *Lab) Partition(ctx context.Context, a, b []string) error {
	return l.run(ctx, nil, "partition", strings.Join(a, ","), strings.Join(b, ","))
}

// Heal ends all partitions.
func (l *Lab) Heal(ctx context.Context) error { return l.run(ctx, nil, "heal") }

// Close ends all hosts and removes everything but the cache.
func (l *Lab) Close() error {
	for _, h := range l.hosts {
		h.disconnect()
	}
	var err error
	if !l.existing {
		// On its own clock: a test run that was interrupted leaves nothing either.
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err = l.run(ctx, nil, "down")
		defer l.lock.Close()
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

const closeTimeout = 3 * time.Minute

// run runs a command of the script.
func (l *Lab) run(ctx context.Context, env []string, args ...string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, l.script, args...)
	cmd.Env = append(append([]string{}, l.env...), env...)
	cmd.Stdout, cmd.Stderr = &said, &said
	// What the script leaves running has its own output: this is for what it
	// leaves behind when it is ended.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lab %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// scriptPath finds the script, which lies beside this file.
func scriptPath() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	path := filepath.Join(filepath.Dir(file), "lab.sh")
	if ok && filepath.IsAbs(path) {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("lab.sh is not beside its sources: run from the checkout, and without -trimpath")
}
