package history

import (
	"time"

	"gpuqd/daemon/job"
)

// Faults counts the faults of a history by class.
func Faults(events []Event) map[string]int {
	n := map[string]int{}
	for i := range events {
		if events[i].Kind == Fault {
			n[events[i].Class]++
		}
	}
	return n
}

// Executions counts how often the payload of each job began.
func Executions(events []Event) map[job.ID]int {
	n := map[job.ID]int{}
	for i := range events {
		if events[i].Kind == Began {
			n[events[i].Job]++
		}
	}
	return n
}

// Recovery is what followed a fault: how long until work went on. A negative time
// means that it did not, in this history.
type Recovery struct {
	Fault Event
	// Site is the time until an attempt that began after the fault, or went on
	// after having been frozen, ended its job with success, on any host.
	Site time.Duration
	// Host is the same on the host of the fault; Site where the fault has no host.
	Host time.Duration
	// All is the time until every job was over that was confirmed, and not over, at
	// the fault; 0 where there was none.
	All time.Duration
}

// RecoveryTimes returns what followed each fault, in the order of the faults.
func RecoveryTimes(events []Event) []Recovery {
	var list []Recovery
	for i := range events {
		if events[i].Kind != Fault {
			continue
		}
		r := Recovery{Fault: events[i], All: untilAllOver(events, i)}
		r.Site = untilWork(events, i, "")
		r.Host = r.Site
		if host := events[i].Host; host != "" {
			r.Host = untilWork(events, i, host)
		}
		list = append(list, r)
	}
	return list
}

// untilWork returns the time from an event until an attempt that came to life
// after it, on a host or, where that is "", on any, has ended its job with success.
func untilWork(events []Event, at int, host string) time.Duration {
	type attempt struct {
		id     job.ID
		number int
	}
	alive := map[attempt]bool{}
	for i := at; i < len(events); i++ {
		e := &events[i]
		if host != "" && e.Host != host {
			continue
		}
		key := attempt{e.Job, e.Attempt}
		switch {
		case e.Kind == Began, e.Kind == Went:
			alive[key] = true
		case e.Kind == Changed && e.State == job.Succeeded && alive[key]:
			return e.At.Sub(events[at].At)
		}
	}
	return -1
}

// untilAllOver returns the time from an event until every job is over that was
// confirmed by then, and not over.
func untilAllOver(events []Event, at int) time.Duration {
	waits, over := map[job.ID]bool{}, map[job.ID]bool{}
	for i := range events[:at] {
		switch e := &events[i]; {
		case e.Kind == Submitted:
			waits[e.Job] = true
		case e.Kind == Changed && e.State.Terminal():
			over[e.Job] = true
		}
	}
	for id := range over {
		delete(waits, id)
	}
	var took time.Duration
	for i := at; i < len(events) && len(waits) > 0; i++ {
		if e := &events[i]; e.Kind == Changed && e.State.Terminal() && waits[e.Job] {
			delete(waits, e.Job)
			took = e.At.Sub(events[at].At)
		}
	}
	if len(waits) > 0 {
		return -1
	}
	return took
}
