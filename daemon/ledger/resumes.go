package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gpuqd/daemon/job"
)

// Resume is an operator's word that a device can be trusted again, for a host that
// could not be told at once: it takes it in at its next renewal. The latest of each
// device stays in the host's document.
type Resume struct {
	Device string   `json:"device"` // UUID; "" is what concerns the whole host
	Seq    int64    `json:"seq"`    // the host's drain_seq with this one: a host takes each in once
	Who    string   `json:"who"`
	At     job.Time `json:"at"`
}

// AskResume leaves a Resume in a host's document. Its Seq is set here. A repetition
// after an unknown outcome asks once more, which ends what is ended already.
func (l *Ledger) AskResume(ctx context.Context, host string, r Resume) (err error) {
	for range drainTries {
		h, readErr := l.Host(ctx, host)
		if readErr != nil {
			return fmt.Errorf("resume: %w", readErr)
		}
		r.Seq = h.DrainSeq + 1
		seq := Cond{"drain_seq", Eq, h.DrainSeq}
		if h.DrainSeq == 0 {
			seq.Value = nil // a host that was never drained does not have the field
		}
		_, err = l.store.Update(ctx, Hosts, host, []Cond{seq},
			Update{Set: map[string]any{"resumes": withResume(h.Resumes, r)}, Inc: map[string]int64{"drain_seq": 1}})
		if !errors.Is(err, ErrNoMatch) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("resume host %s: %w", host, err)
	}
	return nil
}

// withResume returns the list, by device, with one in the place of its forerunner.
func withResume(list []Resume, r Resume) []Resume {
	after := slices.DeleteFunc(slices.Clone(list), func(other Resume) bool { return other.Device == r.Device })
	after = append(after, r)
	slices.SortFunc(after, func(a, b Resume) int { return strings.Compare(a.Device, b.Device) })
	return after
}
