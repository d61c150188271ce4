package device

import (
	"fmt"
	"time"
)

// takeEvents takes in what has happened to devices. m.mu is held.
func (m *Manager) takeEvents(events []Event) {
	for _, event := range events {
		switch event.Kind {
		case EventXID:
			m.takeXID(event)
		case EventUncorrected:
			for _, e := range m.concerned(event.UUID, false) {
				m.confineECC(e, fmt.Sprintf("uncorrectable memory error%s at %s", times(event.Count), clock(event.At)), event.At, false)
			}
		}
	}
}

// takeXID takes in one XID. m.mu is held.
func (m *Manager) takeXID(event Event) {
	x := LookUpXID(event.XID)
	m.tally.xids[x.Code] += max(1, event.Count)
	what := fmt.Sprintf("%s%s at %s", x, times(event.Count), clock(event.At))
	m.log.Warn("device reported an XID", "device_uuid", event.UUID, "reason", what, "class", x.Class)
	q := quarantine{XID: x.Code, What: what, Remedy: x.Remedy, At: event.At}
	switch x.Class {
	case XIDNotice:
		return
	case XIDApplication:
		for _, e := range m.concerned(event.UUID, false) {
			m.windowsOf(e, func(w *window) { w.application = note(w.application, e, what) })
		}
		return
	case XIDDevice:
		q.Kind = QuarantineXID
	case XIDHost:
		q.Kind = QuarantineHost
	default:
		q.Kind = QuarantineUnknown
	}
	for _, e := range m.concerned(event.UUID, x.Class == XIDHost) {
		m.confine(e, q)
		if q.ends() {
			m.windowsOf(e, func(w *window) { w.device = note(w.device, e, what) })
		} else {
			m.windowsOf(e, func(w *window) { w.application = note(w.application, e, what) })
		}
		m.settle(e)
		m.alarm(e)
	}
}

// confineECC puts a device into quarantine over memory errors. m.mu is held.
func (m *Manager) confineECC(e *entry, what string, at time.Time, gap bool) {
	m.confine(e, quarantine{Kind: QuarantineECC, What: what, Remedy: remedyMemory, At: at, Gap: gap})
	m.windowsOf(e, func(w *window) { w.device = note(w.device, e, what) })
	m.settle(e)
	m.alarm(e)
}

// concerned returns the devices that an event is about: the one it names, or the
// instances of the GPU that it names; all of them where it concerns the host, or
// where the driver does not say which. A device that is not this daemon's is none.
func (m *Manager) concerned(uuid string, host bool) (list []*entry) {
	for _, e := range m.sorted() {
		if host || uuid == "" || e.facts.UUID == uuid || e.facts.ParentUUID == uuid {
			list = append(list, e)
		}
	}
	return list
}

// takeECC compares a device's count of uncorrectable errors with what was last
// known of it. Errors since the driver was loaded that nobody has cleared count at
// first sight, too: only a reset makes such a device whole. m.mu is held.
func (m *Manager) takeECC(e *entry, first bool, now time.Time) {
	if e.facts.ECC == nil {
		return
	}
	count, known := e.facts.ECC.Uncorrected, uint64(0)
	if e.uncorrected != nil {
		known = *e.uncorrected
	}
	e.uncorrected = &count
	if known != count {
		m.file.dirty = true
	}
	if count > known {
		m.confineECC(e, fmt.Sprintf("uncorrectable memory errors: %d since the driver was loaded, %d before", count, known), now, first)
	}
}

func times(count int) string {
	if count > 1 {
		return fmt.Sprintf(" %d times", count)
	}
	return ""
}

// clock is a time of the day for people; zero where nobody knows.
func clock(at time.Time) string {
	if at.IsZero() {
		return "an unknown time"
	}
	return at.UTC().Format(time.TimeOnly + "Z")
}
