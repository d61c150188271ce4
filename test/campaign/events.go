package campaign

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/history"
)

// events makes one history, in the order of time, of what the harvest has.
//
// The clocks are one machine's, so times compare. What is known to less than
// that: a transition is stamped right before its write, a delivery right after
// its arrival, an ack right before it leaves, a payload's death at its last beat.
func (h *harvest) events(blows []*blow) []history.Event {
	var all []history.Event
	for id, at := range h.confirmed {
		all = append(all, history.Event{At: at, Kind: history.Submitted, Job: id})
	}
	writes := h.writes()
	for _, doc := range h.docs {
		all = append(all, h.transitions(doc, writes)...)
	}
	for _, x := range h.executions {
		all = append(all, h.execution(x)...)
	}
	all = append(all, h.messages()...)
	for _, b := range blows {
		if b.err != nil && b.began.IsZero() {
			continue // it was not done
		}
		e := history.Event{At: b.began, Kind: history.Fault, Class: string(b.Class), Reason: b.target}
		if len(b.hosts) == 1 {
			e.Host = b.hosts[0]
		}
		all = append(all, e)
	}
	for _, s := range h.strikes() {
		all = append(all, history.Event{At: s.began, Kind: history.Fault, Class: string(DeliveryTimeout), Host: s.host})
	}
	all = append(all, history.Event{At: h.healed, Kind: history.Healed})
	slices.SortStableFunc(all, func(a, b history.Event) int { return a.At.Compare(b.At) })
	return all
}

// write names a line of a daemon's log that tells of a write right after it.
type write struct {
	job     job.ID
	attempt int
	msg     string
}

// writes returns when the daemons logged the ends of attempts.
func (h *harvest) writes() map[write]time.Time {
	found := map[write]time.Time{}
	for _, e := range h.logs {
		if e.Msg == "attempt finished" {
			found[write{job.ID(e.Job), e.Attempt, e.Msg}] = e.Time
		}
	}
	return found
}

// lateWrite is how much later than its stamp a commit may have been logged and
// still count as made at its stamp. One that the ledger was not there to take is
// repeated with its first stamp.
const lateWrite = time.Second

// transitions makes events of the rows of a document's history.
func (h *harvest) transitions(doc *job.Job, writes map[write]time.Time) []history.Event {
	var list []history.Event
	var claim history.Event // the last one
	var last time.Time
	for i, row := range doc.History {
		e := history.Event{
			At: row.At.Time, Kind: history.Changed, Job: doc.ID, ID: row.ID, State: row.State, Host: row.Host,
			Class: string(row.Class), Reason: row.Reason, Attempt: claim.Attempt, Fence: claim.Fence,
		}
		if row.State == job.Claimed {
			e.Attempt, e.Fence, e.Claim = claim.Attempt+1, claim.Fence+1, row.ID
			e.Devices = h.journal[attemptKey{row.Host, runner.Key{JobID: doc.ID, Attempt: e.Attempt}}].devices
			claim = e
		}
		if row.State == job.Running {
			e.Claim, e.Devices = claim.Claim, claim.Devices
		}
		if strings.HasPrefix(row.ID, "commit-") {
			logged := writes[write{doc.ID, e.Attempt, "attempt finished"}]
			if i+1 < len(doc.History) && doc.History[i+1].At.Before(logged) {
				logged = doc.History[i+1].At.Time
			}
			if logged.Sub(e.At) > lateWrite {
				e.At = logged
			}
		}
		// The order of the rows is the truth.
		if e.At.Before(last) {
			e.At = last
		}
		last = e.At
		list = append(list, e)
	}
	return list
}

// execution makes events of what a payload's witness saw.
func (h *harvest) execution(x Execution) []history.Event {
	event := func(at time.Time, kind history.Kind) history.Event {
		return history.Event{At: at, Kind: kind, Job: x.Job, Host: x.Host, Attempt: x.Attempt}
	}
	began := event(x.Began, history.Began)
	began.Devices = x.Devices
	list := []history.Event{began}
	for _, halt := range x.Halts {
		list = append(list, event(halt.From, history.Halted), event(halt.To, history.Went))
	}
	finished := event(x.Last, history.Finished)
	finished.Code, finished.Complete = x.Code, x.Complete
	if exit := h.journal[attemptKey{x.Host, runner.Key{JobID: x.Job, Attempt: x.Attempt}}].exit; exit != nil && !x.Complete {
		finished.Code = exit.Code
		if exit.Ended.Sub(x.Last) >= haltMin {
			// It stood still, or was dead, before its end was noticed.
			list = append(list, event(x.Last, history.Halted))
			finished.At = exit.Ended
		}
	}
	return append(list, finished)
}

// generationsPerLife keeps the generations of two lives of a daemon apart: each
// life counts from 1.
const generationsPerLife = 1 << 32

// messages makes events of what the daemons say of deliveries. Those that a
// daemon holds go back to their queue with its connection, or with itself.
func (h *harvest) messages() []history.Event {
	var list []history.Event
	lives := map[string][]life{}
	for _, l := range h.lives {
		lives[l.host] = append(lives[l.host], l)
	}
	for host, of := range lives {
		held := map[history.Tag]job.ID{}
		n := 0
		dropAll := func(at time.Time, why string) {
			for tag, id := range held {
				list = append(list, history.Event{At: at, Kind: history.Returned, Job: id, Host: host, Tag: tag, Reason: why})
			}
			clear(held)
		}
		for _, e := range h.logs {
			if e.host != host || e.raw != "" {
				continue
			}
			for n+1 < len(of) && !e.Time.Before(of[n+1].began) {
				dropAll(of[n].over, "its daemon ended")
				n++
			}
			tag := history.Tag{Generation: uint64(n)*generationsPerLife + e.Generation, Delivery: e.Tag}
			event := history.Event{At: e.Time, Job: job.ID(e.Job), Host: host, Tag: tag, Reason: e.Reason}
			_, has := held[tag]
			switch {
			case e.Msg == "message taken":
				event.Kind = history.Taken
				held[tag] = event.Job
			case e.Msg == "message acked" && has:
				event.Kind = history.Acked
				delete(held, tag)
			case e.Msg == "message given back" && has:
				event.Kind = history.Returned
				delete(held, tag)
			case e.Msg == takeLost:
				dropAll(e.Time, e.Err)
				continue
			case e.Msg == "message of a queued job is not in its queue; publishing it again":
				event.Kind, event.Tag = history.Republished, history.Tag{}
			default:
				continue
			}
			list = append(list, event)
		}
		dropAll(h.ended, "the campaign ended")
	}
	slices.SortStableFunc(list, func(a, b history.Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Tag.Generation, b.Tag.Generation), cmp.Compare(a.Tag.Delivery, b.Tag.Delivery))
	})
	return list
}

// takeLost is what a daemon logs when the connection with its deliveries is lost.
const takeLost = "take connection to the broker lost"

// strike is one consumer_timeout as a daemon met it.
type strikeOfTimeout struct {
	host  string
	began time.Time
	// took is the time until the daemon took a message again; negative: it did
	// not, in this campaign.
	took time.Duration
}

// strikes returns the lost connections that the broker gave a consumer_timeout
// as the reason for.
func (h *harvest) strikes() []strikeOfTimeout {
	var list []strikeOfTimeout
	for i, e := range h.logs {
		if e.Msg != takeLost || !strings.Contains(e.Err, "timed out") || !strings.Contains(e.Err, "PRECONDITION_FAILED") {
			continue
		}
		s := strikeOfTimeout{host: e.host, began: e.Time, took: -1}
		for _, next := range h.logs[i:] {
			if next.host == e.host && next.Msg == "message taken" {
				s.took = next.Time.Sub(e.Time)
				break
			}
		}
		list = append(list, s)
	}
	return list
}
