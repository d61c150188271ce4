package control

import (
	"encoding/json"

	"gpuqd/daemon/job"
)

// Schema is the version of requests and responses. A daemon refuses another
// one: an answer that was guessed at could act on the wrong job.
const Schema = 1

// Bounds of the protocol.
const (
	// RequestBytesMax bounds a request as it arrives; the largest is a submission.
	RequestBytesMax = job.MessageBytesMax + 64<<10
	// ResponseBytesMax bounds a response; the largest is a list of RowsMax jobs.
	ResponseBytesMax = 32 << 20
	// RowsMax bounds the jobs of one list, and the IDs of one states request.
	RowsMax = 10_000
	// RowsDefault is the length of a list whose request names none.
	RowsDefault = 100
	// LogBytesMax bounds the data of one logs reply.
	LogBytesMax = 256 << 10
)

// Verb names what a request asks for.
type Verb string

// The verbs.
const (
	VerbSubmit  Verb = "submit"
	VerbList    Verb = "list"
	VerbShow    Verb = "show"
	VerbStates  Verb = "states"
	VerbLogs    Verb = "logs"
	VerbKill    Verb = "kill"
	VerbHosts   Verb = "hosts"
	VerbDevices Verb = "devices"
	VerbVersion Verb = "version"
	VerbStatus  Verb = "status"
)

// Request is one question to a daemon.
type Request struct {
	Schema int             `json:"schema"`
	Verb   Verb            `json:"verb"`
	Args   json.RawMessage `json:"args,omitempty"` // the verb's Args; a job.Submission for submit
	// Caller is on whose behalf a host asks another. It counts only where the
	// request came through the broker from the account of a host.
	Caller *Caller `json:"caller,omitempty"`
}

// Response is the answer: Data, the verb's Reply, or Error.
type Response struct {
	Schema int             `json:"schema"`
	Error  *Error          `json:"error,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// Via is the way by which a request reached the daemon.
type Via string

// The ways.
const (
	ViaSocket    Via = "socket"    // the user is the peer that the kernel names
	ViaBroker    Via = "broker"    // the user is the broker's validated user-id
	ViaForwarded Via = "forwarded" // a host asks on behalf of the user
)

// Caller is who asks, as the daemon has established it.
type Caller struct {
	User     string `json:"user"`
	Operator bool   `json:"operator,omitempty"` // may act on everybody's jobs
	Via      Via    `json:"via,omitempty"`
}

// MayAct reports whether the caller may act on a job of this submitter.
func (c Caller) MayAct(submitter string) bool {
	return c.Operator || (c.User != "" && c.User == submitter)
}

// SubmitReply confirms that the job is in the ledger.
type SubmitReply struct {
	ID      job.ID    `json:"id"`
	Created bool      `json:"created"` // false: the ledger had it before this request
	State   job.State `json:"state"`
	Warning string    `json:"warning,omitempty"` // a delay, such as a broker that is out of reach
}

// ListArgs selects jobs; the zero value is the newest of all.
type ListArgs struct {
	States []job.State `json:"states,omitempty"` // any of them; empty: every state
	User   string      `json:"user,omitempty"`   // submitter; "": everybody
	Since  job.Time    `json:"since,omitzero"`   // submitted at this time or later
	Limit  int         `json:"limit,omitempty"`  // Dispatch makes 0 RowsDefault, and refuses more than RowsMax
}

// ListReply has the jobs, those submitted last first.
type ListReply struct {
	Jobs []JobRow `json:"jobs"`
	More bool     `json:"more,omitempty"` // the limit cut the list
}

// JobRow is one job on one line.
type JobRow struct {
	ID          job.ID            `json:"id"`
	Name        string            `json:"name"`
	State       job.State         `json:"state"`
	Reason      string            `json:"reason"`
	Attempt     int               `json:"attempt"` // the last one claimed; 0 before the first
	Host        string            `json:"host"`    // of the owner, else of the last finished attempt
	Submitter   string            `json:"submitter"`
	Queue       string            `json:"queue"`
	Priority    job.Priority      `json:"priority"`
	GPUs        int               `json:"gpus"`
	GPUMemory   int64             `json:"gpu_memory,omitempty"` // bytes of its one device; 0 is whole devices
	Labels      map[string]string `json:"labels,omitempty"`
	SubmittedAt job.Time          `json:"submitted_at"`
	StartedAt   job.Time          `json:"started_at"` // of the running or last finished attempt; "" before the first
	EndedAt     job.Time          `json:"ended_at"`   // "" unless terminal
	ExitCode    *int              `json:"exit_code"`  // 128+N after signal N; null unless the job is terminal and its last attempt has one
	Signal      string            `json:"signal,omitempty"`
	Class       job.Class         `json:"class"`                // of the last failure; "" when there was none
	Held        bool              `json:"held,omitempty"`       // waiting because a person holds it
	RequeueOf   job.ID            `json:"requeue_of,omitempty"` // the job that was begun anew as this one
}

// IDArgs names one job.
type IDArgs struct {
	ID job.ID `json:"id"`
}

// StatesArgs asks for many jobs at once, and may wait for one of them to end.
type StatesArgs struct {
	IDs []job.ID `json:"ids"`
	// Wait holds the answer until one of the jobs is terminal, at most so long
	// and at most StatesWaitMax. 0 answers at once; so does a daemon that holds
	// many already: a client that goes on asking pauses between.
	Wait job.Duration `json:"wait,omitempty"`
}

// StatesReply has a row for each job that exists, in the order asked.
type StatesReply struct {
	Jobs    []JobRow `json:"jobs"`
	Missing []job.ID `json:"missing,omitempty"` // IDs that the ledger does not know
}

// LogsArgs asks for a stretch of an attempt's output.
type LogsArgs struct {
	ID      job.ID `json:"id"`
	Attempt int    `json:"attempt,omitempty"` // 0: the last one
	Offset  int64  `json:"offset,omitempty"`  // in bytes
	Max     int    `json:"max,omitempty"`     // bytes; Dispatch makes 0, and all beyond it, LogBytesMax
}

// LogsReply is that stretch. The client goes on at NextOffset until End.
type LogsReply struct {
	Attempt    int    `json:"attempt"` // the attempt that was read; 0: none has started yet
	Offset     int64  `json:"offset"`
	Data       []byte `json:"data,omitempty"`
	NextOffset int64  `json:"next_offset"`
	End        bool   `json:"end"`               // the attempt is over and this was the last of its output
	Dropped    int64  `json:"dropped,omitempty"` // bytes of output that were not kept
	Host       string `json:"host,omitempty"`
	// Stored means that the host's file is out of reach or gone, and Data is the
	// tail that the result in the ledger carries; then End is set.
	Stored bool `json:"stored,omitempty"`
	// State and LastAttempt are those of the job, so that one who follows knows
	// whether more is to come.
	State       job.State `json:"state"`
	LastAttempt int       `json:"last_attempt"`
}

// KillArgs asks for a job's end.
type KillArgs struct {
	ID     job.ID `json:"id"`
	Reason string `json:"reason,omitempty"`
}

// KillReply says what the request came to.
type KillReply struct {
	State job.State `json:"state"` // after the request
	// Flagged: the request is durable and the job's owner ends it. False: the
	// job was terminal before, or became killed at once.
	Flagged bool `json:"flagged"`
}

// HostRow is one host.
type HostRow struct {
	Name              string   `json:"name"`
	Live              bool     `json:"live"`                // its session may run jobs
	State             string   `json:"state"`               // of its session, such as live, expired or closed
	RenewedAgeSeconds float64  `json:"renewed_age_seconds"` // since the lease's renewal was last seen; below 0: never
	Version           string   `json:"version"`
	BootID            string   `json:"boot_id"`
	Pools             []string `json:"pools"`
	DevicesTotal      int      `json:"devices_total"`
	DevicesFree       int      `json:"devices_free"`
	DevicesBusy       int      `json:"devices_busy"`      // held; the rest is free, being checked, cordoned or sick
	Running           int      `json:"running"`           // attempts claimed or running
	Drain             string   `json:"drain"`             // reason; "" when it takes work
	Drained           *Drain   `json:"drained,omitempty"` // who drained it, and how; nil when nobody

	Sick []SickDevice `json:"sick,omitempty"` // of a live host, as of its last renewal
}

// SickDevice is a device that takes no work, and why.
type SickDevice struct {
	UUID   string `json:"uuid"`
	Index  int    `json:"index"`
	Reason string `json:"reason"`
}

// HostsReply has the hosts, by name.
type HostsReply struct {
	Hosts []HostRow `json:"hosts"`
}

// DevicesArgs selects devices.
type DevicesArgs struct {
	Host string `json:"host,omitempty"` // "": every host; one that is named is asked itself, if it is live
}

// DeviceRow is one device of one host.
type DeviceRow struct {
	Host        string  `json:"host"`
	UUID        string  `json:"uuid"`
	Index       int     `json:"index"` // for display; below 0 where nobody knows
	Model       string  `json:"model"`
	MemoryBytes uint64  `json:"memory_bytes"`
	Simulated   bool    `json:"simulated"`
	State       string  `json:"state"` // free, busy, checking, draining, cordoned or sick
	JobID       job.ID  `json:"job_id"`
	Attempt     int     `json:"attempt"`
	Reason      string  `json:"reason"`
	Drained     *Drain  `json:"drained,omitempty"` // who drained the device itself, and how
	AgeSeconds  float64 `json:"age_seconds"`       // of this report, where it is not the host's own word; else 0

	DeviceFacts
}

// DevicesReply has the devices, by host and index.
type DevicesReply struct {
	Devices []DeviceRow `json:"devices"`
	// Warnings name hosts whose devices could not be learned.
	Warnings []string `json:"warnings,omitempty"`
}

// VersionReply says which daemon answers and what it stands on.
type VersionReply struct {
	Host     string `json:"host"`
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Ledger   string `json:"ledger"`    // kind: sqlite or mongodb
	LedgerID string `json:"ledger_id"` // daemons that show another one hold another queue
	Broker   string `json:"broker"`    // connected, or why not
}

// StatusReply is the daemon's state of health.
type StatusReply struct {
	Host         string   `json:"host"`
	Line         string   `json:"line"`  // the line that systemctl status shows
	Ready        bool     `json:"ready"` // start-up is over and it takes work
	Session      string   `json:"session"`
	Running      int      `json:"running"`
	DevicesTotal int      `json:"devices_total"`
	DevicesFree  int      `json:"devices_free"`
	Missing      []string `json:"missing,omitempty"` // what it needs and does not reach, each with what to do
}
