// Package witness is the form of the files in which the jobs of test/hosts say
// what they did, and what can be concluded from them.
package witness

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Dir has the files of a host, one for each attempt, named <job>.<attempt>.
const Dir = "/var/lib/gpuq-witness"

// Beat is the time between two lines of an execution that runs.
const Beat = 200 * time.Millisecond

// Event is what a line tells.
type Event string

// Start is the first line, End the last of an execution that came to its end.
const (
	Start   Event = "start"
	Working Event = "working"
	End     Event = "end"
)

// Line is one line of a file. All but Event and At are of the first line alone.
type Line struct {
	Event   Event             `json:"event"`
	At      int64             `json:"at"` // wall clock of the host, in ms since 1970
	Host    string            `json:"host,omitempty"`
	UID     int               `json:"uid,omitempty"`
	GID     int               `json:"gid,omitempty"`
	Groups  []int             `json:"groups,omitempty"`
	Home    string            `json:"home,omitempty"`
	Devices string            `json:"devices,omitempty"`
	Opened  map[string]string `json:"opened,omitempty"` // "opened" or the error's name, by path
}

// Execution is what one file says.
type Execution struct {
	Attempt string // <job>.<attempt>
	First   Line
	Last    Line
	Ended   bool          // it came to its end by itself
	Pause   time.Duration // the longest time between two lines
	Lines   int
}

// Parse reads a file. A last line that was cut off, as by a power cut, is left
// out; anything else that is not a line is an error.
func Parse(attempt, text string) (Execution, error) {
	x := Execution{Attempt: attempt}
	for raw := range strings.Lines(text) {
		if !strings.HasSuffix(raw, "\n") {
			break
		}
		var line Line
		if err := json.Unmarshal([]byte(raw), &line); err != nil {
			return x, fmt.Errorf("line %d of the witness of %s, %q: %w", x.Lines+1, attempt, raw, err)
		}
		if x.Lines == 0 {
			x.First = line
		} else {
			x.Pause = max(x.Pause, time.Duration(line.At-x.Last.At)*time.Millisecond)
		}
		x.Lines++
		x.Last = line
		x.Ended = line.Event == End
	}
	if x.Lines > 0 && x.First.Event != Start {
		return x, fmt.Errorf("the witness of %s begins with %q", attempt, x.First.Event)
	}
	return x, nil
}

// Overlaps names the pairs that ran at one time, those of one job's attempts.
// slack is by how much two hosts' clocks may differ.
func Overlaps(all []Execution, slack time.Duration) []string {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Execution) int { return int(a.First.At - b.First.At) })
	var found []string
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.First.At+slack.Milliseconds() < a.Last.At {
				found = append(found, fmt.Sprintf("%s on %s until %d, %s on %s from %d", a.Attempt, a.First.Host, a.Last.At, b.Attempt, b.First.Host, b.First.At))
			}
		}
	}
	return found
}
