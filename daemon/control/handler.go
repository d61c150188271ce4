package control

import (
	"context"

	"gpuqd/daemon/job"
)

// Handler is the daemon behind the protocol. Its methods are called by several
// goroutines at once. An error is one of the sentinels, wrapped, or an *Error
// with a hint; Dispatch turns anything else into CodeInternal.
//
// The handler decides what the caller may do (Caller.MayAct); who the caller
// is has been settled before.
type Handler interface {
	// Submit takes in a submission, as job.ParseSubmission reads it with
	// caller.User as the submitter; it parses itself, so that there is one
	// intake for the socket and for the queue gpuq.submit. Its errors of
	// job.ErrMessage count as a bad request. ErrConflict: the same ID has
	// another spec. ErrUnknownOutcome: the ledger did not say whether it has it.
	Submit(ctx context.Context, caller Caller, submission []byte) (SubmitReply, error)
	// List returns jobs, those submitted last first. Limit is between 1 and RowsMax.
	List(ctx context.Context, caller Caller, args ListArgs) (ListReply, error)
	// Show returns the ledger's document.
	Show(ctx context.Context, caller Caller, id job.ID) (*job.Job, error)
	// States returns the rows of these jobs in any order, without those that
	// do not exist; it does not wait (Dispatch does, and asks again).
	States(ctx context.Context, caller Caller, ids []job.ID) ([]JobRow, error)
	// Logs returns a stretch of output, asking the attempt's host where that is
	// another one. Max is between 1 and LogBytesMax; Attempt 0 is the last one.
	// Before the first attempt the reply has Attempt 0 and no error. An attempt
	// that has been claimed and has written nothing is an empty stretch, without
	// End while it may yet write. ErrNotFound: there is no such job or attempt.
	// ErrNoHost: the host does not answer, and no tail of that attempt is stored.
	Logs(ctx context.Context, caller Caller, args LogsArgs) (LogsReply, error)
	// Kill flags the job. A terminal job is no error.
	Kill(ctx context.Context, caller Caller, args KillArgs) (KillReply, error)
	// Hosts returns all hosts that the ledger knows, by name.
	Hosts(ctx context.Context, caller Caller) (HostsReply, error)
	// Devices returns devices by host and index.
	Devices(ctx context.Context, caller Caller, args DevicesArgs) (DevicesReply, error)
	// Version says which daemon this is.
	Version(ctx context.Context, caller Caller) (VersionReply, error)
	// Status says how this daemon fares.
	Status(ctx context.Context, caller Caller) (StatusReply, error)
	// Hold parks a queued or retrying job until Release. ErrConflict: the job
	// has started, or is over.
	Hold(ctx context.Context, caller Caller, args HoldArgs) (HoldReply, error)
	// Release lets a held job go on. One that is not held is no error.
	Release(ctx context.Context, caller Caller, id job.ID) (HoldReply, error)
	// Why says what a job waits for.
	Why(ctx context.Context, caller Caller, id job.ID) (WhyReply, error)
	// Drain and Resume record in the ledger what a host or device may do, and
	// tell the host; operators only. ErrNotFound: there is no such host or device.
	Drain(ctx context.Context, caller Caller, args DrainArgs) (DrainReply, error)
	Resume(ctx context.Context, caller Caller, args ResumeArgs) (DrainReply, error)
	// DeadList returns what was set aside, the newest first. Limit is between 1
	// and RowsMax. Users see and act on their own, operators on all.
	DeadList(ctx context.Context, caller Caller, args DeadArgs) (DeadListReply, error)
	DeadShow(ctx context.Context, caller Caller, id string) (DeadShowReply, error)
	// DeadRequeue is idempotent: the same again finds the same new job.
	DeadRequeue(ctx context.Context, caller Caller, id string) (DeadRequeueReply, error)
	DeadPurge(ctx context.Context, caller Caller, args DeadPurgeArgs) (DeadPurgeReply, error)
	// Events returns what was done, the newest first.
	Events(ctx context.Context, caller Caller, args EventsArgs) (EventsReply, error)
	// Doctor looks at all that this host needs.
	Doctor(ctx context.Context, caller Caller, args DoctorArgs) (DoctorReply, error)
	// Simulate takes one step of a rehearsal at args.Host; operators only.
	// ErrConflict: that host does not allow it, or another rehearsal is under way.
	Simulate(ctx context.Context, caller Caller, args SimulateArgs) (SimulateReply, error)
	// SimulateDevice lets a fault strike simulated devices of args.Host; operators
	// only. ErrConflict: that host's devices are real. ErrNotFound: there is no such
	// host or device.
	SimulateDevice(ctx context.Context, caller Caller, args SimulateDeviceArgs) (SimulateDeviceReply, error)
}

// RowOf returns the line that stands for a job.
func RowOf(j *job.Job) JobRow {
	row := JobRow{
		ID: j.ID, Name: j.Spec.Name, State: j.State, Reason: j.Reason, Attempt: j.Attempt,
		Submitter: j.Submitter, Queue: j.Queue, Priority: j.Spec.Priority, GPUs: j.Spec.GPUs, GPUMemory: j.Spec.GPUMemory,
		Labels: j.Spec.Labels, SubmittedAt: j.SubmittedAt,
		Held: j.State == job.Waiting && j.Hold != nil, RequeueOf: j.RequeueOf,
	}
	if r := j.Result; r != nil {
		row.Host, row.StartedAt, row.Class = r.Host, r.StartedAt, r.Class
		// Beside a class of failure 0 is no exit code but the lack of one, and
		// must not pass for success.
		if j.State.Terminal() && (r.ExitCode != 0 || r.Class == "") {
			code := r.ExitCode
			row.ExitCode, row.Signal = &code, r.Signal
		}
	}
	if j.Owner != nil {
		row.Host, row.StartedAt = j.Owner.Host, j.Owner.Running
	}
	if j.Result != nil && j.State.Terminal() {
		row.EndedAt = j.Result.EndedAt
	}
	if n := len(j.History); n > 0 && j.State.Terminal() {
		row.EndedAt = j.History[n-1].At
		if c := j.History[n-1].Class; c != "" {
			row.Class = c
		}
	}
	return row
}
