package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/device"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// lookWait is how long a result waits for the look at the attempt's devices after it:
// a driver that hangs must not hold results up.
const lookWait = 5 * time.Second

// weighDevices brings what has happened to the attempt's devices since their grant
// into its exit: a result that came about over a fault of a device is no success,
// and no fault of the job. It is called once the devices are released.
func (r *run) weighDevices(ctx context.Context, exit *runner.Exit) {
	if len(r.devices) == 0 {
		return
	}
	faults := r.awaitFaults(ctx)
	if ctx.Err() != nil {
		return // the next daemon weighs them
	}
	*exit = weighed(*exit, faults)
	if job.IsRehearsalPool(r.job.Spec.Pool) {
		return // it fails by appointment
	}
	r.a.devices.Ended(device.Ending{
		JobID: r.hold.JobID, Attempt: r.number, Devices: r.devices, Kind: jobKind(r.job), Class: exit.Class,
		Lasted: time.Duration(exit.DurationSeconds * float64(time.Second)),
	})
}

// awaitFaults waits for the look that follows the release, within bounds.
func (r *run) awaitFaults(ctx context.Context) device.Faults {
	timer := time.NewTimer(lookWait)
	defer timer.Stop()
	select {
	case <-r.a.devices.Settled(r.hold.JobID, r.number):
	case <-timer.C:
	case <-ctx.Done():
	}
	return r.a.devices.Faults(r.hold.JobID, r.number)
}

// weighed is an exit with the faults of its devices. Success and class user are no
// word against a device's fault; every other class has a cause of its own. What the
// program may itself have brought about explains a failure, and changes none.
func weighed(exit runner.Exit, f device.Faults) runner.Exit {
	failed := exit.Class != ""
	switch {
	case len(f.Device) > 0 && (!failed || exit.Class == job.ClassUser):
		was := fmt.Sprintf("the command exited with %d", exit.Code)
		if exit.Reason != "" {
			was = exit.Reason
		}
		exit.Class = job.ClassDevice
		exit.Reason = joinReasons("its result cannot be trusted: "+strings.Join(f.Device, ", "), was)
	case len(f.Device) > 0:
		exit.Reason = joinReasons(exit.Reason, strings.Join(f.Device, ", "))
	}
	if failed && len(f.Application) > 0 {
		exit.Reason = joinReasons(exit.Reason, strings.Join(f.Application, ", "))
	}
	if f.Unlooked != "" && exit.Class != "" {
		exit.Reason = joinReasons(exit.Reason, "its devices were not looked at after it: "+f.Unlooked)
	}
	return exit
}

// kindWords is how many words of a job's command tell its kind.
const kindWords = 2

// jobKind is by what the breakers tell jobs apart: who submitted it, and what it runs.
func jobKind(j *job.Job) string {
	return j.Submitter + "\x00" + strings.Join(j.Spec.Command[:min(kindWords, len(j.Spec.Command))], "\x00")
}
