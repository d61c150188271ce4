// Package wait lets tests wait for what other processes do: as short as it takes,
// and at most as long as it may take on a busy machine.
package wait

import (
	"errors"
	"testing"
	"time"
)

const (
	// tick lies between two checks at least; one that takes long is made less often.
	tick = 5 * time.Millisecond
	// patience is for what takes no time by itself.
	patience = 30 * time.Second
)

// For returns once check returns nil. It fails the test with the last error when
// that has not happened within a time.
func For(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	for end := time.Now().Add(within); ; {
		began := time.Now()
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still after %s: %v", within, err)
		}
		time.Sleep(max(tick, 2*time.Since(began)))
	}
}

// Until returns once the condition holds; what says what that means.
func Until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	For(t, patience, func() error {
		if condition() {
			return nil
		}
		return errors.New("waited in vain: " + what)
	})
}
