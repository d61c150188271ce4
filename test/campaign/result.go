package campaign

import (
	"encoding/json"
	"os"
	"time"
)

// Result is what a campaign came to, as it is kept.
type Result struct {
	Seed     uint64    `json:"seed"`
	Ledger   string    `json:"ledger"` // sqlite or mongodb
	Store    string    `json:"store"`  // the ledger in words
	Machine  string    `json:"machine"`
	Broker   string    `json:"broker"` // its version
	Began    time.Time `json:"began"`
	Minutes  float64   `json:"minutes"`       // from the first to the last job's end
	Drain    float64   `json:"drain_seconds"` // from the end of the last fault to that of the last job
	DiskFull string    `json:"disk_full"`     // how disks were filled

	Jobs       Jobs           `json:"jobs"`
	Faults     []FaultResult  `json:"faults"`
	Timeouts   []float64      `json:"consumer_timeouts"` // seconds until the host took a message again; below 0: not any more
	NodeClosed int            `json:"consumer_timeouts_by_node"`
	Outcomes   Outcomes       `json:"outcomes"`
	Daemons    map[string]int `json:"daemons"` // what the daemons logged, by message
	Ended      []string       `json:"ended"`   // daemons that ended by themselves, and why

	Lost     int     `json:"lost"`     // confirmed jobs that are not over, or not known
	Doubled  int     `json:"doubled"`  // jobs that ended more than once
	Overlaps int     `json:"overlaps"` // pairs of executions of one job at one time, excused ones too
	Overlap  float64 `json:"overlap_seconds_max"`
	Excused  int     `json:"excused"` // violations that the design does not promise away
	// Problems are all that is wrong, one line each: broken invariants, jobs that
	// did not end as they had to, what is left over.
	Problems []string `json:"problems"`
}

// Jobs counts jobs. Probes are not among Submitted and its parts.
type Jobs struct {
	Submitted  int            `json:"submitted"`
	Confirmed  int            `json:"confirmed"`
	Probes     int            `json:"probes"`
	Kinds      map[string]int `json:"kinds"`
	States     map[string]int `json:"states"`     // at the end
	Attempts   int            `json:"attempts"`   // claimed
	Executions int            `json:"executions"` // begun, by the payloads
	Requeued   int            `json:"requeued"`   // lost through no fault of the job
	Retried    int            `json:"retried"`    // failed, and on the job's budget
	Frozen     int            `json:"frozen"`     // executions that their shims froze for a while, or until their end
	// Discarded executions came to their own end, and their result was refused:
	// the job was another host's by then.
	Discarded int `json:"discarded"`
}

// FaultResult is one fault as it was done.
type FaultResult struct {
	Number int     `json:"number"`
	Class  Class   `json:"class"`
	At     float64 `json:"at_seconds"`
	Lasted float64 `json:"lasted_seconds"`
	Target string  `json:"target"`
	Error  string  `json:"error,omitempty"`
	// First and All are the seconds to normal work on the first and the last of
	// the hosts that it concerned; below 0: there was none.
	First float64 `json:"first_seconds"`
	All   float64 `json:"all_seconds"`
	// Claim is the seconds to the first claim of any of them, which is later where
	// there was nothing to claim.
	Claim float64 `json:"claim_seconds"`
	Hosts int     `json:"hosts"`
	// Others were in force before there was normal work again.
	Others int `json:"others"`
}

// Good reports whether every promise held.
func (r *Result) Good() bool {
	return r.Lost == 0 && r.Doubled == 0 && len(r.Problems) == 0
}

// Done counts the faults that were done.
func (r *Result) Done() (n int) {
	for _, f := range r.Faults {
		if f.Error == "" {
			n++
		}
	}
	return n
}

// Save writes a result to a file.
func (r *Result) Save(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Load reads a result from a file.
func Load(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Result)
	return r, json.Unmarshal(text, r)
}
