package device

import (
	"slices"
	"time"

	"gpuqd/daemon/job"
)

// attempt names the holder of a device; the zero value is nobody.
type attempt struct {
	id     job.ID
	number int
}

// cordon is an operator's word that a device takes no new attempts.
type cordon struct{ reason, who string }

// entry is all that is known of one device. Its state follows from the
// independent facts below and is never set by hand.
type entry struct {
	facts  Facts
	sick   string // why it must take no work; "" when well
	holder attempt
	left   time.Time // when its last holder released it; zero before the first
	cordon *cordon
	seen   bool // a report has named it; false for one that is known only by adoption

	state  State // as of the last settle
	reason string
	since  time.Time
}

// derive returns the state that the facts amount to, and its reason.
func (e *entry) derive() (State, string) {
	held := e.holder != attempt{}
	switch {
	case e.sick != "":
		return Sick, e.sick
	case e.cordon != nil && held:
		return Draining, e.cordon.reason
	case e.cordon != nil:
		return Cordoned, e.cordon.reason
	case held:
		return Busy, ""
	}
	return Free, ""
}

// settle brings the state up to date and returns the one before. A new reason
// alone does not restart Since.
func (e *entry) settle(now time.Time) (from State, changed bool) {
	from = e.state
	e.state, e.reason = e.derive()
	if e.state == from {
		return from, false
	}
	e.since = now
	return from, true
}

// status returns a copy that shares nothing with the entry.
func (e *entry) status() Status {
	s := Status{
		Device:          e.facts.Device,
		State:           e.state,
		JobID:           e.holder.id,
		Attempt:         e.holder.number,
		Reason:          e.reason,
		Since:           e.since,
		MemoryUsedBytes: e.facts.MemoryUsedBytes,
		Processes:       slices.Clone(e.facts.Processes),
	}
	if e.cordon != nil {
		s.Who = e.cordon.who
	}
	return s
}
