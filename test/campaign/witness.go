package campaign

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gpuqd/daemon/job"
)

// Execution is one run of a payload, by its own witness.
type Execution struct {
	Job      job.ID
	Attempt  int
	PID      int
	Host     string // whose shim was its parent
	Devices  []string
	Began    time.Time
	Last     time.Time // the last sign of life
	Complete bool      // it came to its end by itself
	Code     int       // with this exit code; meaningless unless Complete
	Halts    []Halt
}

// Halt is a stretch in which an execution made no step.
type Halt struct{ From, To time.Time }

// haltMin is the pause between two signs of life that counts as a halt. A beat
// that comes late on a busy machine is not one.
const haltMin = time.Second

// readWitnesses reads every file of a directory.
func readWitnesses(dir string) ([]Execution, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	var all []Execution
	for _, path := range files {
		list, err := readWitness(path)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// readWitness reads the file of one attempt. More than one execution in it is for
// the judge.
func readWitness(path string) ([]Execution, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []Execution
	for text := range bytes.Lines(text) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			if !bytes.HasSuffix(text, []byte("\n")) {
				break // it was killed within the write
			}
			return nil, fmt.Errorf("witness %s: line %q: %w", path, text, err)
		}
		at := time.Unix(0, l.At)
		if l.Start != nil {
			list = append(list, Execution{
				Job: l.Start.Job, Attempt: l.Start.Attempt, PID: l.Start.PID, Devices: l.Start.Devices,
				Host: hostOf(l.Start.Shim), Began: at, Last: at,
			})
			continue
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("witness %s does not begin with a start", path)
		}
		x := &list[len(list)-1]
		if at.Sub(x.Last) >= haltMin {
			x.Halts = append(x.Halts, Halt{From: x.Last, To: at})
		}
		x.Last = at
		if l.End != nil {
			x.Complete, x.Code = true, l.End.Code
		}
	}
	return list, nil
}

// hostOf returns the worker below whose directory a shim keeps its attempt, ""
// where the command line is no shim's.
func hostOf(shim string) string {
	before, _, found := strings.Cut(shim, "/state/attempts/")
	if !found {
		return ""
	}
	return filepath.Base(before)
}

// runs reports the stretches in which the execution made steps.
func (x Execution) stretches() []Halt {
	from := x.Began
	var list []Halt
	for _, h := range x.Halts {
		list = append(list, Halt{From: from, To: h.From})
		from = h.To
	}
	return append(list, Halt{From: from, To: x.Last})
}
