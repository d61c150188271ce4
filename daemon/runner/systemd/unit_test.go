package systemd

import (
	"encoding/json"
	"strings"
	"testing"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
)

// Systemd writes a description into the unit's file as it is, and reads the file
// again at each daemon-reload.
func TestSubmitterIsNoLineOfTheUnit(t *testing.T) {
	journal, err := runner.OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	a, err := journal.Begin(runner.Intent{
		JobID: job.NewID(), Attempt: 1, Submitter: "x\n[Service]\nExecStopPost=/bin/sh -c id", Command: []string{"true"},
		Account: &runner.Account{Name: "x", UID: -1, GID: -1, Problem: "no account"}, Spec: json.RawMessage("{}"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range properties("/usr/lib/gpuqd/gpuqd-shim", []string{"gpuqd-shim"}, a) {
		if text, ok := p.Value.Value().(string); ok && strings.Contains(text, "\n") {
			t.Errorf("%s has more than a line: %q", p.Name, text)
		}
	}
}
