package job

import "slices"

// State is where a job stands in its life:
//
//	waiting ⇄ queued ──▶ claimed ──▶ running ──▶ succeeded
//	             ▲ ▲         │           ├──────▶ failed
//	             │ └─requeue─┴───────────┤──────▶ killed
//	             └──── retrying ◀────────┘        dead (from any state before running,
//	                                                    and from running as poison)
type State string

// The states of a job, each with who moves a job in and out.
const (
	// Waiting: parked in the ledger with a reason, its message acked. Whoever
	// removes the reason moves it to queued and publishes it.
	Waiting State = "waiting"
	// Queued: a message for it is, or is about to be, in its shape's queue.
	// Intake, release, takeover and requeue move in; a claim moves out.
	Queued State = "queued"
	// Claimed: one session holds it under a fence and is starting it.
	Claimed State = "claimed"
	// Running: its shim reported the start. A commit or a requeue moves it out.
	Running State = "running"
	// Retrying: an attempt failed and another is due at not_before.
	Retrying State = "retrying"
	// Succeeded: terminal. The command exited 0.
	Succeeded State = "succeeded"
	// Failed: terminal. No attempts are left, or the failure is not retried.
	Failed State = "failed"
	// Killed: terminal. A person ended it.
	Killed State = "killed"
	// Dead: terminal. It cannot run: poison, expired or refused.
	Dead State = "dead"
)

// States lists every state, in the order of a job's life.
var States = []State{Waiting, Queued, Claimed, Running, Retrying, Succeeded, Failed, Killed, Dead}

// next holds every legal transition of a job. A pair that is absent is a
// programming error, not a condition to recover from.
var next = map[State][]State{
	Waiting:   {Queued, Killed, Dead},
	Queued:    {Waiting, Claimed, Killed, Dead},
	Claimed:   {Queued, Waiting, Running, Succeeded, Failed, Retrying, Killed, Dead},
	Running:   {Queued, Succeeded, Failed, Retrying, Killed, Dead},
	Retrying:  {Waiting, Queued, Claimed, Killed, Dead},
	Succeeded: nil,
	Failed:    nil,
	Killed:    nil,
	Dead:      nil,
}

// Allowed reports whether a job may move from one state to another. A commit
// from claimed is legal: a command can end before its start was recorded.
func Allowed(from, to State) bool { return slices.Contains(next[from], to) }

// Sources returns the states that may move to the given one.
func Sources(to State) []State {
	var from []State
	for _, s := range States {
		if Allowed(s, to) {
			from = append(from, s)
		}
	}
	return from
}

// Terminal reports whether a job in this state stays there for good.
func (s State) Terminal() bool { return s.Valid() && len(next[s]) == 0 }

// Held reports whether a session owns the job in this state.
func (s State) Held() bool { return s == Claimed || s == Running }

// Valid reports whether s is one of States.
func (s State) Valid() bool { return slices.Contains(States, s) }
