package control

import (
	"context"
	"fmt"

	"gpuqd/daemon/job"
)

// SimulateAction is a step of a rehearsal of faults.
type SimulateAction string

// The actions. A client arms, submits the job under the ID that it armed for,
// asks for the status until the end, and disarms.
const (
	SimulateArm    SimulateAction = "arm"    // record the rehearsal, and set its fault up
	SimulateStatus SimulateAction = "status" // what this process of gpuqd has seen of the job
	SimulateDisarm SimulateAction = "disarm" // no fault strikes any more
	SimulateWedge  SimulateAction = "wedge"  // one loop of the daemon blocks for good: for the watchdog to find
)

// Scenario is what a rehearsal plays. It is a number: people say it.
type Scenario int

// The scenarios.
const (
	ScenarioNormal  Scenario = iota // no fault
	ScenarioError                   // the payload itself fails at its first attempt
	ScenarioMidJob                  // the worker dies, with the job's processes, while it runs
	ScenarioAckLost                 // committed, but the ack is lost with its connection
	ScenarioLate                    // the worker dies after the work, before the ack
)

// ScenarioMax is the last of them.
const ScenarioMax = ScenarioLate

// SimulateMoment is when the fault of ScenarioLate strikes.
type SimulateMoment string

// The moments.
const (
	MomentExit   SimulateMoment = "exit"   // the exit record is on disk, nothing is committed
	MomentCommit SimulateMoment = "commit" // the result is committed
)

// SimulateArgs is a request to one host, which any daemon passes on.
type SimulateArgs struct {
	Action   SimulateAction `json:"action"`
	Host     string         `json:"host"`
	Job      job.ID         `json:"job"`
	Scenario Scenario       `json:"scenario,omitempty"` // arm only
	Moment   SimulateMoment `json:"moment,omitempty"`   // arm of ScenarioLate only; "" is MomentExit
	Loop     string         `json:"loop,omitempty"`     // wedge only: lease, watch, take, drain, sweep or ledger probe
}

// SimulateReply is what the host says. The notes are of the process that
// answers: those of one that died are gone with it, but for the strike.
type SimulateReply struct {
	Host    string         `json:"host"`
	Daemon  string         `json:"daemon"`           // tells this process of gpuqd from those before and after it
	Ready   job.Time       `json:"ready,omitzero"`   // since when it takes work; zero during start-up
	Pool    string         `json:"pool"`             // to submit the job to
	Armed   bool           `json:"armed,omitempty"`  // a fault of this job waits for its step
	Struck  job.Time       `json:"struck,omitzero"`  // when the fault struck, as it was put on disk before
	Missed  string         `json:"missed,omitempty"` // why the fault did not strike, though its step came
	Notes   []SimulateNote `json:"notes,omitempty"`  // oldest first
	Expires job.Time       `json:"expires,omitzero"` // when the arming ends by itself
}

// SimulateNote is one thing that the daemon did with a message of the job.
type SimulateNote struct {
	At   job.Time         `json:"at"`
	What SimulateNoteKind `json:"what"`
	Text string           `json:"text,omitempty"` // the queue, or what turned the message away
}

// SimulateNoteKind is a closed set.
type SimulateNoteKind string

// The kinds of notes.
const (
	NoteDelivered   SimulateNoteKind = "delivered"   // Text: the queue
	NoteRedelivered SimulateNoteKind = "redelivered" // the broker had handed it out before; Text: the queue
	NoteDuplicate   SimulateNoteKind = "duplicate"   // turned away; Text: done_cache, ledger, own or held
	NoteAdopted     SimulateNoteKind = "adopted"     // the attempt was found in the journal; Text: its number
)

func doSimulate(ctx context.Context, h Handler, c Caller, args SimulateArgs) (any, error) {
	switch args.Action {
	case SimulateArm, SimulateStatus, SimulateDisarm, SimulateWedge:
	default:
		return nil, Errorf(CodeBadRequest, "want arm, status, disarm or wedge", "%q is no action of a rehearsal", args.Action)
	}
	if err := checkHost(args.Host); err != nil {
		return nil, err
	}
	if wedge := args.Action == SimulateWedge; wedge != (args.Loop != "") {
		return nil, Errorf(CodeBadRequest, "name a loop to wedge, and none for anything else", "action %s with loop %q", args.Action, args.Loop)
	} else if wedge {
		return h.Simulate(ctx, c, args)
	}
	if err := checkID(args.Job); err != nil {
		return nil, err
	}
	if args.Scenario < ScenarioNormal || args.Scenario > ScenarioMax {
		return nil, Errorf(CodeBadRequest, fmt.Sprintf("want 0 to %d", ScenarioMax), "there is no scenario %d", args.Scenario)
	}
	if args.Scenario == ScenarioLate && args.Moment == "" {
		args.Moment = MomentExit
	}
	switch {
	case args.Moment == "":
	case args.Scenario != ScenarioLate:
		return nil, Errorf(CodeBadRequest, "leave it out", "only scenario %d has a moment to choose", ScenarioLate)
	case args.Moment != MomentExit && args.Moment != MomentCommit:
		return nil, Errorf(CodeBadRequest, "want exit or commit", "%q is no moment of scenario %d", args.Moment, ScenarioLate)
	}
	return h.Simulate(ctx, c, args)
}

// Simulate takes one step of a rehearsal. Arm and disarm are repeated as Submit
// is; a status is asked for once.
func (c *Client) Simulate(ctx context.Context, args SimulateArgs) (SimulateReply, error) {
	q := read(VerbSimulate)
	if args.Action != SimulateStatus {
		q = change(VerbSimulate, string(args.Action)+" of the rehearsal at "+args.Host)
	}
	return askFor[SimulateReply](ctx, c, q, args)
}
