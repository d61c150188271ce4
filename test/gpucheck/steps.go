package gpucheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gpuqd/daemon/device"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

const (
	// holdBytes is what a payload takes of a device's memory: far more than a context
	// takes by itself, and little enough for any device.
	holdBytes = 256 << 20
	// slackBytes is by how much the memory in use may differ on a device that is
	// clean: the driver keeps a little when it has been used.
	slackBytes = 64 << 20
)

// seesNothing: a job that was granted nothing finds no device.
func (b *bench) seesNothing(ctx context.Context) (string, error) {
	r, err := b.start(ctx, nil, "see")
	if err != nil {
		return "", err
	}
	if err := b.end(ctx, r); err != nil {
		return "", err
	}
	if seen := r.words("devices"); !slices.Equal(seen, []string{"0"}) {
		return "", fmt.Errorf("CUDA shows it %s", r.output())
	}
	return "CUDA shows it 0 devices", nil
}

// seesItsDevice: a job finds the device that it was granted and no other.
func (b *bench) seesItsDevice(ctx context.Context, d device.Device) (string, error) {
	r, err := b.start(ctx, []string{d.UUID}, "see")
	if err != nil {
		return "", err
	}
	if err := b.end(ctx, r); err != nil {
		return "", err
	}
	if seen := r.words("device"); !slices.Equal(seen, []string{bare(d.UUID)}) {
		return "", fmt.Errorf("it was granted %s, and CUDA shows it %s", d.UUID, r.output())
	}
	began := time.Now()
	if err := b.awaitFree(ctx, d.UUID); err != nil {
		return "", err
	}
	return fmt.Sprintf("CUDA shows it %s and nothing else; free %.1f s later", d.UUID, time.Since(began).Seconds()), nil
}

// bare is a UUID as CUDA has it: without the word for its kind.
func bare(uuid string) string {
	return strings.TrimPrefix(strings.TrimPrefix(uuid, "GPU-"), "MIG-")
}

// awaitFree waits until the device can be acquired.
func (b *bench) awaitFree(ctx context.Context, uuid string) error {
	return b.await(ctx, func() string {
		if s := b.status(uuid); s.State != device.Free {
			return fmt.Sprintf("device %s is %s: %s", uuid, s.State, s.Reason)
		}
		return ""
	})
}

// jobIsSeen: while a job holds memory of its device the manager knows how much,
// and its PID; after it the device is clean and can be granted again.
func (b *bench) jobIsSeen(ctx context.Context, d device.Device) (string, error) {
	before, err := b.idle(ctx, d.UUID)
	if err != nil {
		return "", err
	}
	r, err := b.start(ctx, []string{d.UUID}, "hold", strconv.Itoa(holdBytes))
	if err != nil {
		return "", err
	}
	if _, err := b.pidAfter(ctx, r, "holding"); err != nil {
		return "", err
	}
	started, _, err := r.Started()
	if err != nil {
		return "", err
	}
	seen, err := b.awaitProcess(ctx, d.UUID, started.PID, before)
	if err != nil {
		return "", err
	}
	during := b.status(d.UUID).MemoryUsedBytes
	if err := b.end(ctx, r); err != nil {
		return "", err
	}
	after, err := b.awaitClean(ctx, d.UUID, before, started.PID)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("process %d with %d MiB of %d MiB asked for; device %d MiB before, %d MiB meanwhile; %s",
		started.PID, seen.MemoryUsedBytes>>20, holdBytes>>20, before>>20, during>>20, after), nil
}

// idle waits until the device is free, and returns what memory is in use then.
func (b *bench) idle(ctx context.Context, uuid string) (memoryBytes uint64, err error) {
	if err := b.awaitFree(ctx, uuid); err != nil {
		return 0, err
	}
	return b.status(uuid).MemoryUsedBytes, nil
}

// awaitProcess waits until a process is on the device with at least the memory that
// it has taken, and the device's own memory says so too.
func (b *bench) awaitProcess(ctx context.Context, uuid string, pid int, before uint64) (seen device.Process, err error) {
	err = b.await(ctx, func() string {
		s := b.status(uuid)
		i := slices.IndexFunc(s.Processes, func(p device.Process) bool { return p.PID == pid })
		switch {
		case i < 0 && len(s.Processes) > 0:
			return fmt.Sprintf("process %d is not among those on device %s, which are %v (in a container with PIDs of its own the driver tells the host's)", pid, uuid, s.Processes)
		case i < 0:
			return fmt.Sprintf("no process is seen on device %s, where process %d holds memory (in a container with PIDs of its own the driver may show none)", uuid, pid)
		case s.Processes[i].MemoryUsedBytes < holdBytes:
			return fmt.Sprintf("process %d on device %s has taken %d bytes, and is said to use %d", pid, uuid, holdBytes, s.Processes[i].MemoryUsedBytes)
		case s.MemoryUsedBytes < before+holdBytes:
			return fmt.Sprintf("device %s had %d bytes in use, %d were taken, and now it is %d", uuid, before, holdBytes, s.MemoryUsedBytes)
		}
		seen = s.Processes[i]
		return ""
	})
	return seen, err
}

// awaitClean waits until none of the processes is on the device, its memory is what
// it was, and it can be granted again.
func (b *bench) awaitClean(ctx context.Context, uuid string, before uint64, pids ...int) (facts string, err error) {
	began := time.Now()
	err = b.await(ctx, func() string {
		s := b.status(uuid)
		switch {
		case slices.ContainsFunc(s.Processes, func(p device.Process) bool { return slices.Contains(pids, p.PID) }):
			return fmt.Sprintf("device %s still has the processes %v", uuid, s.Processes)
		case s.MemoryUsedBytes > before+slackBytes:
			return fmt.Sprintf("device %s still has %d bytes in use, before the job it had %d", uuid, s.MemoryUsedBytes, before)
		case s.State != device.Free:
			return fmt.Sprintf("device %s is %s: %s", uuid, s.State, s.Reason)
		}
		facts = fmt.Sprintf("%d MiB and free %.1f s later", s.MemoryUsedBytes>>20, time.Since(began).Seconds())
		return ""
	})
	return facts, err
}

// leftProcess: what a job leaves behind, in a session of its own and with no living
// parent, is ended with it, before the device is anybody else's.
func (b *bench) leftProcess(ctx context.Context, d device.Device) (string, error) {
	before, err := b.idle(ctx, d.UUID)
	if err != nil {
		return "", err
	}
	r, err := b.start(ctx, []string{d.UUID}, "leave", strconv.Itoa(holdBytes))
	if err != nil {
		return "", err
	}
	left, err := b.pidAfter(ctx, r, "left")
	if err != nil {
		return "", err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, b.Patience, fmt.Errorf("the job does not end within %s", b.Patience))
	defer cancel()
	exit, err := r.Wait(waiting) // not released: the process would stay on for minutes
	if err != nil {
		return "", err
	}
	b.over(r)
	if exit.Code != 0 {
		return "", fmt.Errorf("the job ended with code %d: %s; its output: %s", exit.Code, exit.Reason, r.output())
	}
	if stat, err := proctree.ReadStat(left); err == nil && stat.Alive() {
		return "", fmt.Errorf("the job has its exit record, and process %d that it left is alive", left)
	}
	after, err := b.awaitClean(ctx, d.UUID, before, left)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("process %d, which the job left in a session of its own, ended with it; device at %s", left, after), nil
}

// lostJob: the same where the shim is killed, so that nobody ends what is left at
// once. The process is seen on the device, known as the job's, and ended by the
// manager when the job has left the device.
func (b *bench) lostJob(ctx context.Context, d device.Device) (string, error) {
	before, err := b.idle(ctx, d.UUID)
	if err != nil {
		return "", err
	}
	r, err := b.start(ctx, []string{d.UUID}, "leave-and-wait", strconv.Itoa(holdBytes))
	if err != nil {
		return "", err
	}
	left, err := b.pidAfter(ctx, r, "left")
	if err != nil {
		return "", err
	}
	seen, err := b.awaitProcess(ctx, d.UUID, left, before)
	if err != nil {
		return "", err
	}
	started, _, err := r.Started()
	if err != nil {
		return "", err
	}
	shim := proctree.Process{PID: started.ShimPID, Ticks: started.ShimTicks}
	if err := proctree.Signal(shim, syscall.SIGKILL); err != nil {
		return "", err
	}
	waiting, cancel := context.WithTimeout(ctx, b.Patience)
	defer cancel()
	if _, err := r.Wait(waiting); !errors.Is(err, runner.ErrLost) {
		return "", fmt.Errorf("a job whose shim was killed is not lost, but ended with: %v", err)
	}
	found, err := r.Leftovers()
	if err != nil || !slices.Contains(found, left) {
		return "", errors.Join(err, fmt.Errorf("process %d is left, and those known as the job's are %v", left, found))
	}
	b.manager.Release(r.Key().JobID, r.Key().Attempt) // which ends what it still sees on the device
	ended := b.await(ctx, func() string {
		if stat, err := proctree.ReadStat(left); err == nil && stat.Alive() {
			return fmt.Sprintf("process %d is alive, and its job has left the device", left)
		}
		return ""
	})
	if err := errors.Join(ended, r.RecordLost("its shim was killed")); err != nil { // which ends it for sure
		return "", err
	}
	b.over(r)
	after, err := b.awaitClean(ctx, d.UUID, before, left)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("process %d with %d MiB was seen on the device, known as job %s's, and ended; device at %s",
		left, seen.MemoryUsedBytes>>20, r.Key().JobID, after), nil
}

// foreignProcess: a process that no job has started takes the device out while it
// is on it, by name, and is left alone.
func (b *bench) foreignProcess(ctx context.Context, d device.Device) (facts string, err error) {
	before, err := b.idle(ctx, d.UUID)
	if err != nil {
		return "", err
	}
	release := filepath.Join(b.state, "release-foreign")
	cmd := exec.Command(filepath.Join(b.Dir, payloadName), "hold", strconv.Itoa(holdBytes), release)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+b.libraries, "CUDA_VISIBLE_DEVICES="+d.UUID)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	defer func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
	}()
	pid := cmd.Process.Pid
	if _, err := b.awaitProcess(ctx, d.UUID, pid, before); err != nil {
		return "", err
	}
	var reason string
	err = b.await(ctx, func() string {
		s := b.status(d.UUID)
		if reason = s.Reason; s.State == device.Sick && strings.Contains(reason, strconv.Itoa(pid)) {
			return ""
		}
		return fmt.Sprintf("process %d is on device %s, which is %s (%q)", pid, d.UUID, s.State, s.Reason)
	})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("process %d was not left alone: %w", pid, err)
	}
	after, err := b.awaitClean(ctx, d.UUID, before, pid)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("meanwhile the device was out: %q; then %s", reason, after), nil
}
