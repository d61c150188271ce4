package control

import "gpuqd/daemon/job"

// The verbs of everyday operation.
const (
	VerbHold        Verb = "hold"
	VerbRelease     Verb = "release"
	VerbWhy         Verb = "why"
	VerbDrain       Verb = "drain"
	VerbResume      Verb = "resume"
	VerbDeadList    Verb = "dead_list"
	VerbDeadShow    Verb = "dead_show"
	VerbDeadRequeue Verb = "dead_requeue"
	VerbDeadPurge   Verb = "dead_purge"
	VerbEvents      Verb = "events"
	VerbDoctor      Verb = "doctor"
	VerbSimulate    Verb = "simulate"

	VerbSimulateDevice Verb = "simulate_device"
)

// HoldArgs asks that a job does not start until it is released.
type HoldArgs struct {
	ID     job.ID `json:"id"`
	Reason string `json:"reason,omitempty"`
}

// HoldReply says what hold or release came to.
type HoldReply struct {
	State   job.State `json:"state"`             // after the request
	Changed bool      `json:"changed"`           // false: it was so before
	Warning string    `json:"warning,omitempty"` // a delay, such as a broker that is out of reach
}

// WhyReply says in one sentence what a job waits for, or what became of it.
type WhyReply struct {
	ID       job.ID    `json:"id"`
	State    job.State `json:"state"`
	Sentence string    `json:"sentence"` // without the ID; ends with a full stop
	// Ahead counts the jobs that hosts look at before this one; AheadMore: there
	// are more than that. Both are 0 unless the job is queued.
	Ahead     int  `json:"ahead,omitempty"`
	AheadMore bool `json:"ahead_more,omitempty"`
	// Hosts says of each host of the job's pool why it does not start it now.
	Hosts []WhyHost `json:"hosts,omitempty"`
}

// WhyHost is one host's reason.
type WhyHost struct {
	Host   string `json:"host"`
	Reason string `json:"reason"`
}

// DrainMode says what becomes of the attempts that run on what is drained.
type DrainMode string

// The modes. At the deadline, finish becomes requeue.
const (
	DrainFinish  DrainMode = "finish"  // they go on to their end
	DrainRequeue DrainMode = "requeue" // they are ended and queued again, at no cost to their job
	DrainKill    DrainMode = "kill"    // their jobs are killed
)

// DrainArgs asks a host, or one device of it, to take no new attempts.
type DrainArgs struct {
	Host   string    `json:"host"`
	Device string    `json:"device,omitempty"` // UUID, or its unique beginning, or the index; "": the host
	Reason string    `json:"reason"`           // never ""
	Mode   DrainMode `json:"mode,omitempty"`   // "": DrainFinish
	// Deadline is how long the attempts may go on: 0 is for ever with
	// DrainFinish, and not at all with the others.
	Deadline job.Duration `json:"deadline,omitempty"`
}

// ResumeArgs asks that a host, or one device, takes work again.
type ResumeArgs struct {
	Host   string `json:"host"`
	Device string `json:"device,omitempty"`
}

// DrainReply says what drain or resume came to.
type DrainReply struct {
	Host    string `json:"host"`
	Device  string `json:"device,omitempty"` // UUID
	Changed bool   `json:"changed"`          // false: resume found nothing drained
	Running int    `json:"running"`          // attempts on what is drained, as far as the ledger knows
	// Warning says what the person should know: the host is not live, or has not
	// been told yet and finds it at its next renewal.
	Warning string `json:"warning,omitempty"`
}

// Drain is a drain in force, as rows of hosts and devices show it.
type Drain struct {
	Who      string    `json:"who"`
	Reason   string    `json:"reason"`
	At       job.Time  `json:"at"`
	Mode     DrainMode `json:"mode"`
	Deadline job.Time  `json:"deadline,omitzero"` // when what is left is interrupted; zero is never
}

// DeadArgs selects what was set aside, the newest first.
type DeadArgs struct {
	Limit int `json:"limit,omitempty"` // Dispatch makes 0 RowsDefault, and refuses more than RowsMax
}

// DeadRow is a message that no daemon could use, or a job that ended dead.
type DeadRow struct {
	ID     string   `json:"id"`   // of a message: its content hash, in hex; of a job: its UUID
	Kind   string   `json:"kind"` // DeadMessage or DeadJob
	At     job.Time `json:"at"`
	Reason string   `json:"reason"`
	User   string   `json:"user"`
	Queue  string   `json:"queue"`
	Bytes  int      `json:"bytes,omitempty"` // of a message's body
}

// The kinds of what is dead.
const (
	DeadMessage = "message"
	DeadJob     = "job"
)

// DeadListReply has the rows.
type DeadListReply struct {
	Dead []DeadRow `json:"dead"`
	More bool      `json:"more,omitempty"` // the limit cut the list
}

// DeadIDArgs names one of them: a UUID, or the unique beginning of a hash, of at
// least eight digits.
type DeadIDArgs struct {
	ID string `json:"id"`
}

// DeadShowReply is one whole.
type DeadShowReply struct {
	DeadRow
	MessageID string   `json:"message_id,omitempty"`
	Host      string   `json:"host,omitempty"` // the daemon that recorded it
	Body      []byte   `json:"body,omitempty"` // what was kept of it
	Cut       bool     `json:"cut,omitempty"`  // Body is not all of it
	Job       *job.Job `json:"job,omitempty"`
}

// DeadRequeueReply says what came of it. A job begins anew under a UUID of its
// own; a message is taken in, or published, as if it had just come.
type DeadRequeueReply struct {
	ID      job.ID    `json:"id"` // of the job that goes on from here
	State   job.State `json:"state"`
	Created bool      `json:"created"` // false: it had been requeued before
	Warning string    `json:"warning,omitempty"`
}

// DeadPurgeArgs says which messages to forget. Jobs are never forgotten.
type DeadPurgeArgs struct {
	IDs    []string `json:"ids,omitempty"`
	Before job.Time `json:"before,omitzero"` // all that were set aside before; with no IDs
}

// DeadPurgeReply counts them.
type DeadPurgeReply struct {
	Purged int `json:"purged"`
}

// EventsArgs selects what operators, and daemons on their own, have done.
type EventsArgs struct {
	Since  job.Time `json:"since,omitzero"`
	Target string   `json:"target,omitempty"` // job ID, host or host/device; "": all
	Limit  int      `json:"limit,omitempty"`  // Dispatch makes 0 RowsDefault, and refuses more than RowsMax
}

// EventRow is one of them.
type EventRow struct {
	ID     string   `json:"id"`
	At     job.Time `json:"at"`
	Who    string   `json:"who"` // user, or the host's gpuqd
	What   string   `json:"what"`
	Target string   `json:"target"`
	Why    string   `json:"why"`
	Host   string   `json:"host"` // the daemon that recorded it
}

// EventsReply has them, the newest first.
type EventsReply struct {
	Events []EventRow `json:"events"`
	More   bool       `json:"more,omitempty"`
}

// DoctorArgs asks for the state of health.
type DoctorArgs struct {
	// Local asks the one daemon that answers; else it asks every live host too.
	Local bool `json:"local,omitempty"`
}

// FindingState is how a check ended.
type FindingState string

// The ends of a check.
const (
	FindingOK      FindingState = "ok"
	FindingWarn    FindingState = "warn"    // works, and will not under some failure or load
	FindingFail    FindingState = "fail"    // does not work, or breaks a promise
	FindingUnknown FindingState = "unknown" // could not be looked at; Advice says how it can
)

// Finding is one check and how it ended.
type Finding struct {
	Part   string       `json:"part"`  // broker, redis, ledger, clock, disk, device, host
	Check  string       `json:"check"` // a few words
	Host   string       `json:"host"`  // whose daemon looked; "" for gpuqctl itself
	State  FindingState `json:"state"`
	Saw    string       `json:"saw"`              // what was found, with figures
	Advice string       `json:"advice,omitempty"` // what to do; never "" unless State is ok
}

// DoctorReply has the findings, by part.
type DoctorReply struct {
	Findings []Finding `json:"findings"`
	// When the request came and the answer went, by the clock of the host that
	// answered: from the two, the asker finds the offset of that clock.
	Received job.Time `json:"received"`
	Answered job.Time `json:"answered"`
}
