package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/config"
	"gpuqd/daemon/device"
	"gpuqd/daemon/health"
	"gpuqd/daemon/runner"

	"golang.org/x/sys/unix"
)

// Names of the checks of disk, device and host.
const (
	checkRoom       = "room"
	checkSync       = "fsync"
	checkFileSystem = "file system"

	checkHelper  = "helper"
	checkDevices = "devices"
	checkDriver  = "driver"

	checkSession = "session"
	checkTaking  = "taking work"
	checkDrain   = "drain"
	checkStarter = "starter"
	checkShim    = "shim"
	checkFiles   = "open files"
)

// examineDisk looks at the file system of the state directory, and at that of
// the jobs' directories where it is another.
func (a *Agent) examineDisk(ctx context.Context) []health.Check {
	state := a.cfg.Host.StateDir
	disk, err := health.DiskOf(state)
	if err != nil {
		return []health.Check{health.Bad(checkRoom, health.Fail, "bring host.state_dir back, then restart gpuqd: without it nothing can start here, and no result be recorded", "%v", err)}
	}
	checks := []health.Check{
		disk.Room(checkRoom, "make room: old output goes with runner.keep_logs and runner.keep_logs_bytes; on a full disk nothing starts here, and results that are recorded already are safe"),
		judgeFileSystem(disk), timeSync(ctx, state),
	}
	if work := a.cfg.Runner.WorkRoot; work != "" {
		other, err := health.DiskOf(work)
		switch {
		case err != nil:
			checks = append(checks, health.Bad(checkRoom, health.Fail, "make runner.work_root, or mount it: no attempt can start without its directory", "%v", err))
		case other.DeviceNumber != disk.DeviceNumber:
			checks = append(checks, other.Room(checkRoom, "make room in runner.work_root: jobs that write there fail when it is full"))
		}
	}
	return checks
}

func judgeFileSystem(d health.Disk) health.Check {
	switch {
	case d.Network:
		return health.Bad(checkFileSystem, health.Fail, "drain the host, then move host.state_dir to a local disk: a server that hangs stops this host, and its locks do not hold",
			"%s is on %s, a network file system", d.Path, d.Kind)
	case d.Volatile:
		return health.Bad(checkFileSystem, health.Warn, "drain the host, then move host.state_dir to a disk: a reboot loses results that were not committed yet", "%s is on %s, in memory", d.Path, d.Kind)
	}
	return health.Good(checkFileSystem, "%s is on %s", d.Path, d.Kind)
}

const (
	syncRounds = 10
	syncSlow   = 100 * time.Millisecond
)

// timeSync times what each attempt does several times: a small file written to
// the journal's directory, synced, and the directory synced.
func timeSync(ctx context.Context, state string) health.Check {
	times, err := syncTimes(ctx, filepath.Join(state, "attempts"))
	if err != nil {
		return health.Bad(checkSync, health.Fail, "mend the disk or its permissions: no attempt can be begun here, and no result recorded", "%v", err)
	}
	median, most := health.Spread(times)
	saw := fmt.Sprintf("a small file and its directory are on disk in %s (median of %d; at most %s)", health.Figure(median), len(times), health.Figure(most))
	if most > syncSlow {
		return health.Bad(checkSync, health.Warn, "see what keeps the disk busy (iostat -x 1), or give host.state_dir a faster one: each attempt waits for several of these", "%s", saw)
	}
	return health.Good(checkSync, "%s", saw)
}

func syncTimes(ctx context.Context, dir string) (times []time.Duration, err error) {
	// The prefix is that of directories which the journal passes over, and
	// removes at its next start should this one stay behind.
	tmp, err := os.MkdirTemp(dir, runner.UnfinishedPrefix+"doctor-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	parent, err := os.Open(tmp)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	for n := 0; n < syncRounds && ctx.Err() == nil; n++ {
		began := time.Now()
		if err := syncFile(filepath.Join(tmp, fmt.Sprint(n))); err != nil {
			return nil, err
		}
		if err := parent.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(bytes.Repeat([]byte{'x'}, 4096))
	return errors.Join(err, file.Sync(), file.Close())
}

// examineDevices says where the devices come from and how they are.
func (a *Agent) examineDevices(context.Context) []health.Check {
	devices := a.devices.Snapshot()
	if a.cfg.Device.Kind == config.DeviceSim {
		return []health.Check{
			health.Good(checkHelper, "devices are simulated, as device.kind says: a job that is given one finds no GPU behind it"),
			a.judgeDevices(devices),
		}
	}
	return []health.Check{a.judgeHelper(), a.judgeDevices(devices), examineDriver()}
}

func (a *Agent) judgeHelper() health.Check {
	const advice = "do what the reason says; by hand: nvidia-smi, dmesg | grep -i -e nvrm -e xid"
	select {
	case <-a.devices.Ready():
	default:
		return health.Bad(checkHelper, health.Warn, "wait a moment: without persistence mode the driver takes long to start", "%s has not reported yet", a.cfg.Device.Helper)
	}
	if why := a.devices.Problem(); why != "" {
		return health.Bad(checkHelper, health.Fail, advice, "%s", why)
	}
	return health.Good(checkHelper, "%s runs and reports", a.cfg.Device.Helper)
}

func (a *Agent) judgeDevices(devices []device.Status) health.Check {
	count := map[device.State]int{}
	var sick []string
	for _, d := range devices {
		count[d.State]++
		if d.State == device.Sick {
			sick = append(sick, fmt.Sprintf("%s: %s", d.UUID, d.Reason))
		}
	}
	var parts []string
	for _, s := range device.States {
		if count[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[s], s))
		}
	}
	kind := ""
	if a.cfg.Device.Kind == config.DeviceSim {
		kind = "simulated "
	}
	saw := fmt.Sprintf("%d %sdevices: %s", len(devices), kind, strings.Join(parts, ", "))
	switch {
	case len(devices) == 0 && len(a.cfg.Host.Pools) == 0:
		return health.Good(checkDevices, "none, and the host serves no pool")
	case len(devices) == 0:
		return health.Bad(checkDevices, health.Warn, "see the check helper; a host that is meant to have none, such as a login node, sets host.pools = []", "the host has no devices")
	case len(sick) == len(devices):
		return health.Bad(checkDevices, health.Fail, "do what the reason says; the host runs no job with GPUs until then", "%s; %s", saw, strings.Join(sick, "; "))
	case len(sick) > 0:
		return health.Bad(checkDevices, health.Warn, "do what the reason says; the other devices work on", "%s; %s", saw, strings.Join(sick, "; "))
	}
	return health.Good(checkDevices, "%s", saw)
}

// examineDriver reads which driver the kernel has loaded; the helper does not say.
func examineDriver() health.Check {
	text, err := os.ReadFile("/proc/driver/nvidia/version")
	if err != nil {
		return health.Bad(checkDriver, health.Fail, "load the NVIDIA driver: modprobe nvidia; dmesg says why it does not", "the kernel has no NVIDIA driver: %v", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return health.Good(checkDriver, "%s", strings.Join(strings.Fields(strings.TrimPrefix(first, "NVRM version:")), " "))
}

// examineHost looks at the daemon itself and what it starts attempts with.
func (a *Agent) examineHost(context.Context) []health.Check {
	return []health.Check{a.examineSession(), a.examineTaking(), a.examineDrain(), a.examineStarter(), a.examineShim(), examineFiles()}
}

func (a *Agent) examineSession() health.Check {
	session, left, ttl := a.lease.current(), a.lease.left(), a.cfg.Lease.TTL.Std()
	const advice = "mend the ledger, or this host's way to it; when the lease is over its attempts freeze, and other hosts take its jobs over"
	switch {
	case session == "":
		return health.Bad(checkSession, health.Fail, "see the checks of the ledger: the start goes on by itself when it answers", "none is open: start-up is not over")
	case left <= 0:
		return health.Bad(checkSession, health.Fail, advice, "session %s: its lease ended %s ago", session, health.Figure(-left))
	case !a.lease.hasMargin():
		return health.Bad(checkSession, health.Fail, advice, "session %s: %s left of a lease of %s, too little to start anything", session, health.Figure(left), health.Figure(ttl))
	case left < ttl/2:
		return health.Bad(checkSession, health.Warn, advice, "session %s: %s left of a lease of %s; renewals are late", session, health.Figure(left), health.Figure(ttl))
	}
	return health.Good(checkSession, "session %s is live: %s left of a lease of %s", session, health.Figure(left), health.Figure(ttl))
}

func (a *Agent) examineTaking() health.Check {
	if !a.ready.Load() {
		return health.Bad(checkTaking, health.Fail, "see the checks of ledger and broker; the daemon's log says what it waits for", "start-up is not over")
	}
	if why := a.trouble(); why != "" {
		return health.Bad(checkTaking, health.Fail, "do what the reason says", "the host takes no work: %s", why)
	}
	return health.Good(checkTaking, "%d attempts run here", a.runs.len())
}

func (a *Agent) examineDrain() health.Check {
	if d := a.drains.onHost(); d != nil {
		return health.Bad(checkDrain, health.Warn, "gpuqctl resume "+a.host+", when its reason is gone", "%s, since %s", drainLine(d, a.runs.len()), d.At)
	}
	return health.Good(checkDrain, "the host is not drained")
}

func (a *Agent) examineStarter() health.Check {
	if a.cfg.Runner.Starter == config.StarterSystemd {
		return health.Good(checkStarter, "%s, with a unit per attempt, as its submitter's account", a.cfg.Runner.Starter)
	}
	if err := runner.TryCgroup(); err != nil {
		return health.Bad(checkStarter, health.Warn, "let the daemon write its own cgroup (v2, Linux 5.14 or newer), as Delegate=yes does for a unit: without it, processes that leave "+
			"a job's tree are found by their environment alone, and outlive a daemon and shim that die together until the daemon is back", "%s, without cgroups: %v", a.cfg.Runner.Starter, err)
	}
	return health.Good(checkStarter, "%s, with a cgroup per attempt", a.cfg.Runner.Starter)
}

func (a *Agent) examineShim() health.Check {
	if err := unix.Access(a.cfg.Runner.Shim, unix.X_OK); err != nil {
		return health.Bad(checkShim, health.Fail, "install gpuqd-shim, or set runner.shim to its path: no attempt can start here", "%s: %v", a.cfg.Runner.Shim, err)
	}
	return health.Good(checkShim, "%s can be executed", a.cfg.Runner.Shim)
}

// filesLeast is how many files the daemon should be able to have open: a log and
// a lock per attempt, connections, and room for a burst of clients.
const filesLeast = 4096

func examineFiles() health.Check {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return health.Bad(checkFiles, health.Unknown, "by hand: cat /proc/$(pidof gpuqd)/limits", "%v", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return health.Bad(checkFiles, health.Unknown, "by hand: ls /proc/$(pidof gpuqd)/fd | wc -l", "%v", err)
	}
	saw := fmt.Sprintf("%d open, of at most %d", len(open), limit.Cur)
	if limit.Cur < filesLeast || uint64(len(open)) > limit.Cur/10*8 {
		return health.Bad(checkFiles, health.Warn, fmt.Sprintf("raise LimitNOFILE of gpuqd.service (ulimit -n) to %d or more, and restart gpuqd", 4*filesLeast), "%s", saw)
	}
	return health.Good(checkFiles, "%s", saw)
}
