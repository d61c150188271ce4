package store

import (
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
)

// Part is the name of the ledger among the parts of a world.
const Part = "ledger"

// names are what a collection's documents are called in the names of steps.
var names = map[ledger.Collection]struct{ one, many string }{
	ledger.Jobs:        {"job", "jobs"},
	ledger.Hosts:       {"host", "hosts"},
	ledger.Events:      {"event", "events"},
	ledger.DeadLetters: {"dead letter", "dead letters"},
	ledger.Shapes:      {"shape", "shapes"},
	ledger.Meta:        {"meta", "meta"},
	ledger.Scratch:     {"scratch", "scratch"},
}

// insertStep names the step of the protocol that inserts into a collection.
func insertStep(c ledger.Collection) string {
	switch c {
	case ledger.Jobs:
		return "ledger submit"
	case ledger.Hosts:
		return "ledger insert host"
	}
	return Part + " " + names[c].one
}

// Steps that the server looks at itself.
const (
	renewStep = "ledger renew"
	drainStep = "ledger drain"

	endSessionStep = "ledger end session"
)

// updateStep names the step of the protocol that makes an update: see
// transitionStep for a job's transition.
func updateStep(c ledger.Collection, when []ledger.Cond, u ledger.Update) string {
	has := func(field string) bool { _, ok := u.Set[field]; return ok }
	switch {
	case c == ledger.Jobs && has("state"):
		return transitionStep(when, u)
	case c == ledger.Jobs && has("published_at"):
		return "ledger republish"
	case c == ledger.Jobs && has("kill"):
		return "ledger flag kill"
	case c == ledger.Hosts && (has("drain") || has("device_drains") || has("resumes")):
		return drainStep
	case c == ledger.Hosts && has("session"):
		return "ledger open session"
	case c == ledger.Hosts && has("session.renew_seq"):
		return renewStep
	case c == ledger.Hosts && has("session.state"):
		return endSessionStep
	case c == ledger.Meta:
		return "ledger probe"
	}
	return "ledger update " + names[c].one
}

// transitionStep names a job's transition by the state that it leads to, except for
// a takeover, which alone asks for the session of the owner, a hold, and a release.
func transitionStep(when []ledger.Cond, u ledger.Update) string {
	for _, cond := range when {
		switch cond.Field {
		case "owner.session":
			return "ledger takeover"
		case "hold.id":
			return "ledger release"
		}
	}
	if stateSet(u) == string(job.Waiting) {
		return "ledger hold"
	}
	return "ledger " + stateSet(u)
}

// stateSet returns the state that an update of a job sets.
func stateSet(u ledger.Update) string {
	switch s := u.Set["state"].(type) {
	case job.State:
		return string(s)
	case string:
		return s
	}
	return "update job"
}

func getStep(c ledger.Collection) string    { return "ledger read " + names[c].one }
func deleteStep(c ledger.Collection) string { return "ledger delete " + names[c].one }

func findStep(c ledger.Collection) string {
	if c == ledger.Jobs {
		return "ledger find jobs"
	}
	return "ledger list " + names[c].many
}

// findKey tells a query from others without naming what differs from run to run
// of one seed, such as the identity of a session.
func findKey(q ledger.Query) string {
	if len(q.When) == 0 {
		return q.Sort
	}
	first := q.When[0]
	if queue, ok := first.Value.(string); ok && first.Field == "queue" {
		return queue
	}
	return first.Field
}

// idKey is the document's identity where that is the same in each run of one
// seed; events have random ones.
func idKey(c ledger.Collection, id string) string {
	switch c {
	case ledger.Jobs, ledger.Hosts, ledger.Shapes, ledger.DeadLetters:
		return id
	}
	return ""
}
