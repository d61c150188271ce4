package main

import (
	"time"

	"gpuqd/daemon/runner"
)

// request begins to end the attempt. The first reason stays; a later one can
// only shorten the grace.
func (s *supervisor) request(req runner.Stop) {
	grace := s.graceOf(req)
	if req.Reason.AtOnce() && s.status == nil && s.killing.IsZero() {
		// The job may run elsewhere already: it stands still while the reason is
		// on its way to a disk that may be slow.
		s.freeze(time.Now())
	}
	if s.stop != nil {
		s.cutGrace(grace)
		return
	}
	if s.status != nil {
		return // the exit came first
	}
	s.stop, s.grace = &req, grace
	// On disk before the first signal: whatever happens next, it is known why.
	// Apart from the loop, which must stay able to freeze.
	go func() { s.written <- s.a.WriteStopping(req) }()
}

// graceOf returns the time between SIGTERM and SIGKILL.
func (s *supervisor) graceOf(req runner.Stop) time.Duration {
	switch {
	case req.Reason.AtOnce() || req.Grace < 0:
		return 0
	case req.Grace > 0:
		return req.Grace
	}
	return s.in.GraceOrDefault()
}

// cutGrace shortens the grace of a stop under way to what is asked from now on.
func (s *supervisor) cutGrace(grace time.Duration) {
	s.grace = min(s.grace, grace)
	if at := time.Now().Add(grace); s.stopping && at.Before(s.killAt) {
		s.killAt = at
	}
}

// stopWritten sends the first signal. Where the reason could not be written the
// attempt is ended all the same: the exit record still has it.
func (s *supervisor) stopWritten(err error) {
	if err != nil {
		note("%v", err)
	}
	note("stopping: %s", stopText(s.stop, s.in))
	if s.status != nil {
		s.stop = nil // the exit came first, and counts
		return
	}
	s.stopping = true
	if s.grace == 0 || !s.frozenSince.IsZero() {
		// A frozen attempt has lost its right to run: it gets no grace.
		s.killAt = time.Now()
		return
	}
	s.killAt = time.Now().Add(s.grace)
	s.tree.terminate()
}

// stopText says for people why an attempt was ended.
func stopText(stop *runner.Stop, in *runner.Intent) string {
	if stop == nil {
		return ""
	}
	text := ""
	switch stop.Reason {
	case runner.StopTimeout:
		return "the time limit of " + in.TimeLimit.String() + " was reached; submit with a longer one"
	case runner.StopKilled:
		text = "killed"
	case runner.StopDrained:
		text = "drained"
	case runner.StopPreempted:
		text = "preempted by a more important job"
	case runner.StopDevice:
		text = "a device failed"
	case runner.StopOOMGPU:
		text = "it used more GPU memory than its share"
	case runner.StopFenced:
		text = "the job was taken over: it was claimed again under a higher fence"
	case runner.StopSessionExpired:
		text = "the host's session expired, and its jobs were given to other hosts"
	case runner.StopLeaseLost:
		text = "the host lost contact to the ledger for longer than its lease"
	case runner.StopFreezeMax:
		text = "the host was without contact to the ledger, and the job frozen, for longer than freeze_max"
	case runner.StopShutdown:
		text = "the host shuts down"
	default:
		text = string(stop.Reason)
	}
	if stop.Detail != "" {
		text += ": " + stop.Detail
	}
	return text
}
