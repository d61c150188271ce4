package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gpuqd/daemon/job"
)

// Drain keeps new attempts from a host or one device of it. It stays in force
// over restarts of the host, and over its sessions, until somebody resumes it.
type Drain struct {
	ID       string   `json:"id"` // tells this drain from another
	Who      string   `json:"who"`
	Reason   string   `json:"reason"`
	At       job.Time `json:"at"`
	Mode     string   `json:"mode"`     // finish, requeue or kill: what becomes of what runs
	Deadline job.Time `json:"deadline"` // when what is left is interrupted; zero is never
}

// DeviceDrain is the drain of one device.
type DeviceDrain struct {
	Device string `json:"device"` // UUID
	Drain
}

// drainTries bounds the turns of SetDrain: each is lost only to another change
// of the same host's drains.
const drainTries = 8

// SetDrain records the drain of a host, or of one device of it; nil ends it. A
// drain that is in force already is replaced by the new one. It returns the host
// as it is after, and whether that changed anything: a drain of the same ID is
// the work of an earlier call and counts as a change, and only a resume of what
// nobody drained as none. ErrNotFound for a host that the ledger does not know.
// The host's other fields are its own.
func (l *Ledger) SetDrain(ctx context.Context, host, device string, d *Drain) (h *Host, changed bool, err error) {
	unsure := false // a try of this call may have been applied
	for range drainTries {
		h, err = l.Host(ctx, host)
		if err != nil {
			return nil, false, fmt.Errorf("drain or resume: %w", err)
		}
		switch current := h.DrainOf(device); {
		case d == nil && current == nil:
			return h, unsure, nil
		case d != nil && current != nil && current.ID == d.ID:
			return h, true, nil
		}
		after, tryErr := l.changeDrain(ctx, h, device, d)
		if tryErr == nil {
			return after, true, nil
		}
		unsure = unsure || !errors.Is(tryErr, ErrNoMatch)
		err = tryErr
	}
	return nil, false, fmt.Errorf("drain or resume host %s: its drains changed %d times meanwhile; try again: %w", host, drainTries, err)
}

// changeDrain is one compare-and-set on the host's drains as read.
func (l *Ledger) changeDrain(ctx context.Context, h *Host, device string, d *Drain) (*Host, error) {
	set := map[string]any{"drain": d}
	if device != "" {
		set = map[string]any{"device_drains": withDrain(h.DeviceDrains, device, d)}
	}
	seq := Cond{"drain_seq", Eq, h.DrainSeq}
	if h.DrainSeq == 0 {
		seq.Value = nil // a host that was never drained does not have the field
	}
	doc, err := l.store.Update(ctx, Hosts, h.Name, []Cond{seq}, Update{Set: set, Inc: map[string]int64{"drain_seq": 1}})
	if err != nil {
		return nil, err
	}
	return decode[Host](doc)
}

// withDrain returns the list, by device, with one drain changed.
func withDrain(list []DeviceDrain, device string, d *Drain) []DeviceDrain {
	after := slices.DeleteFunc(slices.Clone(list), func(other DeviceDrain) bool { return other.Device == device })
	if d != nil {
		after = append(after, DeviceDrain{Device: device, Drain: *d})
	}
	slices.SortFunc(after, func(a, b DeviceDrain) int { return strings.Compare(a.Device, b.Device) })
	return append([]DeviceDrain{}, after...)
}

// DrainOf returns the drain of a device, or of the host itself where device is
// ""; nil where there is none. A device of a drained host has none of its own.
func (h *Host) DrainOf(device string) *Drain {
	if device == "" {
		return h.Drain
	}
	for i := range h.DeviceDrains {
		if h.DeviceDrains[i].Device == device {
			return &h.DeviceDrains[i].Drain
		}
	}
	return nil
}
