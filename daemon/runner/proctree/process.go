package proctree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Process names one process of this boot. A PID is used again in time; together
// with the start it is unique.
type Process struct {
	PID   int
	Ticks uint64 // start, in clock ticks since boot: field 22 of /proc/<pid>/stat
}

// Boottime reads CLOCK_BOOTTIME: time since boot, with suspended time counted.
func Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME cannot be read: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// ticks is the present as a process's start is counted. The kernel shows both in
// hundredths of a second, on every architecture that Go runs on.
//
// Source: proc_pid_stat(5), field 22; USER_HZ.
func ticks() uint64 { return uint64(Boottime() / (10 * time.Millisecond)) }

// Stat is what /proc/<pid>/stat says of a process.
type Stat struct {
	Process
	PPID    int
	Session int
	State   byte // R, S, D, T (stopped), Z (zombie) ...: proc(5)
	Thread  bool // one of a process, not its first
}

// Alive reports whether the process can still do anything: a zombie cannot.
func (s Stat) Alive() bool { return s.State != 'Z' && s.State != 'X' && s.State != 'x' }

// ReadStat returns the state of one process; an error matching
// fs.ErrNotExist or unix.ESRCH where there is none.
func ReadStat(pid int) (Stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, err
	}
	s, err := parseStat(pid, data)
	if err != nil {
		return Stat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return s, nil
}

// Self returns the calling process.
func Self() (Process, error) {
	s, err := ReadStat(os.Getpid())
	return s.Process, err
}

// BootID returns the random ID of this boot: the kernel's, or that of the container
// that the host is. The sandbox of gpuqd.service has a /proc of its own, which in a
// container shows the kernel's; so systemd, which sees the host's, passes the host's
// on as a credential, and daemon and shims agree.
var BootID = sync.OnceValues(func() (string, error) { return bootID(os.Getenv("CREDENTIALS_DIRECTORY")) })

// bootID is BootID for a directory of credentials, "" for none.
func bootID(credentials string) (string, error) {
	path := "/proc/sys/kernel/random/boot_id"
	if credentials != "" {
		if passed := filepath.Join(credentials, "boot_id"); unix.Access(passed, unix.R_OK) == nil {
			path = passed
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// is reports whether p is the process, or zombie, that now has its PID.
func (p Process) is() bool {
	s, err := ReadStat(p.PID)
	return p.PID > 0 && err == nil && s.Ticks == p.Ticks
}

// Alive reports whether p is still running; a zombie is not. What cannot be told
// counts as alive.
func (p Process) Alive() bool {
	s, err := ReadStat(p.PID)
	if err != nil {
		return p.PID > 0 && !isGoneOrHidden(err)
	}
	return p.PID > 0 && s.Ticks == p.Ticks && s.Alive()
}

// Signal sends sig to p, and to nobody else where its PID was used again. It
// returns unix.ESRCH where p is gone.
func Signal(p Process, sig unix.Signal) error {
	if p.PID <= 0 {
		return unix.ESRCH
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ENOSYS) {
		if !p.is() {
			return unix.ESRCH
		}
		return unix.Kill(p.PID, sig)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !p.is() { // the descriptor now keeps the answer true
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// goneTick is how often WaitGone looks on kernels without pidfd (before 5.3).
const goneTick = 200 * time.Millisecond

// WaitGone returns nil when p has ended (a zombie counts as ended), or ctx's
// cause. It waits without a thread.
func WaitGone(ctx context.Context, p Process) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil // EINVAL: the PID belongs to a thread now
	}
	if err != nil {
		return pollGone(ctx, p)
	}
	if !p.is() {
		return unix.Close(fd)
	}
	// Non-blocking, so that the runtime's poller takes it.
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = conn.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// pollGone is WaitGone without a pidfd.
func pollGone(ctx context.Context, p Process) error {
	tick := time.NewTicker(goneTick)
	defer tick.Stop()
	for {
		if !p.Alive() {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
