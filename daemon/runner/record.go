package runner

import (
	"strings"
	"time"
	"unicode"

	"gpuqd/daemon/job"
)

// Started is the shim's word that it is about to release the command. It is on
// disk before the command's first instruction runs.
type Started struct {
	PID        int       `json:"pid"` // of the command, which leads a session of its own
	ShimPID    int       `json:"shim_pid"`
	BootID     string    `json:"boot_id"`
	StartTicks uint64    `json:"start_ticks"` // of PID, field 22 of /proc/<pid>/stat: tells a reused PID
	ShimTicks  uint64    `json:"shim_ticks"`  // of ShimPID
	Cgroup     string    `json:"cgroup"`      // directory of the command's own cgroup; "" for none
	Time       time.Time `json:"time"`
	// The unit that the shim is, and systemd's random ID of this start of it; ""
	// for none. A loaded unit of that name with another ID is another attempt's.
	Unit         string `json:"unit,omitempty"`
	InvocationID string `json:"invocation_id,omitempty"`
}

// Revoked says that the attempt never ran and never will.
type Revoked struct {
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// StopReason says why an attempt is ended before its command ends by itself.
type StopReason string

// The reasons to stop an attempt.
const (
	StopKilled         StopReason = "killed"          // a person killed the job
	StopDrained        StopReason = "drained"         // an operator drained the host
	StopPreempted      StopReason = "preempted"       // a more important job takes the devices
	StopDevice         StopReason = "device"          // a device failed under it
	StopOOMGPU         StopReason = "oom_gpu"         // it used more of a shared device's memory than its share
	StopFenced         StopReason = "fenced"          // the job was claimed again under a higher fence
	StopSessionExpired StopReason = "session_expired" // the session is no longer live
	StopLeaseLost      StopReason = "lease_lost"      // past the deadline, with on_lease_loss = stop
	StopFreezeMax      StopReason = "freeze_max"      // frozen for too long
	StopTimeout        StopReason = "timeout"         // the time limit was reached
	StopShutdown       StopReason = "shutdown"        // the shim was told to end: the host shuts down
)

// Class returns the class of failure of an attempt that was stopped for r.
func (r StopReason) Class() job.Class {
	switch r {
	case StopKilled:
		return job.ClassKilled
	case StopDrained:
		return job.ClassDrained
	case StopPreempted:
		return job.ClassPreempted
	case StopDevice:
		return job.ClassDevice
	case StopOOMGPU:
		return job.ClassOOMGPU
	case StopTimeout:
		return job.ClassTimeout
	}
	return job.ClassHostLost
}

// Commits reports whether the result of an attempt stopped for r may be
// committed; the others lost their right to the job.
func (r StopReason) Commits() bool { return r != StopFenced && r != StopSessionExpired }

// AtOnce reports whether a stop for r is SIGKILL without SIGTERM and grace: the
// job may be running elsewhere, and attempts of one job must not overlap.
func (r StopReason) AtOnce() bool {
	switch r {
	case StopFenced, StopSessionExpired, StopLeaseLost, StopFreezeMax:
		return true
	}
	return false
}

// Stop asks for the end of an attempt.
type Stop struct {
	Reason StopReason    `json:"reason"`
	Detail string        `json:"detail"`   // who, and why; cut to 300 bytes
	Grace  time.Duration `json:"grace_ns"` // 0 is the intent's, negative none
	Time   time.Time     `json:"time"`     // set by RequestStop where it is zero
}

// Exit is how an attempt ended. It is written when nothing of the attempt is
// left running.
type Exit struct {
	Code       int        `json:"code"`   // the command's; 128 + n after signal n, 126 and 127 as in a shell
	Signal     string     `json:"signal"` // such as SIGSEGV; "" where it exited by itself
	CoreDumped bool       `json:"core_dumped"`
	Class      job.Class  `json:"class"`  // "" is success
	Reason     string     `json:"reason"` // for people; cut to 1000 bytes
	StopReason StopReason `json:"stop_reason,omitempty"`
	StopDetail string     `json:"stop_detail,omitempty"`
	// Lost: the shim left no exit record, so the code and the times are not
	// known; Ended is when that was found.
	Lost bool `json:"lost"`

	Started          time.Time `json:"started"`
	Ended            time.Time `json:"ended"`
	DurationSeconds  float64   `json:"duration_seconds"` // on the monotonic clock, frozen time included
	FrozenSeconds    float64   `json:"frozen_seconds"`
	UserCPUSeconds   float64   `json:"user_cpu_seconds"`
	SystemCPUSeconds float64   `json:"system_cpu_seconds"`
	// MemoryBytesMax is the peak of the attempt's memory cgroup, with the shim where
	// that is its unit's; without one, of its largest single process. At least the
	// shim's own 5 MB are in both.
	MemoryBytesMax  int64 `json:"memory_bytes_max"`
	LogBytes        int64 `json:"log_bytes"`
	LogDroppedBytes int64 `json:"log_dropped_bytes"`
	// JournalDroppedLines were not taken by journald, or not offered: see
	// Intent.JournalSocket.
	JournalDroppedLines int64 `json:"journal_dropped_lines,omitempty"`
}

// Verdict is what became of an attempt's result.
type Verdict struct {
	CommitID  string    `json:"commit_id,omitempty"` // set where it was committed
	Discarded string    `json:"discarded,omitempty"` // set with the reason where it was not
	Time      time.Time `json:"time"`
}

// Committed reports whether the result was committed.
func (v *Verdict) Committed() bool { return v.CommitID != "" }

// clip makes text fit a slot: valid, on one line, and at most max bytes.
func clip(text string, max int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > max {
		text = strings.ToValidUTF8(text[:max-3], "") + "..."
	}
	return text
}
