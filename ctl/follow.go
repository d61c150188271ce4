package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// The pause between two looks at output that does not grow.
const (
	followPauseMin = 50 * time.Millisecond
	followPauseMax = time.Second
)

// hostPatience is how long logs -f waits for a host that does not give the rest
// of an attempt's output, when there is nothing more to come from it: its gpuqd
// may just be starting anew.
const hostPatience = 15 * time.Second

// follower reads a job's output, stretch by stretch.
type follower struct {
	*logsCmd
	client  *control.Client
	id      job.ID
	attempt int   // that is read; 0 before the first answer
	offset  int64 // of the next byte
	pause   time.Duration

	state    job.State // as of the last answer
	missing  time.Time // since when the attempt's host does not answer; zero: it does
	lost     bool      // no daemon has answered since the last stretch, and the person knows
	waited   bool      // the person knows that no attempt has started yet
	announce bool      // the attempt's first answer is to be announced
	ended    bool      // the person knows that the attempt is over and another may follow
}

// step prints one stretch and reports whether there is nothing more to print.
func (f *follower) step(ctx context.Context) (over bool, err error) {
	r, err := f.client.Logs(ctx, control.LogsArgs{ID: f.id, Attempt: f.attempt, Offset: f.offset, Max: control.LogBytesMax})
	if err != nil {
		return f.missed(ctx, err)
	}
	f.lost, f.state = false, r.State
	switch {
	case r.Attempt == 0:
		return f.unstarted(r), nil
	case r.Stored && f.follow && f.offset > 0 && f.patient():
		f.pace(false)
		return false, nil
	case !r.Stored:
		f.missing = time.Time{}
	}
	if f.announce {
		f.announce = false
		f.say("attempt %d follows%s", r.Attempt, prefixed(", on host ", r.Host))
	}
	if r.Stored && !f.ended {
		f.sayStored(r)
	}
	if _, err := f.out.Write(r.Data); err != nil {
		return true, err
	}
	if len(r.Data) > 0 && r.NextOffset <= f.offset && !r.End {
		return true, fmt.Errorf("%w: the daemon's offset stands still at %d", control.ErrInternal, r.NextOffset)
	}
	f.attempt, f.offset = r.Attempt, r.NextOffset
	f.pace(len(r.Data) > 0)
	if !f.follow {
		over := r.End || len(r.Data) < control.LogBytesMax
		if r.End {
			f.sayDropped(r)
		}
		return over, nil
	}
	return r.End && f.attemptOver(r), nil
}

// attemptOver decides what comes after the end of an attempt's output.
func (f *follower) attemptOver(r control.LogsReply) (over bool) {
	if !f.ended {
		f.sayDropped(r)
	}
	switch {
	case f.logsCmd.attempt != 0:
		return true
	case r.LastAttempt > r.Attempt:
		f.next()
		return false
	case !r.State.Terminal() && !r.State.Held() && !f.ended:
		f.say("attempt %d is over and the job is %s; waiting for the next", r.Attempt, r.State)
	}
	f.ended = true
	return r.State.Terminal()
}

// sayStored tells that the output is not whole.
func (f *follower) sayStored(r control.LogsReply) {
	what := "this is the end of it, from the ledger"
	if len(r.Data) == 0 {
		what = "nothing more of it can be had"
	}
	f.say("host %s does not have the output of attempt %d any more, or does not answer; %s", r.Host, r.Attempt, what)
}

func (f *follower) sayDropped(r control.LogsReply) {
	if r.Dropped > 0 {
		f.say("%s of the output of attempt %d were not kept", size(uint64(r.Dropped)), r.Attempt)
	}
}

// sayEnd tells whoever has followed a job to its end how it ended, if not well.
func (f *follower) sayEnd(ctx context.Context) {
	if !f.follow || f.logsCmd.attempt != 0 || f.attempt == 0 || f.state == job.Succeeded {
		return
	}
	text := string(f.state)
	if reply, err := f.client.States(ctx, []job.ID{f.id}, 0); err == nil && len(reply.Jobs) == 1 {
		text = describe(reply.Jobs[0])
	}
	f.say("job %s %s", f.id, text)
}

// pace looks again at once while there is output, and more and more seldom when
// there is none.
func (f *follower) pace(grew bool) {
	switch {
	case grew:
		f.pause = 0
	case f.pause == 0:
		f.pause = followPauseMin
	default:
		f.pause = min(2*f.pause, followPauseMax)
	}
}

func (f *follower) next() {
	f.attempt++
	f.offset, f.pause, f.missing = 0, 0, time.Time{}
	f.announce, f.ended = true, false
}

// unstarted deals with a job of which no attempt has started.
func (f *follower) unstarted(r control.LogsReply) (over bool) {
	f.pace(false)
	if r.State.Terminal() || !f.follow {
		f.say("job %s is %s; no attempt of it has started", f.id, r.State)
		return true
	}
	if !f.waited {
		f.waited = true
		f.say("job %s is %s; its output follows when it has started (gpuqctl why %s says what it waits for)", f.id, r.State, f.id)
	}
	return false
}

// patient reports whether the attempt's host, which does not answer, is still
// waited for, and says so the first time.
func (f *follower) patient() bool {
	if f.missing.IsZero() {
		f.missing = time.Now()
		if f.patience > 0 {
			f.say("the host of attempt %d does not give the rest of its output now; trying again", f.attempt)
		}
	}
	return time.Since(f.missing) < f.patience
}

// missed decides whether to go on after a stretch that could not be had.
func (f *follower) missed(ctx context.Context, err error) (over bool, _ error) {
	gone := errors.Is(err, control.ErrNoHost)
	if !f.follow || !gone && !errors.Is(err, control.ErrUnavailable) {
		return true, err
	}
	f.pace(false)
	if !f.lost {
		f.lost = true
		f.say("%s; trying again", withoutHint(err))
	}
	if !gone {
		return false, nil
	}
	if f.missing.IsZero() {
		f.missing = time.Now()
	}
	// The host may be gone for good: then the rest of this attempt's output is
	// lost, and the job ends or goes on elsewhere.
	reply, stateErr := f.client.States(ctx, []job.ID{f.id}, 0)
	if stateErr != nil || len(reply.Jobs) == 0 {
		return false, nil
	}
	row := reply.Jobs[0]
	later := f.attempt > 0 && row.Attempt > f.attempt
	switch {
	case !later && !row.State.Terminal(), f.offset > 0 && f.patient():
		return false, nil
	case later && f.logsCmd.attempt == 0:
		f.next()
		return false, nil
	}
	return true, err
}

// withoutHint is an error without what to do: gpuqctl does it.
func withoutHint(err error) string {
	var e *control.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return err.Error()
}
