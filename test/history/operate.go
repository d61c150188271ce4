package history

import "gpuqd/daemon/job"

// drain is a time in which the ledger says that a host, or a device of it, is
// drained.
type drain struct {
	from   fact
	learnt fact // by the host; its Event is nil until then
	to     fact // its Event is nil while it lasts
}

// learn notes that a host knows of the drain that an event names.
func (b *book) learn(f fact) {
	for i := range b.drains {
		if d := &b.drains[i]; d.isOf(f) && d.learnt.Event == nil {
			d.learnt = f
		}
	}
}

// undrain ends the drain that an event names.
func (b *book) undrain(f fact) {
	for i := range b.drains {
		if d := &b.drains[i]; d.isOf(f) {
			d.to = f
		}
	}
}

// isOf reports whether the drain lasts, and an event names it.
func (d drain) isOf(f fact) bool {
	return d.to.Event == nil && d.from.Host == f.Host && d.device() == (drain{from: f}).device()
}

// device returns what is drained; "" is the whole host.
func (d drain) device() string {
	if len(d.from.Devices) == 0 {
		return ""
	}
	return d.from.Devices[0]
}

// covers reports whether an attempt is on what is drained.
func (d drain) covers(r execution) bool {
	return d.from.Host == r.began.Host && (len(d.from.Devices) == 0 || common(d.from, r.began) != "")
}

// lasts reports whether the host was drained at a place in the history.
func (d drain) lasts(pos int) bool { return during(d.from, d.to, pos) }

// isKnown reports whether the host also knew of it.
func (d drain) isKnown(pos int) bool { return d.learnt.Event != nil && during(d.learnt, d.to, pos) }

// during reports whether a place lies between two facts, the second of which may
// be still to come.
func during(from, to fact, pos int) bool {
	return from.pos < pos && (to.Event == nil || pos < to.pos)
}

// startedHeld: who is told that a job is held relies on it until he asks for its
// release.
func (b *book) startedHeld(t *trace) {
	for _, s := range t.steps {
		if s.State != job.Claimed {
			continue
		}
		for _, h := range t.holds {
			if during(h.from, h.to, s.pos) {
				b.report(StartedHeld, t, s.Host, []*Event{h.from.Event, s.Event}, "%s claimed it, and it was held", s.Host)
			}
		}
	}
}

// startedDrained: a daemon starts nothing on what it knows to be drained. What it
// had claimed before may still be on its way.
func (b *book) startedDrained(t *trace) {
	for _, r := range t.runs {
		c := t.claimOf(r.began.Attempt, r.began.Host)
		if c == nil {
			continue // else beganUnclaimed
		}
		for _, d := range b.drains {
			if d.covers(r) && d.isKnown(c.start.pos) && d.isKnown(r.began.pos) {
				b.report(StartedDrained, t, r.began.Host, []*Event{d.learnt.Event, c.start.Event, r.began.Event},
					"attempt %d was claimed and began on %s, which knew to be drained", r.began.Attempt, r.began.Host)
			}
		}
	}
}

// releasedRunning: a session that is released holds nothing that runs. A host has
// one at a time, and begins none before all of the last is gone, so nothing at all
// may run there.
func (b *book) releasedRunning(t *trace) {
	for _, r := range t.runs {
		for _, f := range b.releases {
			if f.Host == r.began.Host && during(r.began, r.finished, f.pos) {
				b.report(ReleasedRunning, t, f.Host, []*Event{r.began.Event, f.Event, r.finished.Event},
					"%s released its session while attempt %d ran there", f.Host, r.began.Attempt)
			}
		}
	}
}

// overcharged: of its own attempts a job pays with those alone that the history
// says it failed, and not with one that was ended under a drain.
func (b *book) overcharged(t *trace) {
	paid := 0
	for i := range t.steps {
		s := t.steps[i]
		switch owner, ok := ownerOf(s.ID); {
		case t.repeated(i) != nil:
		case job.Class(s.Class).Counts():
			paid++
			b.chargedForDrain(t, s)
		case s.State == job.Killed && ok && owner != "":
			paid++ // the end of the attempt, which a kill overtook, may have counted
		}
	}
	if doc := b.end.Jobs[t.id]; doc != nil && doc.Failures > paid {
		b.report(Overcharged, t, "", []*Event{t.ended(), t.before(b.size)}, "it has paid for %d failures, and its history has %d", doc.Failures, paid)
	}
}

// chargedForDrain reports a failure that the job paid for, of an attempt that did
// not come to its own end, on what was drained, with nothing broken there.
func (b *book) chargedForDrain(t *trace, s step) {
	if s.claim < 0 || job.Class(s.Class) == job.ClassTimeout {
		return
	}
	start := t.claims[s.claim].start
	r := t.runOf(start.Attempt, start.Host)
	if r == nil || r.finished.Event == nil || r.finished.Complete || b.brokenOn(start.Host, start.pos, s.pos) {
		return
	}
	for _, d := range b.drains {
		if d.covers(*r) && d.lasts(r.finished.pos) {
			b.report(Overcharged, t, s.Host, []*Event{d.from.Event, r.finished.Event, s.Event},
				"attempt %d was ended under a drain of %s, and the job paid for it as %s", start.Attempt, start.Host, s.Class)
			return
		}
	}
}

// brokenOn reports whether something was broken on a host between two places.
func (b *book) brokenOn(host string, from, to int) bool {
	for _, f := range b.broken {
		if from < f.pos && f.pos < to && (f.Host == host || f.Host == "") {
			return true
		}
	}
	return false
}
