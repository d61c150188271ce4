package job

// Class says why an attempt failed; it decides the budget that pays for it.
type Class string

// The classes of failure. The empty class means success.
const (
	ClassUser      Class = "user"      // the command exited with another code than 0, or could not be started
	ClassTimeout   Class = "timeout"   // the time limit was reached
	ClassOOMHost   Class = "oom_host"  // the host's memory limit was reached
	ClassOOMGPU    Class = "oom_gpu"   // a device's memory was exhausted
	ClassDevice    Class = "device"    // a device failed under the attempt
	ClassHostLost  Class = "host_lost" // the host died, lost its session, or lost the attempt
	ClassDrained   Class = "drained"   // an operator drained the host
	ClassPreempted Class = "preempted" // a more important job took the devices
	ClassKilled    Class = "killed"    // a person killed the job
	ClassPoison    Class = "poison"    // the job takes hosts down
	ClassExpired   Class = "expired"   // it waited longer than its spec allows
	ClassRefused   Class = "refused"   // it can never run here
)

// Classes lists every class of failure.
var Classes = []Class{
	ClassUser, ClassTimeout, ClassOOMHost, ClassOOMGPU, ClassDevice, ClassHostLost, ClassDrained, ClassPreempted,
	ClassKilled, ClassPoison, ClassExpired, ClassRefused,
}

// Counts reports whether a failure of this class is paid from the job's own
// attempts. The other classes are not the job's fault: it is requeued, within a
// cap of their own.
func (c Class) Counts() bool {
	switch c {
	case ClassUser, ClassTimeout, ClassOOMHost, ClassOOMGPU:
		return true
	}
	return false
}
