package device

import (
	"fmt"
	"slices"
	"time"
)

// QuarantineKind says why a device was put into quarantine.
type QuarantineKind string

// The kinds of quarantine.
const (
	QuarantineXID     QuarantineKind = "xid"         // an XID of the class device
	QuarantineHost    QuarantineKind = "xid_host"    // an XID of the class host, of whichever device
	QuarantineUnknown QuarantineKind = "xid_unknown" // an XID without a row
	QuarantineECC     QuarantineKind = "ecc"         // uncorrectable memory errors
)

// QuarantineKinds lists every kind.
var QuarantineKinds = []QuarantineKind{QuarantineXID, QuarantineHost, QuarantineUnknown, QuarantineECC}

// quarantine keeps a device out until the host is rebooted or an operator resumes
// it, over restarts of the daemon.
type quarantine struct {
	Kind    QuarantineKind `json:"kind"`
	XID     int            `json:"xid,omitempty"`
	What    string         `json:"what"`   // what has happened, with figures
	Remedy  string         `json:"remedy"` // for a person
	At      time.Time      `json:"at"`
	Holders []Holder       `json:"holders,omitempty"` // whose attempts it happened under
	// Gap: it happened while no daemon looked, so under whatever attempt is found on
	// the device.
	Gap bool `json:"gap,omitempty"`
}

// ends reports whether attempts on the device must end. Of an unknown code nobody
// knows that they must.
func (q quarantine) ends() bool { return q.Kind != QuarantineUnknown }

// same reports whether two say the same but for the time.
func (q quarantine) same(other quarantine) bool { return q.Kind == other.Kind && q.XID == other.XID }

// weather is what decides on a device's state beside its own facts.
type weather struct {
	now     time.Time
	silence time.Duration // an older inventory is no ground to grant; 0: none is too old
	fast    time.Duration // of breakers; 0: there are none
	place   string        // how operators name the host
	host    *hostBreaker
}

// ailment returns why a device must take no work; "" when it is well. What explains
// most comes first.
//
// RemapPending alone is no ailment: the driver keeps programs off a row that waits to
// be remapped, NVIDIA asks for no more than a reset when one is convenient (XID 63: no
// action), and the uncorrectable error that mostly comes with it, or the driver's
// recovery action, puts the device out anyway.
//
// Source: NVIDIA GPU Memory Error Management, "Row Remapping"; Xid catalog.
func (e *entry) ailment(w weather) string {
	switch {
	case !e.seen:
		return "an attempt was found on it, and no inventory names it"
	case e.unheard != "":
		return e.unheard
	case e.lost:
		return lostReason
	case e.facts.Sick != "":
		return e.facts.Sick
	case e.missing != "":
		return e.missing
	case len(e.quarantines) > 0:
		return e.quarantined(w.place)
	case e.facts.Recovery != "":
		return recoveryReason(e.facts.Recovery)
	case e.facts.ECC != nil && e.facts.ECC.RemapFailed:
		return "its memory has no spare rows left: have it replaced"
	case w.silence > 0 && w.now.Sub(e.sampled) > w.silence:
		return fmt.Sprintf("nothing has been heard of it for more than %s; gpuqd-device may hang in the driver, look at the kernel log", w.silence)
	case e.check != nil && e.check.failed != "":
		return e.check.failed
	}
	return e.tripped(w)
}

const lostReason = "lost: the driver does not report it any more; look at the kernel log, then reset the device or restart the host; if it was taken away on purpose, as MIG instances are, restart gpuqd"

// quarantined says why the device is in quarantine, and how that ends.
func (e *entry) quarantined(place string) string {
	first := e.quarantines[0]
	text := fmt.Sprintf("%s: %s; then gpuqctl resume %s/%s", first.What, first.Remedy, place, e.facts.name())
	if more := len(e.quarantines) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more, the last: %s)", more, e.quarantines[more].What)
	}
	return text
}

// name is the device as an operator names it.
func (d Device) name() string {
	if d.Index == UnknownIndex {
		return d.UUID
	}
	return fmt.Sprint(d.Index)
}

func recoveryReason(action RecoveryAction) string {
	switch action {
	case RecoveryReset:
		return "the driver asks for a reset (gpu_reset): nvidia-smi --gpu-reset with gpuqd stopped, or reboot the host"
	case RecoveryReboot:
		return "the driver asks for a reboot of the host (node_reboot)"
	case RecoveryDrainP2P:
		return "the driver asks to drain the devices linked to it, and for a reset then (drain_p2p)"
	case RecoveryDrainReset:
		return "the driver asks for a reset once nothing runs on it (drain_and_reset)"
	}
	return fmt.Sprintf("the driver asks for the recovery action %s", action)
}

// tripped says that a breaker keeps the device out; "" where none does.
func (e *entry) tripped(w weather) string {
	if w.fast <= 0 {
		return ""
	}
	if e.breaker.open(w.now) {
		return fmt.Sprintf("%s; gpuqctl resume %s/%s ends it", e.breaker.reason("it", w.fast), w.place, e.facts.name())
	}
	if w.host.open(w.now) {
		return fmt.Sprintf("%s; gpuqctl resume %s ends it", w.host.reason("the devices of this host", w.fast), w.place)
	}
	if w.host.probing(w.now) && w.host.probe != (attemptKey{}) && e.holder(w.host.probe.id, w.host.probe.number) < 0 {
		return fmt.Sprintf("breaker: attempt %d of job %s is the one that is tried on this host; gpuqctl resume %s ends it",
			w.host.probe.number, w.host.probe.id, w.place)
	}
	return ""
}

// waits says what the device waits for before its next attempt; "" for nothing.
func (e *entry) waits(w weather) string {
	switch {
	case e.check != nil && len(e.check.attempts) == 0:
		return "it is looked at before its next attempt"
	case e.check != nil:
		return "it is looked at since its last attempt has left it"
	case w.fast > 0 && e.breaker.probing(w.now) && e.breaker.probe != (attemptKey{}):
		return fmt.Sprintf("breaker: attempt %d of job %s is the one that is tried on it", e.breaker.probe.number, e.breaker.probe.id)
	}
	return ""
}

// fatal says why attempts on the device must end now; "" where they need not. That
// nobody hears of it ends none, nor that it must take nothing new.
func (e *entry) fatal() string {
	for _, q := range e.quarantines {
		if q.ends() {
			return q.What
		}
	}
	return e.failing()
}

// failing says what keeps the device from going on with anything, as of now; "" where
// nothing does.
func (e *entry) failing() string {
	switch {
	case e.lost:
		return "the driver does not report it any more"
	case e.facts.Lost:
		return e.facts.Sick
	case e.facts.Recovery == RecoveryReset, e.facts.Recovery == RecoveryReboot:
		return recoveryReason(e.facts.Recovery)
	}
	return ""
}

// blame brings what must end attempts on a device into their windows, also of those
// that have ended by themselves. m.mu is held.
func (m *Manager) blame(e *entry) {
	if why := e.fatal(); why != "" {
		m.windowsOf(e, func(w *window) { w.device = note(w.device, e, why) })
	}
}

// confine puts a device into quarantine. It reports whether that is new. m.mu is
// held; the caller settles the entry.
func (m *Manager) confine(e *entry, q quarantine) (added bool) {
	q.Holders = slices.Clone(e.holders)
	for i := range e.quarantines {
		if known := &e.quarantines[i]; known.same(q) {
			for _, h := range q.Holders { // it happened under these, too
				if !slices.Contains(known.Holders, h) {
					known.Holders = append(known.Holders, h)
					m.file.dirty = true
				}
			}
			return false
		}
	}
	e.quarantines = append(e.quarantines, q)
	m.tally.quarantines[q.Kind]++
	m.file.dirty = true
	m.log.Warn("device quarantined", "device_uuid", e.facts.UUID, "reason", e.quarantined(m.host),
		"job_id", e.first().JobID, "attempt", e.first().Attempt)
	return true
}
