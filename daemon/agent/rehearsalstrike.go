package agent

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"gpuqd/daemon/broker"
	"gpuqd/daemon/control"
	"gpuqd/daemon/durable"
	"gpuqd/daemon/job"
)

// strike is the last fault that struck this host. It is on disk before the fault
// strikes: the daemon does not live to tell.
type strike struct {
	Job      job.ID           `json:"job"`
	Scenario control.Scenario `json:"scenario"`
	At       job.Time         `json:"at"`
	Daemon   string           `json:"daemon"` // that it struck
}

func strikePath(stateDir string) string { return filepath.Join(stateDir, "rehearsal.json") }

// write replaces the file, and returns when it is on disk.
func (s strike) write(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return durable.Replace(path, append(text, '\n'))
}

func readStrike(path string) (s strike, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}

// rehearses reports whether a fault waits for this step of the run's. Faults are
// for the first attempt.
func (r *run) rehearses(s control.Scenario, m control.SimulateMoment) bool {
	q := r.a.rehearsals
	return q != nil && r.number == 1 && r.attempt != nil && q.waitsFor(r.hold.JobID, s, m)
}

// rehearseMidJob is the death of the worker under a running job: once the payload
// has told of its first step, its shim and processes go, and then this daemon. It
// reports whether it struck; then the run goes no further. Nobody else may look
// at the attempt meanwhile: its end is not awaited yet.
func (r *run) rehearseMidJob(ctx context.Context) (struck bool) {
	if !r.rehearses(control.ScenarioMidJob, "") {
		return false
	}
	if why := r.awaitFirstStep(ctx); why != "" {
		r.a.rehearsals.miss(r.hold.JobID, why)
		return false
	}
	if !r.a.rehearsals.strike(r.hold.JobID) {
		return false
	}
	if err := r.a.rehearsals.faults.KillAttempt(ctx, r.attempt); err != nil {
		r.a.rehearsals.miss(r.hold.JobID, "its attempt could not be killed: "+err.Error())
		return false
	}
	r.a.rehearsals.faults.Die()
	return true
}

// firstStepPoll is how often the payload's output is looked at.
const firstStepPoll = 50 * time.Millisecond

// awaitFirstStep returns when the payload has told of its first step, or why it
// is not worth waiting any more.
func (r *run) awaitFirstStep(ctx context.Context) (why string) {
	for r.rehearses(control.ScenarioMidJob, "") {
		_, ended, err := r.attempt.Exit() // first: what is read after it is the whole
		if err != nil {
			return "its attempt could not be read: " + err.Error()
		}
		output, err := r.attempt.ReadLog(0, control.LogBytesMax)
		if err != nil {
			return "its output could not be read: " + err.Error()
		}
		for _, w := range control.ReadWitness(output) {
			if w.Event == control.WitnessStep {
				return ""
			}
		}
		if ended {
			return "the payload ended before its first step"
		}
		if r.a.sleep(ctx, firstStepPoll) != nil {
			return "the daemon was stopped"
		}
	}
	return "it was disarmed, or its time was over, before the payload's first step"
}

// rehearseExit is the death of the worker once the attempt's exit is on disk and
// nothing is committed.
func (r *run) rehearseExit() (struck bool) {
	if !r.rehearses(control.ScenarioLate, control.MomentExit) || !r.a.rehearsals.strike(r.hold.JobID) {
		return false
	}
	r.a.rehearsals.faults.Die()
	return true
}

// rehearseCommitted stands where the ack is due: the worker dies, or the ack is
// lost with the connection that would carry it.
func (r *run) rehearseCommitted() (struck bool) {
	q := r.a.rehearsals
	switch {
	case r.rehearses(control.ScenarioLate, control.MomentCommit) && q.strike(r.hold.JobID):
		q.faults.Die()
		return true
	case r.rehearses(control.ScenarioAckLost, ""):
		return r.loseAck(q)
	}
	return false
}

// loseAck ends the run without its ack. What else was delivered on the
// connection comes again, too, and meets step 3 of the protocol.
func (r *run) loseAck(q *rehearsals) (struck bool) {
	tag := r.takeTag()
	if tag == (broker.Tag{}) {
		q.miss(r.hold.JobID, "the run holds no delivery whose ack could be lost")
	}
	if tag == (broker.Tag{}) || !q.strike(r.hold.JobID) {
		r.giveTagBack(tag)
		return false
	}
	r.forget()
	if !q.faults.Sever(tag.Generation) {
		q.miss(r.hold.JobID, "the connection that held its delivery had ended before")
	}
	return true
}

// giveTagBack undoes takeTag.
func (r *run) giveTagBack(tag broker.Tag) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tag, r.closed = tag, false
}
