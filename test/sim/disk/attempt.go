package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/sim/world"
)

// Attempt is one attempt as one run of the daemon has it.
type Attempt struct {
	r *Runner
	e *entry
}

var _ agent.Attempt = (*Attempt)(nil)

// Key implements agent.Attempt.
func (a *Attempt) Key() runner.Key { return a.e.key }

// Intent implements agent.Attempt.
func (a *Attempt) Intent() *runner.Intent { return &a.e.in }

// slotOf reads one slot into a new T.
func slotOf[T any](a *Attempt, what string, slot **T) (*T, bool, error) {
	var v *T
	err := a.r.look(func() error {
		if a.e.removed {
			return a.e.notFound(what)
		}
		if *slot != nil {
			v = new(T)
			*v = **slot
		}
		return nil
	})
	return v, v != nil, err
}

// Started implements agent.Attempt.
func (a *Attempt) Started() (*runner.Started, bool, error) { return slotOf(a, "start", &a.e.started) }

// Exit implements agent.Attempt.
func (a *Attempt) Exit() (*runner.Exit, bool, error) { return slotOf(a, "exit", &a.e.exit) }

// Verdict implements agent.Attempt.
func (a *Attempt) Verdict() (*runner.Verdict, bool, error) {
	return slotOf(a, "verdict", &a.e.verdict)
}

// Revoked implements agent.Attempt.
func (a *Attempt) Revoked() (*runner.Revoked, bool, error) {
	return slotOf(a, "revocation", &a.e.revoked)
}

// How late a waiter hears of a shim's end, and how often it looks where the
// kernel tells it nothing.
const (
	hearMin  = 20 * time.Microsecond
	hearMax  = 300 * time.Microsecond
	waitTick = 200 * time.Millisecond
)

// Wait implements agent.Attempt.
func (a *Attempt) Wait(ctx context.Context) (*runner.Exit, error) {
	for {
		exit, shim, err := a.state()
		if err == nil && exit == nil {
			err = a.waitForShim(ctx, shim)
		}
		if err != nil {
			return nil, fmt.Errorf("wait for attempt %s: %w", a.e.name, err)
		}
		if exit != nil {
			return exit, nil
		}
	}
}

// state returns the exit, or the shim whose end is to be waited for; nil and nil
// where somebody else holds the lock.
func (a *Attempt) state() (exit *runner.Exit, shim *shim, err error) {
	err = a.r.look(func() error {
		e := a.e
		switch {
		case e.removed:
			return e.notFound("exit")
		case e.held():
			if e.shim != nil && !e.shim.proc.Gone() {
				shim = e.shim
			}
		case e.exit != nil:
			exit = new(*e.exit)
		case e.started != nil:
			return runner.ErrLost
		default:
			return runner.ErrNotStarted
		}
		return nil
	})
	return exit, shim, err
}

func (a *Attempt) waitForShim(ctx context.Context, shim *shim) error {
	var gone <-chan struct{}
	var tick <-chan time.Time
	if shim != nil {
		gone = shim.proc.Dead()
	} else {
		timer := time.NewTimer(waitTick)
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-gone:
	case <-tick:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.r.p.Dead():
		return world.ErrDead
	}
	if !a.hear("end") {
		return world.ErrDead
	}
	return nil
}

// hear lets the time pass in which word of another process comes.
func (a *Attempt) hear(what string) bool {
	d := a.r.d
	return nap(a.r.p, d.world.Between(hearMin, hearMax, d.host.Name(), what, a.e.name))
}

// put writes one slot of the record.
func (a *Attempt) put(step, what string, effect func()) error {
	err := a.r.sync(step, a.e.name, func() error {
		if a.e.removed {
			return fs.ErrNotExist
		}
		effect()
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %s of attempt %s: %w", what, a.e.name, err)
	}
	return nil
}

// Revoke implements agent.Attempt.
func (a *Attempt) Revoke() error {
	d, e := a.r.d, a.e
	if err := d.lockBeforeStart(a.r.p, e); err != nil {
		return fmt.Errorf("revoke attempt %s: %w", e.name, err)
	}
	defer d.release(a.r.p, e)
	revoked := false
	err := a.r.look(func() error {
		if e.started != nil {
			return fmt.Errorf("revoke attempt %s: %w", e.name, runner.ErrStarted)
		}
		revoked = e.revoked != nil
		return nil
	})
	if err != nil || revoked {
		return err
	}
	v := &runner.Revoked{Reason: "revoked by the daemon: it was never started", Time: d.stamp()}
	return a.put("disk revoke", "revocation", func() { e.revoked = v })
}

// RecordLost implements agent.Attempt.
func (a *Attempt) RecordLost(reason string) error {
	d, e := a.r.d, a.e
	if err := d.lockAfterShim(a.r.p, e); err != nil {
		return fmt.Errorf("record attempt %s as lost: %w", e.name, err)
	}
	defer d.release(a.r.p, e)
	ended := false
	err := a.r.look(func() error {
		if ended = e.exit != nil; !ended && e.started == nil {
			return fmt.Errorf("record attempt %s as lost: %w", e.name, runner.ErrNotStarted)
		}
		return nil
	})
	if err != nil || ended {
		return err
	}
	if err := a.r.killLeftovers(e); err != nil {
		return err
	}
	exit := &runner.Exit{Code: -1, Class: job.ClassHostLost, Reason: reason, Lost: true, Ended: d.stamp()}
	return a.put("disk lost", "exit", func() {
		exit.Started, exit.LogBytes = e.started.Time, int64(len(e.log))
		if s := e.stopping; s != nil {
			exit.Class, exit.StopReason, exit.StopDetail = s.Reason.Class(), s.Reason, s.Detail
		}
		e.exit = exit
	})
}

// RequestStop implements agent.Attempt.
func (a *Attempt) RequestStop(s runner.Stop) error {
	d, e := a.r.d, a.e
	if s.Time.IsZero() {
		s.Time = d.stamp()
	}
	err := a.put("disk stop", "stop request", func() {
		e.stop, e.stopAt = &s, d.world.Now()
		if e.shim != nil {
			e.shim.ring() // it sees the request at its next look
		}
	})
	if err != nil {
		return err
	}
	return a.r.look(func() error {
		if e.shim != nil {
			e.shim.nudge()
		}
		return nil
	})
}

// MarkCommitted implements agent.Attempt.
func (a *Attempt) MarkCommitted(commitID string) error {
	return a.mark(runner.Verdict{CommitID: commitID})
}

// MarkDiscarded implements agent.Attempt.
func (a *Attempt) MarkDiscarded(reason string) error {
	return a.mark(runner.Verdict{Discarded: reason})
}

func (a *Attempt) mark(v runner.Verdict) error {
	v.Time = a.r.d.stamp()
	return a.put("disk verdict", "verdict", func() { a.e.verdict = &v })
}

// Witness is the one line that a payload writes: it names its attempt and host.
func Witness(id job.ID, attempt int, host string) string {
	return fmt.Sprintf("witness %s %d %s", id, attempt, host)
}

// ReadLog implements agent.Attempt.
func (a *Attempt) ReadLog(offset int64, max int) ([]byte, error) {
	if offset < 0 || max < 0 {
		return nil, errors.New("read log: neither offset nor max may be negative")
	}
	var data []byte
	err := a.r.look(func() error {
		if text := a.e.log; !a.e.removed && offset < int64(len(text)) {
			text = text[offset:]
			data = []byte(text[:min(len(text), max)])
		}
		return nil
	})
	return data, err
}

// LogTail implements agent.Attempt.
func (a *Attempt) LogTail(n int) ([]byte, error) {
	var size int
	if err := a.r.look(func() error { size = len(a.e.log); return nil }); err != nil {
		return nil, err
	}
	return a.ReadLog(int64(max(size-n, 0)), n)
}
