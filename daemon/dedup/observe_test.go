package dedup

import (
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

func TestObserve(t *testing.T) {
	f := start(t, "")
	var mu sync.Mutex
	var told []string
	c := New(Config{
		Addrs: []string{f.server.Addr}, LedgerID: "ledger-1", Timeout: time.Second,
		Observe: func(operation, result string, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if took < 0 {
				t.Errorf("%s took %s", operation, took)
			}
			told = append(told, operation+" "+result)
		},
	})
	t.Cleanup(c.Close)
	tells := func(t *testing.T, what string) {
		t.Helper()
		wait.Until(t, what+" is told", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(told, what)
		})
	}

	t.Run("EachQuestionIsToldWithItsResult", func(t *testing.T) {
		id := job.NewID()
		c.Done(t.Context(), id)
		tells(t, "get miss")
		c.Store(t.Context(), id, job.Succeeded)
		tells(t, "set ok")
		c.Done(t.Context(), id)
		tells(t, "get ok")
	})
	t.Run("CircuitsOpenOnFailureAndCloseAgain", func(t *testing.T) {
		if got := c.Circuits(); !slices.Equal(got, []Circuit{{"reads", false}, {"writes", false}}) {
			t.Fatalf("circuits are %+v, want both closed", got)
		}
		signal(t, f, syscall.SIGSTOP)
		defer func() { _ = f.server.Signal(syscall.SIGCONT) }() // once more where the test fails
		c.Done(t.Context(), job.NewID())
		tells(t, "get timeout")
		if got := c.Circuits(); !got[0].Open {
			t.Errorf("circuits are %+v, want that of reads open", got)
		}
		signal(t, f, syscall.SIGCONT)
		wait.Until(t, "both circuits are closed", func() bool {
			return !slices.ContainsFunc(c.Circuits(), func(one Circuit) bool { return one.Open })
		})
	})
}
