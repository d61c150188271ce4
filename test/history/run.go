package history

import (
	"time"

	"gpuqd/daemon/job"
)

// period is a time in which an attempt ran.
type period struct{ from, to time.Time }

// periods returns when an execution ran: not while it was frozen, nor while its
// whole host stood still.
func (b *book) periods(r execution) []period {
	end := b.last
	if r.finished.Event != nil {
		end = r.finished.At
	}
	var list []period
	from, frozen := r.began.At, false
	for _, h := range r.halts {
		switch {
		case h.Kind == Halted && !frozen:
			list = append(list, period{from, h.At})
			frozen = true
		case h.Kind == Went && frozen:
			from, frozen = h.At, false
		}
	}
	if !frozen {
		list = append(list, period{from, end})
	}
	for _, p := range b.pauses {
		if p.host == r.began.Host {
			list = without(list, p)
		}
	}
	return list
}

// without cuts a pause out of periods.
func without(list []period, p pause) []period {
	var rest []period
	for _, q := range list {
		if !p.from.Before(q.to) || !q.from.Before(p.to) {
			rest = append(rest, q)
			continue
		}
		if q.from.Before(p.from) {
			rest = append(rest, period{q.from, p.from})
		}
		if p.to.Before(q.to) {
			rest = append(rest, period{p.to, q.to})
		}
	}
	return rest
}

// overlap: attempts of one job do not run at one time. Of two that do, the one
// with the lower number is the one that should have stopped.
func (b *book) overlap(t *trace) {
	for i := range t.runs {
		for k := range t.runs[:i] {
			early, late := t.runs[k], t.runs[i]
			if early.began.Attempt > late.began.Attempt {
				early, late = late, early
			}
			if early.began.Attempt != late.began.Attempt { // else beganTwice
				b.overlapOf(t, early, late)
			}
		}
	}
}

// overlapOf reports the first overlap of two attempts that is not excused, else
// the first.
func (b *book) overlapOf(t *trace, early, late execution) {
	if apart(early, late) || apart(late, early) {
		return
	}
	until := b.excuse(t.claimOf(early.began.Attempt, early.began.Host))
	var first period
	found, excused := false, true
	others := b.periods(late)
	for _, p := range b.periods(early) {
		for _, q := range others {
			from, to := latest(p.from, q.from), earliest(p.to, q.to)
			if !from.Before(to) {
				continue
			}
			ok := b.rules.OnLoss == "continue" || p.to.Sub(from) <= b.rules.Tick || !p.to.After(until)
			if !found || excused && !ok {
				first, found, excused = period{from, to}, true, ok
			}
		}
	}
	if !found {
		return
	}
	v := b.report(Overlap, t, early.began.Host, []*Event{early.began.Event, late.began.Event, early.finished.Event, late.finished.Event},
		"attempt %d on %s and attempt %d on %s ran at one time for %s",
		early.began.Attempt, early.began.Host, late.began.Attempt, late.began.Host, first.to.Sub(first.from))
	v.Excused = excused
}

// apart reports whether an execution was over when another began.
func apart(a, b execution) bool { return a.finished.Event != nil && a.finished.pos < b.began.pos }

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// tooManyExecutions: a job runs once, and once more for each retry, each requeue
// that somebody wanted, and, at most, each fault.
func (b *book) tooManyExecutions(t *trace) {
	if len(t.runs) < 2 {
		return
	}
	retries, requeues := 0, 0
	for _, s := range t.steps {
		switch {
		case s.State == job.Retrying:
			retries++
		case s.State == job.Queued && s.from.Held() && wanted(job.Class(s.Class)):
			requeues++
		}
	}
	most := 1 + b.faults*max(b.rules.FaultCost, 1) + b.rules.Mishaps + retries + requeues
	if len(t.runs) <= most {
		return
	}
	events := make([]*Event, 0, len(t.runs))
	for _, r := range t.runs {
		events = append(events, r.began.Event)
	}
	b.report(TooManyExecutions, t, "", events, "it ran %d times; %d faults, %d retries and %d requeues on purpose allow %d",
		len(t.runs), b.faults, retries, requeues, most)
}

// wanted reports whether somebody or something took an attempt's devices away on
// purpose.
func wanted(c job.Class) bool {
	return c == job.ClassDevice || c == job.ClassDrained || c == job.ClassPreempted
}

// beganTwice: an attempt begins once, whatever is restarted.
func (b *book) beganTwice(t *trace) {
	for i, r := range t.runs {
		for _, o := range t.runs[:i] {
			if o.began.Attempt == r.began.Attempt {
				b.report(BeganTwice, t, r.began.Host, []*Event{o.began.Event, r.began.Event}, "attempt %d began on %s and again on %s",
					r.began.Attempt, o.began.Host, r.began.Host)
			}
		}
	}
}

// beganUnclaimed: nothing begins before its host has claimed it.
func (b *book) beganUnclaimed(t *trace) {
	for _, r := range t.runs {
		c := t.claimOf(r.began.Attempt, r.began.Host)
		if c == nil || c.start.pos > r.began.pos {
			b.report(BeganUnclaimed, t, r.began.Host, []*Event{t.before(r.began.pos), r.began.Event}, "attempt %d began on %s, which had not claimed it",
				r.began.Attempt, r.began.Host)
		}
	}
}

// ranAfterEnd: nothing begins under a claim that is over.
func (b *book) ranAfterEnd(t *trace) {
	for _, r := range t.runs {
		c := t.claimOf(r.began.Attempt, r.began.Host)
		if c == nil || !c.over(r.began.pos) {
			continue
		}
		v := b.report(RanAfterEnd, t, r.began.Host, []*Event{c.start.Event, c.end.Event, r.began.Event},
			"attempt %d began %s after its claim had ended", r.began.Attempt, r.began.At.Sub(c.end.At))
		v.Excused = c.willBeTakenOver() && r.began.At.Sub(c.end.At) <= b.rules.Tick || !r.began.At.After(b.excuse(c))
	}
}
