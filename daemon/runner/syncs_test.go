package runner_test

import (
	"testing"
	"time"

	"gpuqd/daemon/runner"
)

// What the daemon waits for before it says that something is on disk.
func TestEverySyncIsObserved(t *testing.T) {
	j := openJournal(t, t.TempDir())
	syncs := 0
	j.ObserveSyncs(func(took time.Duration) {
		if took < 0 {
			t.Errorf("a sync took %s", took)
		}
		syncs++
	})
	expect := func(what string, want int) {
		t.Helper()
		if syncs != want {
			t.Errorf("%s: %d syncs, want %d", what, syncs, want)
		}
		syncs = 0
	}
	a := begin(t, j)
	expect("begin", 4) // intent, record, the directory, and the one around it
	must(t, a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
	expect("stop", 1)
	again, err := j.Get(a.Key())
	must(t, err)
	must(t, again.MarkDiscarded("for the test"))
	expect("verdict", 1)
	list, err := j.List()
	must(t, err)
	must(t, list[0].MarkCommitted("c"))
	expect("verdict of a listed one", 1)
	alone, err := runner.OpenAttempt(a.Dir()) // as a shim does
	must(t, err)
	must(t, alone.MarkCommitted("c"))
	expect("a shim's", 0)
}
