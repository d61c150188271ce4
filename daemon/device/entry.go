package device

import (
	"slices"
	"time"

	"gpuqd/daemon/job"
)

// cordon is an operator's word that a device takes no new attempts.
type cordon struct{ reason, who string }

// entry is all that is known of one device. Its state follows from the
// independent facts below and is never set by hand.
type entry struct {
	facts   Facts
	sampled time.Time // when the inventory came that facts are of
	missing string    // which of its device files is missing, and what to do; "" for none
	holders []Holder  // in the order in which they came; one alone where it has the whole device
	left    time.Time // when its last holder released it; zero before the first
	cordon  *cordon
	seen    bool   // a report has named it; false for one that is known only by adoption
	lost    bool   // the last inventory did not name it
	unheard string // why its source knows nothing of it; "" when it does
	alarmed bool   // its attempts were alarmed since the last inventory

	quarantines []quarantine // in the order in which they came
	breaker     breaker
	check       *check  // nil: there is nothing to look at
	users       []left  // of facts.Processes
	idle        *uint64 // the least memory that it was seen to use when nobody held it; nil before
	uncorrected *uint64 // the count of uncorrectable errors that is accounted for; nil before the first

	state  State // as of the last settle
	reason string
	since  time.Time
	room   uint64 // of its memory that could be granted then
}

// holder returns the place among the holders of an attempt, -1 where it is none.
func (e *entry) holder(id job.ID, number int) int {
	return slices.IndexFunc(e.holders, func(h Holder) bool { return h.JobID == id && h.Attempt == number })
}

// shared returns how much memory is granted, and whether more attempts could
// have a share: no attempt has the whole device.
func (e *entry) shared() (bytes uint64, may bool) {
	for _, h := range e.holders {
		if h.MemoryBytes == 0 {
			return e.facts.MemoryBytes, false
		}
		bytes += h.MemoryBytes
	}
	return bytes, true
}

// first returns the first holder; the zero value is nobody.
func (e *entry) first() Holder {
	if len(e.holders) == 0 {
		return Holder{}
	}
	return e.holders[0]
}

// derive returns the state that the facts amount to, and its reason.
func (e *entry) derive(w weather) (State, string) {
	held, waits := len(e.holders) > 0, e.waits(w)
	if why := e.ailment(w); why != "" {
		return Sick, why
	}
	switch {
	case e.cordon != nil && held:
		return Draining, e.cordon.reason
	case e.cordon != nil:
		return Cordoned, e.cordon.reason
	case held:
		return Busy, ""
	case waits != "":
		return Checking, waits
	}
	return Free, ""
}

// settle brings the state up to date and returns the one before. A new reason
// alone does not restart Since.
func (e *entry) settle(w weather) (from State, changed bool) {
	from = e.state
	e.state, e.reason = e.derive(w)
	if e.state == from {
		return from, false
	}
	e.since = w.now
	return from, true
}

// status returns a copy that shares nothing with the entry.
func (e *entry) status() Status {
	s := Status{
		Device:          e.facts.Device,
		State:           e.state,
		JobID:           e.first().JobID,
		Attempt:         e.first().Attempt,
		Holders:         slices.Clone(e.holders),
		Reason:          e.reason,
		Since:           e.since,
		MemoryUsedBytes: e.facts.MemoryUsedBytes,
		Processes:       slices.Clone(e.facts.Processes),
		Condition:       e.facts.Condition,
	}
	if e.cordon != nil {
		s.Who = e.cordon.who
	}
	return s
}
