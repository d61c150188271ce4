package sim

import (
	"context"
	"errors"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/control"
	"gpuqd/daemon/job"
	"gpuqd/test/history"
)

// operator drains hosts.
var operator = control.Caller{User: "root", Operator: true, Via: control.ViaSocket}

// againAfter is how long somebody waits who does not know what became of his last
// request, before he looks again: it may still be under way.
const againAfter = 5 * time.Second

// hold has a user hold a job that has not started, and release it later.
func (s *site) hold(j *Job) {
	if !s.pause(j.HoldAt) {
		return
	}
	until := j.HoldAt + j.HoldFor
	held, unsure := s.holdUntil(j, until)
	if !held && !unsure || !s.pause(until-s.world.Now()) {
		return
	}
	if held {
		s.world.Note(history.Event{Kind: history.Released, Job: j.ID})
	}
	for n := 0; ; n++ {
		state := job.State("")
		err := s.ask(n, func(ctx context.Context, a *agent.Agent) error {
			reply, err := a.Release(ctx, control.Caller{User: user, Via: control.ViaSocket}, j.ID)
			state = reply.State
			return err
		})
		wait := s.world.Between(time.Second, 2*time.Second, string(j.ID), "release")
		switch {
		case err == nil && (!unsure || state.Terminal()):
			return
		case err == nil: // a hold that is still under way may strike yet
			wait += againAfter
		}
		if !s.pause(wait) {
			return
		}
	}
}

// holdUntil asks for a hold until there is an answer, or the time has come to
// release the job. held says that the job waits; unsure that a request may be
// carried out later.
func (s *site) holdUntil(j *Job, until time.Duration) (held, unsure bool) {
	for n := 0; s.world.Now() < until; n++ {
		state := job.State("")
		err := s.ask(n, func(ctx context.Context, a *agent.Agent) error {
			reply, err := a.Hold(ctx, control.Caller{User: user, Via: control.ViaSocket}, control.HoldArgs{ID: j.ID, Reason: "not yet"})
			state = reply.State
			return err
		})
		switch {
		case err == nil && state == job.Waiting:
			s.world.Note(history.Event{Kind: history.Held, Job: j.ID})
			return true, unsure
		case err == nil: // it was held, and has been released or killed since
			return false, unsure
		case isCode(err, control.CodeConflict): // it has started
			return false, unsure
		case !isCode(err, control.CodeNotFound) && !errors.Is(err, errNoDaemon):
			unsure = true
		}
		if !s.pause(s.world.Between(200*time.Millisecond, 2*time.Second, string(j.ID), "hold")) {
			return false, false
		}
	}
	return false, unsure
}

// drain has an operator drain a host or a device, and resume it later.
func (s *site) drain(d *Drain) {
	if !s.pause(d.At) {
		return
	}
	until, sure := d.At+d.For, false
	for n := 0; s.world.Now() < until && !sure; n++ {
		err := s.ask(n, func(ctx context.Context, a *agent.Agent) error {
			_, err := a.Drain(ctx, operator, control.DrainArgs{
				Host: d.Host, Device: d.Device, Reason: "maintenance", Mode: control.DrainMode(d.Mode), Deadline: job.Duration(d.Deadline),
			})
			return err
		})
		sure = err == nil && n == 0
		if err == nil || !s.pause(s.world.Between(time.Second, 2*time.Second, d.Host, d.Device, "drain")) {
			break
		}
	}
	if !s.pause(until - s.world.Now()) {
		return
	}
	for n := 0; ; n++ {
		err := s.ask(n, func(ctx context.Context, a *agent.Agent) error {
			_, err := a.Resume(ctx, operator, control.ResumeArgs{Host: d.Host, Device: d.Device})
			return err
		})
		wait := s.world.Between(time.Second, 2*time.Second, d.Host, d.Device, "resume")
		if err == nil {
			if sure {
				return
			}
			wait += againAfter // a drain that is still under way may strike yet
		}
		if !s.pause(wait) {
			return
		}
	}
}

// isCode reports whether a daemon has refused with this code.
func isCode(err error, code control.Code) bool {
	var refusal *control.Error
	return errors.As(err, &refusal) && refusal.Code == code
}
