package control

import (
	"encoding/json"
	"testing"

	"gpuqd/daemon/job"
)

// TestSimulateIsCheckedBeforeItIsCarriedOut: what cannot be meant reaches no
// host.
func TestSimulateIsCheckedBeforeItIsCarriedOut(t *testing.T) {
	good := SimulateArgs{Action: SimulateArm, Host: "gpu1", Job: job.NewID(), Scenario: ScenarioLate, Moment: MomentCommit}
	for name, change := range map[string]func(*SimulateArgs){
		"Action":        func(a *SimulateArgs) { a.Action = "kill" },
		"NoHost":        func(a *SimulateArgs) { a.Host = "" },
		"NoJob":         func(a *SimulateArgs) { a.Job = "job-1" },
		"BelowFirst":    func(a *SimulateArgs) { a.Scenario = -1 },
		"AboveLast":     func(a *SimulateArgs) { a.Scenario = ScenarioMax + 1 },
		"Moment":        func(a *SimulateArgs) { a.Moment = "later" },
		"WedgeOfNoLoop": func(a *SimulateArgs) { a.Action = SimulateWedge },
		"LoopOfOther":   func(a *SimulateArgs) { a.Loop = "take" },
		"MomentOfOther": func(a *SimulateArgs) { a.Scenario = ScenarioMidJob },
	} {
		args := good
		change(&args)
		r := newRecorder()
		c := clientOf(serve(t, r, nil).opts.Socket)
		defer c.Close()
		_, err := c.Simulate(t.Context(), args)
		wantErr(t, err, ErrBadRequest)
		if len(r.callers) > 0 {
			t.Errorf("%s: the handler was asked", name)
		}
	}
	c := clientOf(serve(t, newRecorder(), nil).opts.Socket)
	defer c.Close()
	for _, args := range []SimulateArgs{good, {Action: SimulateWedge, Host: "gpu1", Loop: "take"}} {
		if _, err := c.Simulate(t.Context(), args); err != nil {
			t.Error(err)
		}
	}
}

func TestWitnessIsReadByWholeLinesOfItsOwn(t *testing.T) {
	line, err := json.Marshal(Witness{Event: WitnessStep, Step: 2, Attempt: 1})
	if err != nil {
		t.Fatal(err)
	}
	output := "a line of something else\n{}\n" + string(line) + "\n" + string(line) // the last is not whole
	if got := ReadWitness([]byte(output)); len(got) != 1 || got[0].Event != WitnessStep || got[0].Step != 2 {
		t.Errorf("got %+v", got)
	}
}
