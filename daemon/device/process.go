package device

import "gpuqd/daemon/job"

// Processes looks at the processes of this host. A nil Processes knows nobody.
type Processes interface {
	// Describe says whose a process is; ok is false where it is gone.
	Describe(pid int) (owner ProcessOwner, ok bool)
	// Kill ends a process that Describe has told of, unless its PID is another's by
	// now. It does not wait.
	Kill(owner ProcessOwner) error
}

// ProcessOwner says whose a process is.
type ProcessOwner struct {
	PID     int
	Ticks   uint64 // when it was started, in the kernel's ticks: tells a reused PID
	Name    string // of its program, for people
	User    string // its user's name, or number where that has none
	JobID   job.ID // of the attempt that started it; "" for none: it is foreign
	Attempt int    // 0 where only the job is known
}

// of reports whether the process is an attempt's.
func (o ProcessOwner) of(who attemptKey) bool {
	return o.JobID != "" && o.JobID == who.id && (o.Attempt == 0 || o.Attempt == who.number)
}
