// Package owner tells the devices' manager whose the processes of this host are.
package owner

import (
	"errors"
	"os/user"
	"path"
	"strconv"
	"strings"

	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"

	"golang.org/x/sys/unix"
)

// Processes are those of this host.
type Processes struct{}

var _ device.Processes = Processes{}

// Describe implements device.Processes. A process is an attempt's by its environment
// or that of what started it; where neither can be read, by its cgroup or unit.
func (Processes) Describe(pid int) (device.ProcessOwner, bool) {
	found, ok := proctree.Look(pid, runner.EnvJobID, runner.EnvAttempt)
	if !ok {
		return device.ProcessOwner{}, false
	}
	owner := device.ProcessOwner{PID: found.PID, Ticks: found.Ticks, Name: found.Name, User: userName(found.UID)}
	id, err := job.ParseID(found.Vars[runner.EnvJobID])
	number, numberErr := strconv.Atoi(found.Vars[runner.EnvAttempt])
	switch {
	case err == nil && numberErr == nil:
		owner.JobID, owner.Attempt = id, number
	default:
		owner.JobID, owner.Attempt = attemptOf(found.Cgroup)
	}
	return owner, true
}

// attemptOf returns whose a cgroup is: the attempt's own, or that of the unit that
// runs the job's one attempt, which does not say its number; then that is 0.
func attemptOf(cgroup string) (job.ID, int) {
	for dir := cgroup; len(dir) > 1; dir = path.Dir(dir) {
		base := path.Base(dir)
		if text, found := strings.CutPrefix(base, "gpuqd-"); found {
			if key, err := runner.ParseKey(text); err == nil {
				return key.JobID, key.Attempt
			}
		}
		if text, found := strings.CutPrefix(base, "gpuqd-job-"); found {
			if id, err := job.ParseID(strings.TrimSuffix(text, ".service")); err == nil {
				return id, 0
			}
		}
	}
	return "", 0
}

// userName is for people: a name, or the number where there is none.
func userName(uid int) string {
	if uid < 0 {
		return "unknown"
	}
	number := strconv.Itoa(uid)
	if found, err := user.LookupId(number); err == nil {
		return found.Username
	}
	return number
}

// Kill implements device.Processes.
func (Processes) Kill(owner device.ProcessOwner) error {
	err := proctree.Signal(proctree.Process{PID: owner.PID, Ticks: owner.Ticks}, unix.SIGKILL)
	if errors.Is(err, unix.ESRCH) {
		return nil // it is gone
	}
	return err
}
