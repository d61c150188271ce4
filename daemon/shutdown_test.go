package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/power"
)

// ending is a hostEnd to which systemd answers so.
func ending(stopping bool, err error) *hostEnd {
	return &hostEnd{
		words:    make(chan agent.Shutdown),
		stopping: func(context.Context) (bool, error) { return stopping, err }, log: slog.New(slog.DiscardHandler),
	}
}

func TestStop(t *testing.T) {
	t.Run("OfTheDaemonAloneReleasesNothing", func(t *testing.T) {
		for _, err := range []error{nil, errors.New("there is no systemd")} {
			h := ending(false, err)
			ctx, stop := context.WithCancel(t.Context())
			after := h.before(ctx)
			if after.Err() != nil {
				t.Fatal("it ends before it is asked to")
			}
			stop()
			select { // a word would be waiting for its reader, and the end for the word
			case <-after.Done():
			case word := <-h.words:
				t.Errorf("the agent is told %+v", word)
			}
		}
	})
	t.Run("OfTheSystemWaitsForTheRelease", func(t *testing.T) {
		h := ending(true, nil)
		ctx, stop := context.WithCancel(t.Context())
		after := h.before(ctx)
		stop()
		word := <-h.words
		if !word.Down || word.Within != releaseWithin || after.Err() != nil {
			t.Errorf("told %+v; ended %v", word, after.Err())
		}
		word.Done()
		<-after.Done()
	})
	t.Run("WordToNobodyHoldsNothingUp", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan struct{})
		ending(true, nil).tell(ctx, power.Notice{Down: true, Done: func() { close(done) }})
		<-done
	})
}
