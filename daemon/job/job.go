package job

import "slices"

// Schema is the version of the documents and messages below. A message of
// another version is dead-lettered, never guessed at.
const Schema = 1

// Job is the ledger's document of one job: the authority on it.
type Job struct {
	ID        ID     `json:"id"`
	Schema    int    `json:"schema"`
	Spec      Spec   `json:"spec"`
	SpecHash  string `json:"spec_hash"`
	Submitter string `json:"submitter"` // broker account or local user, as validated by the daemon
	Queue     string `json:"queue"`     // its shape's plain queue
	State     State  `json:"state"`
	Reason    string `json:"reason"` // why it is in this state, for people

	Attempt  int   `json:"attempt"`  // the last one claimed; 0 before the first
	Fence    int64 `json:"fence"`    // grows with each claim
	Failures int   `json:"failures"` // attempts whose failure counts
	Requeues int   `json:"requeues"` // attempts lost through no fault of the job, but to drains
	Lost     int   `json:"lost"`     // of these, hosts lost between claim and start

	Republished int `json:"republished,omitempty"` // times its message was found lost and published again

	Owner    *Owner  `json:"owner"`          // nil unless claimed or running
	Kill     *Kill   `json:"kill"`           // nil until a person asks
	Hold     *Hold   `json:"hold,omitempty"` // nil unless a person holds it
	CommitID string  `json:"commit_id"`      // of the last commit
	Result   *Result `json:"result"`         // of the last finished attempt

	SubmittedAt Time `json:"submitted_at"`
	PublishedAt Time `json:"published_at"` // when a message for it was last promised to a queue
	NotBefore   Time `json:"not_before"`   // zero unless retrying
	ExpiresAt   Time `json:"expires_at"`   // zero: never
	RequeueOf   ID   `json:"requeue_of,omitempty"`

	History []Change `json:"history"` // one row per transition, oldest first
}

// Owner says who holds a claimed or running job.
type Owner struct {
	Host      string   `json:"host"`
	Session   string   `json:"session"`
	ClaimID   string   `json:"claim_id"`
	Devices   []string `json:"devices"` // UUIDs
	ClaimedAt Time     `json:"claimed_at"`
	// Running is the time of the attempt's start; zero while claimed.
	Running Time `json:"running"`
}

// Kill is a person's durable request to end the job.
type Kill struct {
	ID     string `json:"id"` // tells this request from another
	Who    string `json:"who"`
	Reason string `json:"reason"`
	At     Time   `json:"at"`
}

// Hold is a person's wish that the job does not start yet: it is waiting until
// it is released.
type Hold struct {
	ID     string `json:"id"` // tells this hold from another
	Who    string `json:"who"`
	Reason string `json:"reason"`
	At     Time   `json:"at"`
}

// Result is the outcome of one finished attempt.
type Result struct {
	Attempt    int     `json:"attempt"`
	Host       string  `json:"host"`
	Outcome    State   `json:"outcome"` // succeeded, failed or killed; retrying or queued where another attempt follows
	Class      Class   `json:"class"`   // "" after success
	ExitCode   int     `json:"exit_code"`
	Signal     string  `json:"signal,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	StartedAt  Time    `json:"started_at"`
	EndedAt    Time    `json:"ended_at"`
	GPUSeconds float64 `json:"gpu_seconds"` // devices held × time run
	CPUSeconds float64 `json:"cpu_seconds"`
	// MemoryBytesMax is the tree's peak where a cgroup tells it, else that of
	// its largest process.
	MemoryBytesMax  int64    `json:"memory_bytes_max"`
	Devices         []string `json:"devices"`
	LogTail         string   `json:"log_tail"` // the last bytes of the output, as UTF-8
	LogDroppedBytes int64    `json:"log_dropped_bytes,omitempty"`
	// JournalDroppedLines of the output are in the log and not in journald.
	JournalDroppedLines int64 `json:"journal_dropped_lines,omitempty"`
}

// Change is one row of a job's history; its predecessor's State is where the
// job came from.
type Change struct {
	// ID is the identity of the write (claim ID, commit ID, …): whoever does not
	// know how a write ended looks for it here.
	ID     string `json:"id,omitempty"`
	State  State  `json:"state"`
	At     Time   `json:"at"`
	Host   string `json:"host,omitempty"` // the host that ran it, or that made the change
	Class  Class  `json:"class,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Wrote reports whether the write of that identity has been applied.
func (j *Job) Wrote(id string) bool {
	return slices.ContainsFunc(j.History, func(c Change) bool { return c.ID == id })
}

// New returns the document of a fresh submission: queued, never claimed.
func New(id ID, submitter string, spec Spec, now Time) *Job {
	j := &Job{
		ID:          id,
		Schema:      Schema,
		Spec:        spec,
		SpecHash:    spec.Hash(),
		Submitter:   submitter,
		Queue:       spec.Shape().Queue(),
		State:       Queued,
		SubmittedAt: now,
		PublishedAt: now,
		History:     []Change{{State: Queued, At: now, Reason: "submitted by " + submitter}},
	}
	if spec.Expires > 0 {
		j.ExpiresAt = At(now.Add(spec.Expires.Std()))
	}
	return j
}

// Requeue returns the document of a job that repeats a terminal one: the same spec
// of the same submitter under the ID that RequeueID gives it, with all its
// attempts before it, and what the spec says of expiry counted from now.
func Requeue(old *Job, now Time) *Job {
	j := New(RequeueID(old.ID), old.Submitter, old.Spec, now)
	j.RequeueOf = old.ID
	j.History[0].Reason = "requeue of " + string(old.ID)
	return j
}

// Expired reports whether the job may no longer start.
func (j *Job) Expired(now Time) bool { return !j.ExpiresAt.IsZero() && now.After(j.ExpiresAt.Time) }
