package campaign

import (
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/history"
)

// field returns a harvest of one job that went well, and its plan.
func field() (*harvest, []Job) {
	doc := &job.Job{
		ID: testID, State: job.Succeeded, Attempt: 1, Fence: 1,
		Result: &job.Result{Attempt: 1, Host: "worker_1", Outcome: job.Succeeded},
		History: []job.Change{
			row(1, job.Queued, ""), row(2, job.Claimed, "c1"), row(2.1, job.Running, "start-c1"), row(5.1, job.Succeeded, "commit-c1"),
		},
	}
	return &harvest{
		zero: at(0), healed: at(6), ended: at(9),
		docs:       map[job.ID]*job.Job{testID: doc},
		confirmed:  map[job.ID]time.Time{testID: at(1.1)},
		executions: []Execution{{Job: testID, Attempt: 1, Host: "worker_1", Began: at(2.1), Last: at(5), Complete: true}},
		journal: map[attemptKey]journalled{
			{"worker_1", runner.Key{JobID: testID, Attempt: 1}}: {commit: "commit-c1", started: true},
		},
		lives: []life{{host: "worker_1", began: at(0)}},
		logs:  []entry{logged(1.9, "message taken", 1, 1), logged(5.2, "message acked", 1, 1)},
	}, []Job{{ID: testID, Kind: Plain, Want: job.Succeeded}}
}

// broken lists the invariants that a harvest breaks.
func broken(h *harvest) map[history.Invariant]bool {
	found := map[history.Invariant]bool{}
	for _, v := range history.Broken(history.Check(h.events(nil), history.End{Jobs: h.docs, Leftovers: h.leftovers}, rules(h.ended))) {
		found[v.Invariant] = true
	}
	return found
}

// TestJudge spoils a good harvest in one way after the other: each has to be told.
func TestJudge(t *testing.T) {
	good, jobs := field()
	if found := broken(good); len(found) > 0 {
		t.Fatalf("a good campaign breaks %v", found)
	}
	if wrong := wrongEnds(jobs, good); len(wrong) > 0 {
		t.Fatalf("a good campaign has wrong ends: %v", wrong)
	}
	for name, c := range map[string]struct {
		spoil func(*harvest)
		want  history.Invariant
		shows func(*Result) bool
	}{
		"JobThatIsNotOver": {
			func(h *harvest) {
				h.docs[testID].State, h.docs[testID].History = job.Running, h.docs[testID].History[:3]
			},
			history.Lost, func(r *Result) bool { return r.Lost == 1 },
		},
		"JobThatTheLedgerForgot": {
			func(h *harvest) { delete(h.docs, testID) },
			history.Lost, func(r *Result) bool { return r.Lost == 1 },
		},
		"SecondEnd": {
			func(h *harvest) {
				h.docs[testID].History = append(h.docs[testID].History, row(7, job.Succeeded, "commit-other"))
			},
			history.TwoEnds, func(r *Result) bool { return r.Doubled == 1 },
		},
		"WriteThatTookEffectTwice": {
			func(h *harvest) {
				h.docs[testID].History = append(h.docs[testID].History, row(7, job.Succeeded, "commit-c1"))
			},
			history.CommittedTwice, func(r *Result) bool { return r.Doubled == 1 },
		},
		"TwoExecutionsAtOneTime": {
			func(h *harvest) {
				h.executions = append(h.executions, Execution{Job: testID, Attempt: 2, Host: "worker_2", Began: at(3), Last: at(4), Complete: true})
			},
			history.Overlap, func(r *Result) bool { return r.Overlaps == 1 && r.Overlap == 1 },
		},
		"AckBeforeTheCommit": {
			func(h *harvest) { h.logs[1].Time = at(4) },
			history.UnjustifiedAck, nil,
		},
		"SuccessOfAPayloadThatWasKilled": {
			func(h *harvest) { h.executions[0].Complete = false },
			history.ResultDiffers, nil,
		},
		"ProcessThatIsLeft": {
			func(h *harvest) { h.leftovers = []string{"process 7"} },
			history.LeftOver, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := field()
			c.spoil(h)
			if found := broken(h); !found[c.want] {
				t.Errorf("found %v, want %s", found, c.want)
			}
			if c.shows == nil {
				return
			}
			var r Result
			h.count(&r)
			if !c.shows(&r) {
				t.Errorf("the files alone give lost %d, doubled %d, overlaps %d (%g s)", r.Lost, r.Doubled, r.Overlaps, r.Overlap)
			}
		})
	}
	h, _ := field()
	h.docs[testID].State = job.Failed
	if wrong := wrongEnds(jobs, h); len(wrong) != 1 {
		t.Errorf("a job that failed and should not have: %v", wrong)
	}
}
