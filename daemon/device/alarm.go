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

// alarm tells every attempt on a device that has failed that it must end, again with
// each inventory for as long as that lasts. m.mu is held.
func (m *Manager) alarm(e *entry) {
	why := e.fatal()
	if why == "" || e.alarmed {
		return
	}
	e.alarmed = true
	for _, h := range e.holders {
		m.raise(Alarm{
			JobID: h.JobID, Attempt: h.Attempt, Kind: AlarmDevice,
			Detail: "device " + e.facts.name() + ": " + why,
		})
	}
}

// raise hands an alarm on; one too many is raised again with the next inventory.
// m.mu is held.
func (m *Manager) raise(a Alarm) {
	select {
	case m.alarms <- a:
		m.tally.alarms[a.Kind]++
	default:
	}
}
