package device

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

const (
	// breakerJobs is how many different jobs in a row must have failed fast.
	breakerJobs = 3
	// breakerKinds is of how many kinds they must have been, unless their one kind
	// ran well elsewhere meanwhile: one user's broken batch takes no device out.
	breakerKinds = 2
	breakerFirst = time.Minute // out for so long at first, and twice as long after each probe of another kind that fails
	breakerMost  = time.Hour
)

// Ending is how an attempt ended, for the breakers. Rehearsals, and attempts that a
// person or the site ended, are none of their business.
type Ending struct {
	JobID   job.ID
	Attempt int
	Devices []string
	Kind    string    // of the job: its submitter, and the first two words of its command
	Class   job.Class // "" is success
	Lasted  time.Duration
}

// outcome is what an ending says of where it ran.
type outcome int

const (
	saysNothing outcome = iota
	ranWell             // it succeeded, or ran for longer than a fast failure does
	failedFast
)

// says weighs an ending; fast is below what duration a failure is fast.
func (e Ending) says(fast time.Duration) outcome {
	switch {
	case e.Class == "":
		return ranWell
	case e.Class != job.ClassUser && e.Class != job.ClassDevice && e.Class != job.ClassOOMGPU:
		return saysNothing
	case e.Lasted < fast:
		return failedFast
	}
	return ranWell
}

// failure is one fast failure of a row.
type failure struct {
	JobID job.ID `json:"job_id"`
	Kind  string `json:"kind"`
}

// breaker takes a device, or the devices of a host, out when one job after the other
// fails there at once. It is a plain value, and its methods are told the time.
//
//	closed ──row of fast failures──▶ open ──time──▶ probing: one job ──well──▶ closed
//	                                  ▲                     └──fails fast──┘ (twice as long, if that is news)
type breaker struct {
	Row   []failure     `json:"row,omitempty"`   // fast failures since the last good run, one a job, the latest last
	Since time.Time     `json:"since,omitzero"`  // of the first of the row
	Until time.Time     `json:"until,omitzero"`  // out until then; zero is closed
	Wait  time.Duration `json:"wait,omitempty"`  // the length of this turn
	Opens int           `json:"opens,omitempty"` // turns in a row

	probe   attemptKey // the one attempt that runs as a probe, until its ending is known
	probeAt time.Time  // when it was granted
}

// rowMax bounds a row: more names help nobody.
const rowMax = 8

func (b *breaker) closed() bool            { return b.Until.IsZero() }
func (b *breaker) open(now time.Time) bool { return now.Before(b.Until) }

// probing reports whether the next attempt is a probe, or one runs.
func (b *breaker) probing(now time.Time) bool { return !b.closed() && !b.open(now) }

// grant notes that an attempt begins.
func (b *breaker) grant(who attemptKey, now time.Time) {
	if b.probing(now) {
		b.probe, b.probeAt = who, now
	}
}

// outlived reports whether a probe runs for longer than a fast failure does. That is
// word enough: nothing else waits for its end, which may be days away.
func (b *breaker) outlived(now time.Time, fast time.Duration) bool {
	return b.probe != (attemptKey{}) && now.Sub(b.probeAt) >= fast
}

// forget notes that an attempt is gone whose ending nobody told.
func (b *breaker) forget(who attemptKey) {
	if b.probe == who {
		b.probe = attemptKey{}
	}
}

// end takes an ending in. elsewhere reports whether the kind of job ran well
// elsewhere since the time given. It reports whether the breaker has opened.
func (b *breaker) end(who attemptKey, kind string, said outcome, now time.Time, elsewhere func(kind string, since time.Time) bool) (opened bool) {
	probed := b.probe == who && b.probing(now)
	b.forget(who)
	switch said {
	case saysNothing:
		return false
	case ranWell:
		*b = breaker{}
		return false
	}
	// Of a kind that failed before and ran well nowhere meanwhile it is no news.
	news := !slices.ContainsFunc(b.Row, func(f failure) bool { return f.Kind == kind }) || elsewhere(kind, b.Since)
	if i := slices.IndexFunc(b.Row, func(f failure) bool { return f.JobID == who.id }); i >= 0 {
		b.Row = slices.Delete(b.Row, i, i+1)
	}
	if len(b.Row) == 0 {
		b.Since = now
	}
	b.Row = append(b.Row, failure{who.id, kind})
	b.Row = b.Row[max(0, len(b.Row)-rowMax):]
	switch {
	case probed && news:
		b.Wait = min(2*b.Wait, breakerMost)
	case probed: // as long again: the rest of one user's broken batch must not close the place for hours
	case b.closed() && b.trips(elsewhere):
		b.Wait = breakerFirst
	default:
		return false
	}
	b.Until = now.Add(b.Wait)
	b.Opens++
	return true
}

// changedBy reports whether an ending changes what is kept of the breaker.
func (b *breaker) changedBy(said outcome) bool {
	return said == failedFast || said == ranWell && len(b.Row) > 0
}

// trips reports whether the row says that the place is at fault, not the jobs.
func (b *breaker) trips(elsewhere func(kind string, since time.Time) bool) bool {
	if len(b.Row) < breakerJobs {
		return false
	}
	kinds := map[string]bool{}
	for _, f := range b.Row {
		kinds[f.Kind] = true
	}
	return len(kinds) >= breakerKinds || elsewhere(b.Row[0].Kind, b.Since)
}

// reason says for people why the breaker is open; place is what it is of.
func (b *breaker) reason(place string, fast time.Duration) string {
	last := b.Row[max(0, len(b.Row)-breakerJobs):]
	ids := make([]string, len(last))
	for i, f := range last {
		ids[i] = string(f.JobID)
	}
	return fmt.Sprintf("breaker: job after job failed within %s on %s, last %s; out until %s, then one job is tried",
		fast, place, strings.Join(ids, ", "), b.Until.UTC().Format(time.TimeOnly+"Z"))
}

// hostBreaker is the breaker over all devices of a host. It opens only where more
// than one of them is involved: else the device's own tells more.
type hostBreaker struct {
	breaker
	Devices []string `json:"devices,omitempty"` // that the row's failures were on
}

// end is breaker.end for the host.
func (h *hostBreaker) end(who attemptKey, kind string, devices []string, said outcome, now time.Time) (opened bool) {
	if said == failedFast {
		for _, uuid := range devices {
			if !slices.Contains(h.Devices, uuid) {
				h.Devices = append(h.Devices, uuid)
			}
		}
	}
	if said == ranWell {
		h.Devices = nil
	}
	if len(h.Devices) < 2 && h.closed() {
		// The row is kept all the same: the next failure may be on a second device.
		held := h.breaker
		held.end(who, kind, said, now, nobodyElse)
		held.Until, held.Wait, held.Opens = time.Time{}, 0, 0
		h.breaker = held
		return false
	}
	return h.breaker.end(who, kind, said, now, nobodyElse)
}

// nobodyElse knows of no other place.
func nobodyElse(string, time.Time) bool { return false }
