package history

import "gpuqd/daemon/job"

// delivery is a message that a host holds.
type delivery struct {
	host  string
	tag   Tag
	taken int // place in the history; -1 where that was not seen
}

// unjustifiedAck: a message is removed only when somebody else answers for its
// job. An ack of host H for a delivery that it took is right when, as it takes
// effect,
//
//   - the message was set aside since it was taken, or
//   - the job is over, or parked, or held by another host: the ledger remembers
//     (that other owner may have come and gone since H read of him: see the next), or
//   - the job is queued or retrying, and has become that since the message was
//     taken: by H's own commit, or another's release or takeover, which publish; or
//     H has published a message of it since, or
//   - H holds the job, or the job is queued or retrying, and H still has another
//     delivery of it, or
//   - H holds the job, by a claim later than one that was handed over (queued or
//     retrying again) since the message was taken: an ack that follows its commit
//     late, while the job has come back already, or
//   - H holds the job, by a claim that will end by takeover: its session is not, or
//     will not be, live, and takeover publishes.
//
// Above all, it is wrong while H itself holds the job and has no other delivery
// (an ack before the commit), and while the job is queued as it was when the
// message was taken (an ack of another message's tag, or a done-cache that lies).
//
// The ledger is read some time before the ack takes effect. Each state that a
// read may have named leads, by a transition after that read, only to states in
// which the list above holds: so the rule needs no knowledge of the read.
func (b *book) unjustifiedAck(t *trace) {
	var room [8]delivery
	held := room[:0]
	for i, m := range t.messages {
		switch m.Kind {
		case Taken:
			held = append(held, delivery{m.Host, m.Tag, m.pos})
		case Returned:
			held, _ = remove(held, m)
		case Acked:
			var d delivery
			held, d = remove(held, m)
			if why := b.whyNotAck(t, t.messages[:i], m, d, held); why != "" {
				b.report(UnjustifiedAck, t, m.Host, []*Event{t.takenEvent(d, i), t.before(m.pos), m.Event}, "%s", why)
			}
		}
	}
}

// remove takes the delivery that an event names from those that are held.
func remove(held []delivery, m fact) ([]delivery, delivery) {
	for i, d := range held {
		if d.host == m.Host && d.tag == m.Tag {
			return append(held[:i], held[i+1:]...), d
		}
	}
	return held, delivery{m.Host, m.Tag, -1}
}

// whyNotAck says what is wrong with an ack; "" where nothing is.
func (b *book) whyNotAck(t *trace, before []fact, ack fact, d delivery, held []delivery) string {
	if d.answered(before, SetAside, ack.Host) {
		return ""
	}
	n := t.stepsBefore(ack.pos)
	if n == 0 {
		return "the ledger has no such job, and the message was not set aside"
	}
	now := t.steps[n-1]
	another := false
	for _, other := range held {
		another = another || other.host == ack.Host
	}
	switch {
	case now.State.Held():
		c := t.claimAt(ack.pos)
		if c == nil || c.start.Host != ack.Host || another || c.willBeTakenOver() || t.handedOver(d.taken, n) {
			return ""
		}
		return "its host holds the job, has neither committed nor handed it over, and has no other delivery of it"
	case now.State == job.Queued, now.State == job.Retrying:
		handed := now.pos > d.taken || d.answered(before, Published, ack.Host) || d.answered(before, Republished, ack.Host)
		blind := now.State == job.Retrying && !b.published // a wait that is prolonged cannot be told
		if handed || another || blind {
			return ""
		}
		return "the job is " + string(now.State) + " as it was when the message was taken, and nothing was handed over since"
	}
	return ""
}

// handedOver reports whether one of the first n transitions, after a place in the
// history that is known, left the job to whoever takes its next message.
func (t *trace) handedOver(after, n int) bool {
	for i := n - 1; i >= 0 && after >= 0 && t.steps[i].pos > after; i-- {
		if s := t.steps[i].State; s == job.Queued || s == job.Retrying {
			return true
		}
	}
	return false
}

// answered reports whether the host has done a thing since it took the delivery.
func (d delivery) answered(before []fact, kind Kind, host string) bool {
	for i := len(before) - 1; i >= 0 && before[i].pos > d.taken; i-- {
		if m := before[i]; m.Kind == kind && (m.Host == host || m.Host == "") {
			return true
		}
	}
	return false
}

// stepsBefore counts the transitions before a place in the history.
func (t *trace) stepsBefore(pos int) int {
	n := len(t.steps)
	for n > 0 && t.steps[n-1].pos > pos {
		n--
	}
	return n
}

// before returns the transition that made the job what it is at a place.
func (t *trace) before(pos int) *Event {
	if n := t.stepsBefore(pos); n > 0 {
		return t.steps[n-1].Event
	}
	return nil
}

// claimAt returns the claim under which the job is held at a place.
func (t *trace) claimAt(pos int) *claim {
	for i := len(t.claims) - 1; i >= 0; i-- {
		if c := &t.claims[i]; c.start.pos < pos && !c.over(pos) {
			return c
		}
	}
	return nil
}

// willBeTakenOver reports whether a claim ends by takeover.
func (c *claim) willBeTakenOver() bool {
	return c.end.Event != nil && len(c.end.ID) > len(takeoverPrefix) && c.end.ID[:len(takeoverPrefix)] == takeoverPrefix
}

// takenEvent returns the event of a delivery among the first i messages.
func (t *trace) takenEvent(d delivery, i int) *Event {
	for _, m := range t.messages[:i] {
		if m.pos == d.taken {
			return m.Event
		}
	}
	return nil
}
