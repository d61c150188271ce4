// Package history judges what happened to jobs: it takes the events of one run,
// simulated or real, and says which promises they break. It knows nothing of
// how the events came about.
package history

import (
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Kind says what an event tells.
type Kind string

// The kinds of events. Where a kind needs more than Job, Host and At, its comment
// says so.
const (
	// Submitted: the client was told that the job is in the ledger.
	Submitted Kind = "submitted"
	// Changed: a transition of the job is in the ledger. State, ID of the write,
	// Attempt, Fence, Class; Claim and Devices where the job is held after it;
	// Host is the host that holds it, or that made the change.
	Changed Kind = "changed"
	// Republished: the ledger granted the publication of a queued job anew.
	// Needless says that a message of it was ready in its queue all the time.
	Republished Kind = "republished"
	// Published: a message of the job entered the broker, into its queue or the
	// retry ladder. Host published it.
	Published Kind = "published"

	// Taken: the broker handed a message of the job to the host. Tag.
	Taken Kind = "taken"
	// Acked: the broker removed a message of the job for the host. Tag.
	Acked Kind = "acked"
	// Returned: a message held by the host went back to its queue, by the host's
	// own wish or with its connection. Tag.
	Returned Kind = "returned"
	// SetAside: a message of the job was dead-lettered with a reason.
	SetAside Kind = "set_aside"

	// Began: the payload's first instruction, by its own witness. Attempt, Devices,
	// Share.
	Began Kind = "began"
	// Halted: the payload was frozen. Attempt.
	Halted Kind = "halted"
	// Went: a frozen payload was thawed. Attempt.
	Went Kind = "went"
	// Finished: the payload's last instruction, or its death. Attempt; Code, and
	// Complete where the payload itself came to its end.
	Finished Kind = "finished"

	// Fault: something was broken on purpose. Reason names it; Class is its kind.
	Fault Kind = "fault"
	// Healed: nothing is broken any more.
	Healed Kind = "healed"
	// Held: a person was told that the job waits until it is released.
	Held Kind = "held"
	// Released: a person asks for the release of a job: it may start from here on.
	Released Kind = "released"
	// Drained: the ledger has a drain of the host, or, where there is one in Devices,
	// of that device.
	Drained Kind = "drained"
	// Learnt: the host's daemon knows of the drain. Devices as of Drained.
	Learnt Kind = "learnt"
	// Undrained: the ledger has no such drain any more. Devices as of Drained.
	Undrained Kind = "undrained"
	// SessionReleased: the ledger has the session of the host closed by the host
	// itself: whatever the session held is free for others.
	SessionReleased Kind = "session_released"
	// Paused: the host itself stood still from here (SIGSTOP of all, a suspended
	// machine), until Resumed.
	Paused  Kind = "paused"
	Resumed Kind = "resumed"
)

// Event is one fact about one job or host. Fields that a kind does not name are
// zero.
type Event struct {
	At       time.Time
	Kind     Kind
	Job      job.ID
	Host     string
	Attempt  int
	Fence    int64
	Claim    string
	ID       string // of the write
	State    job.State
	Class    string // of failure; of the fault
	Devices  []string
	Share    uint64 // bytes of its one device; 0 is whole devices
	Code     int
	Complete bool
	Needless bool
	Tag      Tag
	Reason   string
}

// Tag names a delivery: its host, the generation of the connection, its number.
type Tag struct {
	Generation uint64
	Delivery   uint64
}

// String is one line for a person.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-11s", e.At.Format("04:05.000"), e.Kind)
	add := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	if e.Job != "" {
		add("job=%s", short(string(e.Job)))
	}
	if e.Host != "" {
		add("host=%s", e.Host)
	}
	if e.State != "" {
		add("state=%s", e.State)
	}
	if e.Attempt != 0 {
		add("attempt=%d", e.Attempt)
	}
	if e.Fence != 0 {
		add("fence=%d", e.Fence)
	}
	if e.Tag != (Tag{}) {
		add("tag=%d/%d", e.Tag.Generation, e.Tag.Delivery)
	}
	if e.Class != "" {
		add("class=%s", e.Class)
	}
	if e.Kind == Finished {
		add("code=%d complete=%t", e.Code, e.Complete)
	}
	if len(e.Devices) > 0 {
		add("devices=%s", strings.Join(e.Devices, ","))
	}
	if e.Share > 0 {
		add("share=%d", e.Share)
	}
	if e.Reason != "" {
		add("(%s)", e.Reason)
	}
	return b.String()
}

// short leaves of an ID what tells it from others of one run.
func short(id string) string {
	if len(id) > 8 {
		return "…" + id[len(id)-6:]
	}
	return id
}
