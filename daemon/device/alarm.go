package device

import "gpuqd/daemon/job"

// AlarmKind says why an attempt must end.
type AlarmKind string

// The kinds of alarm.
const (
	AlarmDevice AlarmKind = "device" // a device failed under it
	AlarmMemory AlarmKind = "memory" // it uses more of a shared device's memory than it asked for
)

// Alarm tells that a running attempt must end.
type Alarm struct {
	JobID   job.ID
	Attempt int
	Kind    AlarmKind
	Detail  string // for the submitter: what happened, with figures, and what to do
}

// alarmsMax is how many alarms wait to be read.
const alarmsMax = 256
