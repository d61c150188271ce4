package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

const (
	// rehearsalsRefusedAt is the worker whose settings do not allow rehearsals.
	rehearsalsRefusedAt = "worker_1"
	rehearsedAt         = "worker_3"
)

// simulated is the part of a verdict that the tests look at.
type simulated struct {
	Good             bool
	Lost, Doubled    int
	Job              job.ID
	RecoveredSeconds *float64 `json:"recovered_seconds"`
	Starts, Ends     int
	Commits          int
	TurnedAway       string `json:"turned_away"`
	LastHost         string `json:"last_host"`
	Problems         []string
}

// testSimulate plays every scenario through gpuqctl, beside a job of the same
// host that must not notice any of them.
func testSimulate(t *testing.T, e *env) {
	t.Run("HostThatDoesNotAllowItRefuses", func(t *testing.T) {
		r := e.ctl(t, "simulate", "--host", rehearsalsRefusedAt, "--scenario", "2", "--yes")
		if r.Code != 6 || !strings.Contains(r.Stderr, "set allowed = true below [simulate]") {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
	})

	release := filepath.Join(t.TempDir(), "release")
	bystander := e.submit(t, "--name", "bystander", "--gpus", "0", "--pool", job.RehearsalPool(rehearsedAt), "--",
		"sh", "-c", "while [ ! -e "+release+" ]; do sleep 0.1; done")
	e.waitFor(t, bystander, job.Running)

	for _, c := range []struct {
		scenario string
		args     []string
		attempts int
	}{
		{"0", nil, 1},
		{"1", nil, 2},
		{"2", nil, 2},
		{"3", nil, 1},
		{"4", nil, 1},
		{"4", []string{"--moment", "commit"}, 1},
	} {
		t.Run(strings.Join(append([]string{"Scenario" + c.scenario}, c.args...), " "), func(t *testing.T) {
			args := append([]string{"simulate", "--host", rehearsedAt, "--scenario", c.scenario, "--yes", "--json", "--length", "1s"}, c.args...)
			r := e.ctl(t, args...)
			var v simulated
			if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil || r.Code != 0 {
				t.Fatalf("exit code %d, %q, %v:\n%s", r.Code, r.Stdout, err, r.Stderr)
			}
			e.checkVerdict(t, v, c.scenario, c.attempts)
		})
	}
	t.Run("InteractiveInKorean", func(t *testing.T) { testSimulateAsks(t, e) })

	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if j := e.waitEnd(t, bystander); j.State != job.Succeeded || j.Attempt != 1 || j.Fence != 1 {
		t.Errorf("the bystander is %s (%s), attempt %d, fence %d", j.State, j.Reason, j.Attempt, j.Fence)
	}
}

// checkVerdict compares a good verdict with what the ledger and the payload's own
// file say, and the daemons' events and counters.
func (e *env) checkVerdict(t *testing.T, v simulated, scenario string, attempts int) {
	t.Helper()
	if !v.Good || v.Lost != 0 || v.Doubled != 0 || v.Starts != attempts || v.Ends != 1 || v.Commits != 1 || len(v.Problems) > 0 {
		t.Errorf("the verdict is %+v, want %d starts", v, attempts)
	}
	if (v.RecoveredSeconds == nil) != (scenario == "0") || v.TurnedAway == "" && (scenario == "3" || scenario == "4") {
		t.Errorf("the verdict is %+v", v)
	}
	if j := e.show(t, v.Job); j.State != job.Succeeded || j.Attempt != attempts || j.Result.Host != v.LastHost {
		t.Errorf("the ledger has it %s after %d attempts, the last on %s; the verdict says %s", j.State, j.Attempt, j.Result.Host, v.LastHost)
	}
	count := map[string]int{}
	for _, w := range control.ReadWitness([]byte(writtenLines(t, filepath.Join(e.WorkRoot(), string(v.Job), "witness.jsonl")))) {
		count[w.Event]++
	}
	if count[control.WitnessStart] != attempts || count[control.WitnessEnd] != 1 {
		t.Errorf("the payload's file has %v, want %d starts and an end", count, attempts)
	}
	expectNoProcessOfJob(t, v.Job)
	var events []control.EventRow
	r := e.ctl(t, "events", "--target", string(v.Job), "--json")
	if err := json.Unmarshal([]byte(r.Stdout), &events); err != nil {
		t.Fatalf("gpuqctl events: exit code %d, %q: %v", r.Code, r.Stderr, err)
	}
	if len(events) != 1 || events[0].What != "simulate" || events[0].Host != rehearsedAt || !strings.Contains(events[0].Why, "scenario "+scenario) {
		t.Errorf("recorded %+v", events)
	}
	if n := e.metric(t, `gpuqd_rehearsals_total{scenario="`+scenario+`"}`); n != 1 && scenario != "2" && scenario != "4" { // those died
		t.Errorf("%v rehearsals of scenario %s are counted", n, scenario)
	}
}

// testSimulateAsks answers its questions as a person would.
func testSimulateAsks(t *testing.T, e *env) {
	t.Setenv("LC_ALL", "ko_KR.UTF-8")
	r, err := e.GpuqctlInput(t.Context(), strings.NewReader(rehearsedAt+"\n0\n예\n"), "simulate", "--length", "1s")
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != 0 || !strings.Contains(r.Stdout, "판정: 유실 0, 중복 0") || !strings.Contains(r.Stdout, "양호") {
		t.Errorf("exit code %d:\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if !strings.Contains(r.Stderr, rehearsedAt) || strings.Contains(r.Stderr, rehearsalsRefusedAt) {
		t.Errorf("it offers:\n%s", r.Stderr)
	}
}
