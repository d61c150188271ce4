package main

import (
	"fmt"
	"strings"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// simulateVerdict is what a rehearsal came to, as --json prints it.
type simulateVerdict struct {
	Good     bool                   `json:"good"`
	Lost     int                    `json:"lost"`    // 1 where the job did not succeed in time
	Doubled  int                    `json:"doubled"` // results, and complete executions, beyond one
	Host     string                 `json:"host"`
	Scenario control.Scenario       `json:"scenario"`
	Moment   control.SimulateMoment `json:"moment,omitempty"`
	Job      job.ID                 `json:"job"`
	State    job.State              `json:"state"` // of the job
	// RecoveredSeconds is the time from FaultAt to RecoveredAt, by the clocks of
	// the hosts that saw them; null where there was no fault, or no recovery.
	RecoveredSeconds *float64 `json:"recovered_seconds"`
	FaultAt          job.Time `json:"fault_at"`
	FaultGuessed     bool     `json:"fault_guessed"` // FaultAt is when gpuqctl found the host silent: it has not come back to tell
	RecoveredAt      job.Time `json:"recovered_at"`
	Starts           int      `json:"starts"`      // that the payload witnessed
	Ends             int      `json:"ends"`        // of them, that did all the work
	Commits          int      `json:"commits"`     // final results in the job's history
	TurnedAway       string   `json:"turned_away"` // what turned the duplicate away; "" where none was seen
	LastHost         string   `json:"last_host"`   // that ran the last attempt
	Problems         []string `json:"problems"`    // why it is not good

	partial bool // not all that the payload wrote could be read

	History []job.Change           `json:"history"`
	Witness []control.Witness      `json:"witness"`
	Notes   []control.SimulateNote `json:"notes"` // of the host's daemon, before and after its death
}

// startsExpected is how often the payload starts, by scenario.
var startsExpected = [5]int{1, 2, 2, 1, 1}

// judge looks at what was seen. Nothing is taken for granted: what was not seen
// is a problem.
func (r *rehearsal) judge() *simulateVerdict {
	v := &simulateVerdict{
		Host: r.host, Scenario: r.scenario, Moment: r.moment, Job: r.id,
		Problems: []string{}, History: []job.Change{}, Witness: []control.Witness{}, Notes: orEmpty(r.notes),
	}
	for i, s := range r.streams {
		v.Witness = append(v.Witness, s.witness...)
		if !s.end {
			v.partial = true
			v.bad(r.text.noWitness, i+1)
		}
	}
	for _, w := range v.Witness {
		switch w.Event {
		case control.WitnessStart:
			v.Starts++
		case control.WitnessEnd:
			v.Ends++
		}
	}
	r.judgeJob(v)
	r.judgeFault(v)
	r.measure(v)
	v.Good = v.Lost == 0 && v.Doubled == 0 && len(v.Problems) == 0
	return v
}

func (v *simulateVerdict) bad(format string, args ...any) {
	v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
}

// judgeJob counts what was lost and doubled.
func (r *rehearsal) judgeJob(v *simulateVerdict) {
	if r.job == nil {
		v.Lost = 1
		v.bad(r.text.noEnd, r.within)
		return
	}
	v.State, v.History = r.job.State, r.job.History
	for _, row := range v.History {
		if row.State.Terminal() {
			v.Commits++
		}
		if row.State == job.Claimed {
			v.LastHost = row.Host
		}
	}
	switch {
	case !v.State.Terminal():
		v.Lost = 1
		v.bad(r.text.noEnd, r.within)
	case v.State != job.Succeeded:
		v.Lost = 1
		v.bad(r.text.lost, v.State, r.job.Reason)
	case v.Ends == 0 && !v.partial:
		v.Lost = 1
		v.bad(r.text.doubledRuns, 0)
	}
	if v.Ends > 1 {
		v.bad(r.text.doubledRuns, v.Ends)
	}
	if v.Commits > 1 {
		v.bad(r.text.doubledEnds, v.Commits)
	}
	v.Doubled = max(0, v.Ends-1) + max(0, v.Commits-1)
	if want := startsExpected[r.scenario]; v.Starts != want {
		v.bad(r.text.starts, v.Starts, want)
	}
}

// dies reports whether the worker dies in a scenario.
func dies(s control.Scenario) bool {
	return s == control.ScenarioMidJob || s == control.ScenarioLate
}

// judgeFault says whether the fault did what it was for.
func (r *rehearsal) judgeFault(v *simulateVerdict) {
	s := r.scenario
	if away := r.turnedAway(); away != nil {
		v.TurnedAway = away.Text
	}
	if s == control.ScenarioNormal || s == control.ScenarioError {
		return
	}
	switch {
	case r.heard.Missed != "":
		v.bad(r.text.noStrike, r.heard.Missed)
	case dies(s) && r.silent:
		v.bad(r.text.notBack, r.host)
	case r.heard.Struck.IsZero():
		v.bad(r.text.noStrike, r.text.noWhy)
	case dies(s) && !r.back:
		v.bad(r.text.notBack, r.host)
	}
	if s != control.ScenarioMidJob && v.TurnedAway == "" {
		v.bad("%s", r.text.noDuplicate)
	}
}

// measure finds when the fault struck, and the first sign of normal work after
// it on the job's way.
func (r *rehearsal) measure(v *simulateVerdict) {
	v.FaultAt = r.heard.Struck
	if v.FaultAt.IsZero() && r.silent && dies(r.scenario) {
		v.FaultAt, v.FaultGuessed = job.At(r.hushed), true
	}
	switch r.scenario {
	case control.ScenarioNormal:
		return
	case control.ScenarioError:
		v.FaultAt = r.witnessed(control.WitnessFail, 1)
		v.RecoveredAt = r.witnessed(control.WitnessStart, 2)
	case control.ScenarioMidJob:
		v.RecoveredAt = r.witnessed(control.WitnessStart, 2)
	case control.ScenarioAckLost, control.ScenarioLate:
		if away := r.turnedAway(); away != nil {
			v.RecoveredAt = away.At
		}
		if r.scenario == control.ScenarioLate && r.heard.Ready.After(v.RecoveredAt.Time) && !v.RecoveredAt.IsZero() {
			v.RecoveredAt = r.heard.Ready
		}
	}
	if v.FaultAt.IsZero() || v.RecoveredAt.IsZero() {
		return
	}
	seconds := max(0, v.RecoveredAt.Sub(v.FaultAt.Time)).Round(time.Millisecond).Seconds()
	v.RecoveredSeconds = &seconds
}

// witnessed returns the time of the first such line of an attempt, else zero.
func (r *rehearsal) witnessed(event string, attempt int) job.Time {
	if attempt > len(r.streams) {
		return job.Time{}
	}
	for _, w := range r.streams[attempt-1].witness {
		if w.Event == event {
			return w.Time
		}
	}
	return job.Time{}
}

// tellVerdict prints it for people.
func (r *rehearsal) tellVerdict(v *simulateVerdict) {
	recovered := r.text.notRecovered
	switch {
	case r.scenario == control.ScenarioNormal:
		recovered = r.text.noRecovery
	case v.RecoveredSeconds != nil:
		fromTo := r.text.fromTo[r.scenario]
		if v.FaultGuessed {
			fromTo = r.text.fromSilence
		}
		recovered = fmt.Sprintf(r.text.recovered, *v.RecoveredSeconds, fromTo)
	}
	r.tell(plain, "")
	if v.LastHost != "" && v.Starts > 1 {
		r.tell(plain, r.text.tookOver, v.LastHost, r.job.Attempt)
	}
	for _, p := range v.Problems {
		r.tell(bad, "  - %s", p)
	}
	word, s := r.text.good, good
	if !v.Good {
		word, s = r.text.notGood, bad
	}
	r.tell(s, r.text.verdict+": %s", v.Lost, v.Doubled, recovered, strings.TrimSpace(word))
	if !r.json {
		r.tell(plain, "")
	}
}
