package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// withCause returns a context that the test ends as Ctrl-C does.
func withCause(t *testing.T) (context.Context, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// played is a rehearsal that is over, as gpuqctl has seen it: the worker died
// 12 s into the story, and was back at 14 s.
func played(s control.Scenario, outputs ...[]string) *rehearsal {
	text, _ := textFor("en")
	c := &simulateCmd{app: &app{out: io.Discard, err: io.Discard}, text: text, within: time.Minute}
	r := &rehearsal{simulateCmd: c, host: "worker_1", scenario: s, id: idA, daemon: "first", hushed: now.Add(11 * time.Second)}
	rows := []job.State{job.Claimed, job.Running}
	for range len(outputs) - 1 {
		rows = append(rows, job.Queued, job.Claimed, job.Running)
	}
	r.job = playedJob(idA, "worker_1", append(rows, job.Succeeded)...)
	for i, events := range outputs {
		r.streams = append(r.streams, &stream{witness: control.ReadWitness(witnessLines(idA, i+1, events...)), end: true})
	}
	at := func(seconds int) job.Time { return job.At(now.Add(time.Duration(seconds) * time.Second)) }
	r.heard = control.SimulateReply{Daemon: "first", Ready: at(-100)}
	if s >= control.ScenarioMidJob {
		r.heard.Struck = at(12)
	}
	if dies(s) {
		r.heard.Daemon, r.heard.Ready, r.back = "second", at(14), true
	}
	if s >= control.ScenarioAckLost {
		r.notes = []control.SimulateNote{
			{At: at(2), What: control.NoteDuplicate, Text: "own"}, // before the fault: of no account
			{At: at(13), What: control.NoteDuplicate, Text: "ledger"},
		}
	}
	return r
}

var (
	whole   = []string{control.WitnessStart, control.WitnessStep, control.WitnessEnd}
	cutOff  = []string{control.WitnessStart, control.WitnessStep}
	failing = []string{control.WitnessStart, control.WitnessFail}
)

func TestVerdictOfWhatWentWellIsGood(t *testing.T) {
	for _, c := range []struct {
		r         *rehearsal
		recovered float64 // below 0: null
	}{
		{played(control.ScenarioNormal, whole), -1},
		{played(control.ScenarioError, failing, whole), 9}, // attempt 1 failed at 11 s, attempt 2 started at 20 s
		{played(control.ScenarioMidJob, cutOff, whole), 8},
		{played(control.ScenarioAckLost, whole), 1},
		{played(control.ScenarioLate, whole), 2}, // until it was back, after the duplicate
	} {
		v := c.r.judge()
		if !v.Good || v.Lost != 0 || v.Doubled != 0 || len(v.Problems) > 0 || v.Commits != 1 {
			t.Errorf("scenario %d: %+v", c.r.scenario, v)
		}
		if got := v.RecoveredSeconds; (got == nil) != (c.recovered < 0) || got != nil && *got != c.recovered {
			t.Errorf("scenario %d recovered in %v, want %v", c.r.scenario, got, c.recovered)
		}
	}
}

// TestVerdictIsNotGoodOverAnythingElse: each thing that can be wrong, alone.
func TestVerdictIsNotGoodOverAnythingElse(t *testing.T) {
	for name, c := range map[string]struct {
		r             *rehearsal
		change        func(*rehearsal)
		lost, doubled int
		says          string
	}{
		"JobFailed": {played(control.ScenarioNormal, whole), func(r *rehearsal) { r.job.State, r.job.Reason = job.Failed, "no luck" }, 1, 0, "the job is failed: no luck"},
		"JobNotOver": {played(control.ScenarioNormal, cutOff), func(r *rehearsal) {
			r.job = playedJob(idA, "worker_1", job.Claimed, job.Running)
		}, 1, 0, "had not ended after 1m0s"},
		"JobUnknown":     {played(control.ScenarioNormal), func(r *rehearsal) { r.job = nil }, 1, 0, "had not ended"},
		"WorkNotDone":    {played(control.ScenarioNormal, cutOff), nil, 1, 0, "the work was done 0 times"},
		"DoneTwice":      {played(control.ScenarioLate, whole, whole), nil, 0, 1, "the work was done 2 times"},
		"CommittedTwice": {played(control.ScenarioNormal, whole), func(r *rehearsal) { r.job = playedJob(idA, "worker_1", job.Succeeded, job.Succeeded) }, 0, 1, "2 final results"},
		"StartedTwice":   {played(control.ScenarioAckLost, cutOff, whole), nil, 0, 0, "2 starts, and 1 were to be expected"},
		"StartedOnce":    {played(control.ScenarioMidJob, whole), nil, 0, 0, "1 starts, and 2 were to be expected"},
		"NotStruck":      {played(control.ScenarioAckLost, whole), func(r *rehearsal) { r.heard.Struck = job.Time{} }, 0, 0, "did not strike: its step did not come"},
		"Missed":         {played(control.ScenarioAckLost, whole), func(r *rehearsal) { r.heard.Missed = "no delivery" }, 0, 0, "did not strike: no delivery"},
		"NoDuplicate":    {played(control.ScenarioAckLost, whole), func(r *rehearsal) { r.notes = r.notes[:1] }, 0, 0, "no duplicate was seen"},
		"NotBack":        {played(control.ScenarioMidJob, cutOff, whole), func(r *rehearsal) { r.back = false }, 0, 0, "worker_1 has not come back"},
		"Silent":         {played(control.ScenarioLate, whole), func(r *rehearsal) { r.silent = true }, 0, 0, "worker_1 has not come back"},
		"Unread":         {played(control.ScenarioMidJob, cutOff, whole), func(r *rehearsal) { r.streams[0].end = false }, 0, 0, "not all that attempt 1 wrote"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.change != nil {
				c.change(c.r)
			}
			v := c.r.judge()
			if v.Good || v.Lost != c.lost || v.Doubled != c.doubled || !strings.Contains(strings.Join(v.Problems, "; "), c.says) {
				t.Errorf("lost %d, doubled %d, good %t, problems %q; want lost %d, doubled %d, %q",
					v.Lost, v.Doubled, v.Good, v.Problems, c.lost, c.doubled, c.says)
			}
			c.r.tellVerdict(v)
		})
	}
}

// TestRecoveryIsGuessedWhereTheWorkerNeverComesBackToTell.
func TestRecoveryIsGuessedWhereTheWorkerNeverComesBackToTell(t *testing.T) {
	r := played(control.ScenarioMidJob, cutOff, whole)
	r.silent, r.back, r.heard = true, false, control.SimulateReply{Daemon: "first"}
	v := r.judge()
	if !v.FaultGuessed || v.RecoveredSeconds == nil || *v.RecoveredSeconds != 9 || v.Lost != 0 || v.Doubled != 0 || v.Good {
		t.Errorf("got %+v", v)
	}
}

// TestStreamIsReadByWholeLines: however the output comes in pieces, and though
// its host is away for a while.
func TestStreamIsReadByWholeLines(t *testing.T) {
	d := startDaemon(t)
	text := witnessLines(idA, 1, whole...)
	pieces := []int{0, 10, len(text) / 2, len(text)}
	asked := 0
	d.logs = func(a control.LogsArgs) (control.LogsReply, error) {
		asked++
		reply := control.LogsReply{Attempt: 1, Offset: a.Offset, NextOffset: a.Offset, State: job.Running, LastAttempt: 1}
		if asked == 3 {
			reply.Stored, reply.End = true, true // the host does not answer: the ledger has nothing
			return reply, nil
		}
		for i, at := range pieces[:len(pieces)-1] {
			if int64(at) == a.Offset {
				reply.Data, reply.NextOffset = text[at:pieces[i+1]], int64(pieces[i+1])
			}
		}
		reply.End = reply.NextOffset == int64(len(text))
		return reply, nil
	}
	r := played(control.ScenarioNormal)
	r.client = control.NewClient(control.SocketWay(d.path))
	defer r.client.Close()
	for range 3 {
		r.lookAtOutput(t.Context(), 1)
	}
	if s := r.streams[0]; !s.end || len(s.witness) != len(whole) {
		t.Errorf("after %d questions: %+v", asked, s)
	}
}
