package control

import (
	"bytes"
	"encoding/json"

	"gpuqd/daemon/job"
)

// Witness is one line that the payload of a rehearsal writes: to a file of its
// own, on disk, and then to its output.
type Witness struct {
	Event   string   `json:"event"`
	Step    int      `json:"step"` // of the steps done so far
	Job     job.ID   `json:"job"`
	Attempt int      `json:"attempt"`
	Machine string   `json:"machine"` // as the kernel names it
	PID     int      `json:"pid"`
	Devices string   `json:"devices"` // UUIDs, with commas
	Time    job.Time `json:"time"`
}

// What a payload witnesses.
const (
	WitnessStart = "start"
	WitnessStep  = "step"
	WitnessFail  = "fail" // its last line, where it is to fail
	WitnessEnd   = "end"  // its last line: the work is done
)

// ReadWitness returns the witness's lines in a piece of output, and passes over
// everything else, such as a line that is not whole yet.
func ReadWitness(output []byte) []Witness {
	var list []Witness
	for line := range bytes.Lines(output) {
		var w Witness
		if bytes.HasSuffix(line, []byte("\n")) && json.Unmarshal(line, &w) == nil && w.Event != "" {
			list = append(list, w)
		}
	}
	return list
}
