package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/placement"
)

// moment is a time some seconds after the zero hour.
func moment(seconds int) job.Time { return job.At(zeroHour.Add(time.Duration(seconds) * time.Second)) }

// jobIn is a job of ada's in a state, since the tenth second.
func jobIn(state job.State, reason string, change func(*job.Job)) *job.Job {
	spec := job.DefaultSpec()
	spec.Command = []string{"true"}
	j := job.New(job.NewID(), "ada", spec, moment(0))
	j.State, j.Reason = state, reason
	j.History = append(j.History, job.Change{State: state, At: moment(10)})
	if state.Held() {
		j.Attempt = 2
		j.Owner = &job.Owner{Host: "a", Session: "s", Devices: []string{"GPU-1"}, ClaimedAt: moment(9)}
	}
	if state == job.Running {
		j.Owner.Running = moment(10)
	}
	if change != nil {
		change(j)
	}
	return j
}

func drainOf(mode control.DrainMode, deadline job.Time) *ledger.Drain {
	return &ledger.Drain{Who: "olga", Reason: "new driver.", At: moment(5), Mode: string(mode), Deadline: deadline}
}

func TestSentenceForEveryState(t *testing.T) {
	waits := placement.Explanation{Clause: "waits for 1 free device of one host in pool default: a has 0 of 1 device free (1 busy)"}
	failed := &job.Result{Attempt: 1, Host: "a", Class: job.ClassUser, ExitCode: 3, StartedAt: moment(2), EndedAt: moment(9)}
	at := func(f facts) facts { f.now = moment(20).Time; return f }
	covered := map[job.State]bool{}
	for _, c := range []struct {
		name  string
		facts facts
		want  string
	}{
		{
			"queued",
			facts{job: jobIn(job.Queued, "", nil), waits: waits},
			"It is queued and waits for 1 free device of one host in pool default: a has 0 of 1 device free (1 busy).",
		},
		{
			"queued behind others",
			facts{job: jobIn(job.Queued, "", nil), waits: waits, ahead: 4},
			"It is queued and waits for 1 free device of one host in pool default: a has 0 of 1 device free (1 busy); up to 4 jobs are ahead of it.",
		},
		{
			"queued behind very many",
			facts{job: jobIn(job.Queued, "", nil), waits: waits, ahead: aheadMax, aheadMore: true},
			"It is queued and waits for 1 free device of one host in pool default: a has 0 of 1 device free (1 busy); more than 1000 jobs are ahead of it.",
		},
		{
			"queued again, no broker",
			facts{
				job:    jobIn(job.Queued, "host b was lost; requeued by a", func(j *job.Job) { j.Attempt = 1 }),
				waits:  waits,
				broker: "a does not reach the broker: no node answers",
			},
			"It is queued again (host b was lost; requeued by a) and waits for 1 free device of one host in pool default: " +
				"a has 0 of 1 device free (1 busy); a does not reach the broker: no node answers.",
		},
		{
			"retrying",
			facts{job: jobIn(job.Retrying, "", func(j *job.Job) { j.NotBefore, j.Result = moment(65), failed })},
			"It waits until 2026-11-22T14:01:05Z, for another 45s, to be tried again: attempt 1 failed on a (exit code 3).",
		},
		{
			"retrying and due",
			facts{job: jobIn(job.Retrying, "", func(j *job.Job) { j.NotBefore, j.Result = moment(15), failed }), waits: waits},
			"Its next attempt has been due since 2026-11-22T14:00:15Z, and it waits for 1 free device of one host in pool default: " +
				"a has 0 of 1 device free (1 busy); attempt 1 failed on a (exit code 3).",
		},
		{
			"held",
			facts{job: jobIn(job.Waiting, "", func(j *job.Job) {
				j.Hold = &job.Hold{Who: "ada", Reason: "the data is\nnot there.", At: moment(10)}
			})},
			"ada holds it since 2026-11-22T14:00:10Z: the data is not there; gpuqctl release lets it go on.",
		},
		{"waiting for something else", facts{job: jobIn(job.Waiting, "its parent runs", nil)}, "It waits in the ledger: its parent runs."},
		{
			"claimed",
			facts{job: jobIn(job.Claimed, "", nil), owner: owner{ttl: time.Minute}},
			"a claimed it at 2026-11-22T14:00:09Z and is starting attempt 2 on 1 device.",
		},
		{
			"running",
			facts{job: jobIn(job.Running, "", func(j *job.Job) { j.Owner.Devices = nil }), owner: owner{ttl: time.Minute}},
			"Attempt 2 runs on a since 2026-11-22T14:00:10Z, without a device.",
		},
		{
			"being killed",
			facts{job: jobIn(job.Running, "", func(j *job.Job) {
				j.Kill = &job.Kill{Who: "ada", Reason: "killed by ada", At: moment(15)}
			}), owner: owner{ttl: time.Minute}},
			"Attempt 2 runs on a since 2026-11-22T14:00:10Z, on 1 device; it is being ended, as ada asked at 2026-11-22T14:00:15Z: killed by ada.",
		},
		{
			"running without contact",
			facts{job: jobIn(job.Running, "", nil), owner: owner{ttl: 15 * time.Second, silent: 40 * time.Second}},
			"Attempt 2 runs on a since 2026-11-22T14:00:10Z, on 1 device; a last renewed its lease of 15s, by the clocks of both hosts, 40s ago: " +
				"if it lives, the job is frozen (or what lease.on_loss there says) until it has contact or the job is taken over.",
		},
		{
			"running on a host that is gone",
			facts{job: jobIn(job.Running, "", nil), owner: owner{over: "its session is expired"}},
			"Attempt 2 runs on a since 2026-11-22T14:00:10Z, on 1 device; but a does not hold it any more (its session is expired): " +
				"it is taken over at the next look of any host.",
		},
		{
			"on a drained host",
			facts{job: jobIn(job.Running, "", nil), owner: owner{drains: []scopedDrain{{drainOf(control.DrainFinish, job.Time{}), ""}}}},
			"Attempt 2 runs on a since 2026-11-22T14:00:10Z, on 1 device; a is drained by olga: new driver, and it may go on to its end.",
		},
		{
			"on a drained host until a time",
			facts{job: jobIn(job.Running, "", nil), owner: owner{drains: []scopedDrain{{drainOf(control.DrainFinish, moment(60)), ""}}}},
			"Attempt 2 runs on a since 2026-11-22T14:00:10Z, on 1 device; a is drained by olga: new driver, " +
				"and it is queued again, at no cost at 2026-11-22T14:01:00Z unless it ends before.",
		},
		{
			"on a drained device",
			facts{job: jobIn(job.Running, "", nil), owner: owner{drains: []scopedDrain{{drainOf(control.DrainRequeue, moment(5)), "GPU-1"}}}},
			"Attempt 2 runs on a since 2026-11-22T14:00:10Z, on 1 device; device GPU-1 is drained by olga: new driver, " +
				"and it is being ended and queued again, at no cost.",
		},
		{
			"succeeded",
			facts{job: jobIn(job.Succeeded, "", func(j *job.Job) {
				j.Attempt, j.Result = 1, &job.Result{Host: "a", StartedAt: moment(2), EndedAt: moment(9)}
			})},
			"It succeeded on a at 2026-11-22T14:00:10Z, with attempt 1 after 7s.",
		},
		{
			"failed",
			facts{job: jobIn(job.Failed, "attempt 1 of 1 failed", func(j *job.Job) {
				j.Result, j.History[1].Class = failed, job.ClassUser
			})},
			"It failed on a at 2026-11-22T14:00:10Z (class user): attempt 1 of 1 failed.",
		},
		{"killed", facts{job: jobIn(job.Killed, "killed by ada", nil)}, "It was killed at 2026-11-22T14:00:10Z: killed by ada."},
		{
			"dead",
			facts{job: jobIn(job.Dead, "3 hosts were lost between its claim and its start", func(j *job.Job) {
				j.History[1].Class = job.ClassPoison
			})},
			"It was set aside as dead at 2026-11-22T14:00:10Z (class poison): 3 hosts were lost between its claim and its start.",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			covered[c.facts.job.State] = true
			if got := at(c.facts).sentence(); got != c.want {
				t.Errorf("got:  %s\nwant: %s", got, c.want)
			}
		})
	}
	if i := slices.IndexFunc(job.States, func(s job.State) bool { return !covered[s] }); i >= 0 {
		t.Errorf("no sentence for %s", job.States[i])
	}
}

// A document may lack what its state usually has: there is a sentence all the
// same, and it is one.
func TestSentenceBearsBareDocuments(t *testing.T) {
	for _, state := range job.States {
		text := facts{job: &job.Job{State: state}, now: zeroHour}.sentence()
		if len(text) < 10 || !strings.HasSuffix(text, ".") || strings.HasSuffix(text, "..") {
			t.Errorf("%s: %q", state, text)
		}
	}
}

func TestFailureIsNamedByWhatIsKnown(t *testing.T) {
	for want, r := range map[string]job.Result{
		"exit code 3":      {Class: job.ClassUser, ExitCode: 3, Reason: "exit code 3"},
		"ended by SIGSEGV": {Class: job.ClassUser, ExitCode: 139, Signal: "SIGSEGV"},
		"timeout: the time limit of 1s was reached": {Class: job.ClassTimeout, ExitCode: 143, Signal: "SIGTERM", Reason: "the time limit of 1s was reached"},
		"it was cut off":                                 {Class: job.ClassUser, Reason: "it was cut off."},
		"for a reason that was not recorded":             {Class: job.ClassUser},
		"host_lost: its shim died; nothing else is sure": {Class: job.ClassHostLost, Reason: "its shim died; nothing else is sure"},
	} {
		if got := failureOf(&r); got != want {
			t.Errorf("%+v is %q, want %q", r, got, want)
		}
	}
}
