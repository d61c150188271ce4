package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
)

// output is an attempt's output, as a daemon has it.
type output struct {
	text    string
	over    bool
	dropped int64
}

// serve answers from a list of attempts, the n-th of which is on host gpuN; step
// lets a test change them.
func serve(d *daemon, state *job.State, attempts *[]output, step func(look int)) {
	looks := 0
	d.logs = func(a control.LogsArgs) (control.LogsReply, error) {
		looks++
		if step != nil {
			step(looks)
		}
		n := len(*attempts)
		r := control.LogsReply{Attempt: a.Attempt, State: *state, LastAttempt: n}
		if r.Attempt == 0 {
			r.Attempt = n
		}
		if n == 0 {
			return r, nil
		}
		if r.Attempt > n {
			return r, control.ErrNotFound
		}
		o := (*attempts)[r.Attempt-1]
		end := min(len(o.text), int(a.Offset)+a.Max)
		r.Host = fmt.Sprintf("gpu%d", r.Attempt)
		r.Offset, r.NextOffset, r.Data = a.Offset, int64(end), []byte(o.text[a.Offset:end])
		r.End = o.over && end == len(o.text)
		if r.End {
			r.Dropped = o.dropped
		}
		return r, nil
	}
}

func TestLogs(t *testing.T) {
	t.Run("OfAnEndedJob", func(t *testing.T) {
		d := startDaemon(t)
		state := job.Succeeded
		text := strings.Repeat("0123456789abcdef\n", 50_000) // several stretches
		serve(d, &state, &[]output{{text: "first", over: true}, {text: text, over: true}}, nil)
		if r := gpuqctl(t, d, "logs", string(idA)); r.code != 0 || r.out.String() != text || r.err.String() != "" {
			t.Errorf("exit %d, %d bytes, stderr %q", r.code, len(r.out.String()), r.err.String())
		}
		gpuqctl(t, d, "logs", "-f", "--attempt", "1", string(idA)).want(t, 0, "first", "")
		gpuqctl(t, d, "logs", "--attempt", "3", string(idA)).want(t, exitNotFound, "", "not found")
	})
	t.Run("OfARunningJobAreWhatIsThere", func(t *testing.T) {
		d := startDaemon(t)
		state := job.Running
		serve(d, &state, &[]output{{text: "so far"}}, nil)
		gpuqctl(t, d, "logs", string(idA)).want(t, 0, "so far", "")
	})
	t.Run("OfAJobThatHasNotStarted", func(t *testing.T) {
		d := startDaemon(t)
		state := job.Queued
		serve(d, &state, &[]output{}, nil)
		gpuqctl(t, d, "logs", string(idA)).want(t, 0, "", "is queued; no attempt of it has started")
		state = job.Dead
		gpuqctl(t, d, "logs", "-f", string(idA)).want(t, 0, "", "is dead; no attempt of it has started")
	})
	t.Run("FollowedThroughAttempts", func(t *testing.T) {
		d := startDaemon(t)
		state, attempts := job.Queued, []output{}
		serve(d, &state, &attempts, func(look int) {
			switch look {
			case 2:
				state, attempts = job.Running, []output{{text: "one "}}
			case 4:
				attempts[0].text += "two "
			case 5:
				state, attempts[0].over = job.Retrying, true
			case 7: // two attempts between two looks: none is skipped
				state, attempts = job.Running, append(attempts, output{text: "three ", over: true}, output{text: "four "})
			case 12:
				state, attempts[2] = job.Succeeded, output{text: "four five", over: true}
			}
		})
		r := gpuqctl(t, d, "logs", "-f", string(idA))
		r.want(t, 0, anything, "is queued; its output follows when it has started (gpuqctl why "+string(idA))
		r.want(t, 0, anything, "attempt 1 is over and the job is retrying; waiting for the next\n")
		r.want(t, 0, "one two three four five", "attempt 2 follows, on host gpu2\ngpuqctl: attempt 3 follows, on host gpu3\n")
	})
	t.Run("FollowedThroughARestart", func(t *testing.T) {
		d := startDaemon(t)
		state, attempts := job.Running, []output{{text: "before "}}
		serve(d, &state, &attempts, nil)
		answer, looks := d.logs, 0
		d.logs = func(a control.LogsArgs) (control.LogsReply, error) {
			switch looks++; looks {
			case 2, 3:
				return control.LogsReply{}, control.Errorf(control.CodeUnavailable, "", "the daemon is stopping")
			case 4:
				state, attempts[0] = job.Succeeded, output{text: "before after", over: true}
			}
			return answer(a)
		}
		r := gpuqctl(t, d, "logs", "-f", string(idA))
		r.want(t, 0, "before after", "the daemon is stopping; trying again\n")
		if n := strings.Count(r.err.String(), "\n"); n != 1 {
			t.Errorf("stderr has %d lines: %q", n, r.err.String())
		}
	})
	t.Run("FollowedPastALostHost", func(t *testing.T) {
		d := startDaemon(t)
		state, attempts := job.Running, []output{{text: "lost "}}
		serve(d, &state, &attempts, nil)
		answer, looks := d.logs, 0
		d.logs = func(a control.LogsArgs) (control.LogsReply, error) {
			if looks++; looks == 2 {
				attempts = append(attempts, output{text: "again", over: true})
				state = job.Succeeded
				d.jobs[idA] = control.JobRow{ID: idA, State: state, Attempt: 2}
				return control.LogsReply{}, fmt.Errorf("ask gpu1: %w", control.ErrNoHost)
			}
			return answer(a)
		}
		gpuqctl(t, d, "logs", "-f", string(idA)).want(t, 0, "lost again", "attempt 2 follows")
	})
	t.Run("OfAHostThatIsGoneForGood", func(t *testing.T) {
		d := startDaemon(t)
		d.put(control.JobRow{ID: idA, State: job.Failed, Attempt: 1})
		d.logs = func(control.LogsArgs) (control.LogsReply, error) {
			return control.LogsReply{}, fmt.Errorf("ask gpu1: %w", control.ErrNoHost)
		}
		gpuqctl(t, d, "logs", string(idA)).want(t, exitUnavailable, "", "ask gpu1: host out of reach")
		gpuqctl(t, d, "logs", "-f", string(idA)).want(t, exitUnavailable, "", "ask gpu1: host out of reach")
	})
	t.Run("StoredTailIsSaidToBeOne", func(t *testing.T) {
		d := startDaemon(t)
		d.logs = func(control.LogsArgs) (control.LogsReply, error) {
			return control.LogsReply{
				Attempt: 1, LastAttempt: 1, State: job.Failed, Data: []byte("the end\n"), Offset: 0, NextOffset: 8,
				End: true, Stored: true, Host: "gpu1", Dropped: 2048,
			}, nil
		}
		for _, args := range [][]string{{"logs", string(idA)}, {"logs", "-f", string(idA)}} {
			r := gpuqctl(t, d, args...)
			r.want(t, 0, "the end\n", "this is the end of it, from the ledger")
			r.want(t, 0, "the end\n", "2 KiB of the output of attempt 1 were not kept")
		}
	})
	t.Run("AnOffsetThatStandsStillIsAnError", func(t *testing.T) {
		d := startDaemon(t)
		d.logs = func(control.LogsArgs) (control.LogsReply, error) {
			return control.LogsReply{Attempt: 1, LastAttempt: 1, State: job.Running, Data: []byte("x")}, nil
		}
		gpuqctl(t, d, "logs", "-f", string(idA)).want(t, exitFailure, "x", "offset stands still")
	})
	t.Run("InterruptedFollowSaysTheJobGoesOn", func(t *testing.T) {
		d := startDaemon(t)
		state := job.Running
		ctx, cancel := context.WithCancelCause(t.Context())
		serve(d, &state, &[]output{{text: "so far"}}, func(look int) {
			if look == 3 {
				cancel(errors.New("interrupt"))
			}
		})
		new(run).exec(ctx, d, "logs", "-f", string(idA)).want(t, exitInterrupted, "so far", "goes on")
	})
	t.Run("ReaderThatIsGoneEndsIt", func(t *testing.T) {
		d := startDaemon(t)
		state := job.Running
		serve(d, &state, &[]output{{text: "so far"}}, nil)
		a := &app{out: brokenPipe{}, err: io.Discard, now: time.Now}
		if code := a.run(t.Context(), []string{"--socket", d.path, "logs", "-f", string(idA)}); code != exitFailure {
			t.Errorf("exit %d", code)
		}
	})
}

// What a person who follows is told, and how often.
func TestFollowedLogsSayWhatHappens(t *testing.T) {
	lines := func(r *run) int { return strings.Count(r.err.String(), "\n") }
	t.Run("OnceThatAnAttemptIsOver", func(t *testing.T) {
		d := startDaemon(t)
		state, attempts := job.Retrying, []output{{text: "one", over: true, dropped: 2048}}
		serve(d, &state, &attempts, func(look int) {
			if look == 6 {
				state, attempts = job.Succeeded, append(attempts, output{text: " two", over: true})
			}
		})
		r := gpuqctl(t, d, "logs", "-f", string(idA))
		r.want(t, 0, "one two", "2 KiB of the output of attempt 1 were not kept\n")
		if lines(r) != 3 { // and that it waits, and what follows
			t.Errorf("stderr %q", r.err.String())
		}
	})
	t.Run("OnceThatTheRestIsLostWithItsHost", func(t *testing.T) {
		d := startDaemon(t)
		looks := 0
		d.logs = func(a control.LogsArgs) (control.LogsReply, error) {
			looks++
			r := control.LogsReply{Attempt: 1, LastAttempt: 1, State: job.Running, Host: "gpu1", Offset: a.Offset, NextOffset: a.Offset}
			switch {
			case a.Attempt == 2 || looks == 7:
				r.Attempt, r.LastAttempt, r.State, r.Host, r.End = 2, 2, job.Succeeded, "gpu2", true
				r.Data, r.NextOffset = []byte(" again"), 6
				if a.Attempt != 2 {
					r.Attempt, r.Host, r.Stored, r.Data, r.NextOffset = 1, "gpu1", true, nil, a.Offset
				}
			case looks == 1:
				r.Data, r.NextOffset = []byte("lost"), 4
			default: // requeued, and not claimed yet
				r.State, r.Stored, r.End = job.Queued, true, true
			}
			return r, nil
		}
		r := gpuqctl(t, d, "logs", "-f", string(idA))
		r.want(t, 0, "lost again", "host gpu1 does not have the output of attempt 1 any more, or does not answer; nothing more of it can be had\n"+
			"gpuqctl: attempt 1 is over and the job is queued; waiting for the next\ngpuqctl: attempt 2 follows, on host gpu2\n")
		if lines(r) != 3 {
			t.Errorf("stderr %q", r.err.String())
		}
	})
	t.Run("AHostThatIsStartingAnewIsWaitedFor", func(t *testing.T) {
		d := startDaemon(t)
		d.put(control.JobRow{ID: idA, State: job.Failed, Attempt: 1, Class: job.ClassUser, ExitCode: exitCodeOf(3)})
		state, attempts := job.Running, []output{{text: "before "}}
		serve(d, &state, &attempts, nil)
		answer, looks := d.logs, 0
		d.logs = func(a control.LogsArgs) (control.LogsReply, error) {
			r, err := answer(a)
			switch looks++; looks {
			case 2: // its gpuqd is gone, and the job has ended
				state, attempts[0] = job.Failed, output{text: "before after", over: true}
				return control.LogsReply{}, fmt.Errorf("ask gpu1: %w", control.ErrNoHost)
			case 3:
				r.Stored, r.End, r.Data, r.NextOffset = true, true, nil, a.Offset
			}
			return r, err
		}
		r := (&run{patience: time.Hour}).exec(t.Context(), d, "logs", "-f", string(idA))
		r.want(t, 0, "before after", "ask gpu1: host out of reach; trying again\ngpuqctl: job "+string(idA)+" failed with exit code 3 (user)\n")
		if lines(r) != 2 {
			t.Errorf("stderr %q", r.err.String())
		}
	})
	t.Run("OneAttemptOfAHostThatIsGoneEnds", func(t *testing.T) {
		d := startDaemon(t)
		d.put(control.JobRow{ID: idA, State: job.Running, Attempt: 2})
		d.logs = func(control.LogsArgs) (control.LogsReply, error) {
			return control.LogsReply{}, fmt.Errorf("ask gpu1: %w", control.ErrNoHost)
		}
		gpuqctl(t, d, "logs", "-f", "--attempt", "1", string(idA)).want(t, exitUnavailable, "", "logs: ask gpu1: host out of reach\n")
	})
}

// brokenPipe is a stdout whose reader has left.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }
