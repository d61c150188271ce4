package disk

import (
	"fmt"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"

	"golang.org/x/sys/unix"
)

// supervise guards the released command until nothing of it is left. It returns
// false where the shim died before.
func (s *shim) supervise() bool {
	timer := time.NewTimer(never)
	defer timer.Stop()
	for over := false; ; {
		due := s.plan()
		if due == never {
			timer.Stop()
		} else {
			timer.Reset(due - s.d.world.Now())
		}
		select {
		case <-s.bell:
		case <-timer.C:
		case <-s.proc.Dead():
			return false
		}
		if !s.awake() {
			return false
		}
		wall := s.d.stamp()
		s.d.world.Do(func() { over = s.turn(wall) })
		if over {
			s.tree.bury()
			return true
		}
	}
}

// plan returns when the next turn is due.
func (s *shim) plan() (due time.Duration) {
	s.d.world.Do(func() {
		s.due = s.nextDue(s.d.world.Now())
		due = s.due
	})
	return due
}

// awake waits until the shim is not frozen. After a freeze its clocks are late,
// and all that was due happens in the moments after the thaw.
func (s *shim) awake() bool {
	for {
		before := s.d.world.Now()
		if s.proc.Wait() != nil {
			return false
		}
		if s.d.world.Now() == before {
			return true
		}
		if !nap(s.proc, s.d.world.Between(1, latency, s.d.host.Name(), "awake", s.e.name)) {
			return false
		}
		s.d.world.Do(func() { s.readAt = s.d.world.Now() })
	}
}

// nextDue returns when a turn can change something that no bell tells of.
func (s *shim) nextDue(now time.Duration) time.Duration {
	e, in := s.e, &s.e.in
	if !s.endedWall.IsZero() {
		return never
	}
	due := s.killAt
	if in.TimeLimit > 0 && s.stop == nil && !s.frozen {
		due = min(due, now+max(in.TimeLimit-s.tree.ran(now), time.Millisecond))
	}
	if e.stop != nil && *e.stop != s.lastStop {
		due = min(due, s.readFrom(e.stopAt))
	}
	if in.DeadlineFile == "" {
		return due
	}
	word := s.file().read(s.lastRead(now))
	if s.judge(word, now) != s.judged {
		due = min(due, s.tickFrom(now))
	}
	if s.judged == leaseLive {
		due = min(due, s.tickFrom(word.At-s.offset))
	}
	if newest := s.file().newest(); newest.at > s.lastRead(now) {
		due = min(due, s.tickFrom(s.readFrom(newest.at)))
	}
	if s.frozen && in.FreezeMax > 0 && s.stop == nil {
		due = min(due, s.tickFrom(s.frozenSince+in.FreezeMax))
	}
	return due
}

// turn is one turn of the shim's loop. It reports whether nothing is left and the
// end can be recorded. Within Do, as all that follows.
func (s *shim) turn(wall time.Time) bool {
	now := s.d.world.Now()
	step := now >= s.due
	if s.notice(now, wall) {
		step = true
	}
	if s.wrote {
		s.wrote, step = false, true
		s.stopWritten(now)
	}
	if e := s.e; e.stop != nil && *e.stop != s.lastStop && e.stopAt <= s.lastRead(now) {
		s.lastStop, step = *e.stop, true
		s.request(*e.stop, now)
	}
	if step {
		s.step(now, wall)
		s.stepped = now
	}
	return !s.endedWall.IsZero() && (s.stop == nil || s.stopping)
}

// notice takes note of the command's end, once.
func (s *shim) notice(now time.Duration, wall time.Time) bool {
	if !s.tree.over || !s.endedWall.IsZero() {
		return false
	}
	s.ended, s.endedWall = now, wall
	return true
}

// step enforces what holds now. The order matters: a lease that is not live
// stops the attempt before anything lets it go on.
func (s *shim) step(now time.Duration, wall time.Time) {
	if !s.endedWall.IsZero() {
		return
	}
	s.enforceLease(now, wall)
	if limit := s.e.in.TimeLimit; limit > 0 && s.stop == nil && s.tree.ran(now) >= limit {
		s.request(runner.Stop{Reason: runner.StopTimeout, Detail: limit.String(), Time: wall}, now)
	}
	if now >= s.killAt {
		s.tree.kill()
		s.notice(now, wall)
	}
}

// enforceLease freezes, thaws or ends the attempt as its session's lease says.
func (s *shim) enforceLease(now time.Duration, wall time.Time) {
	in := &s.e.in
	state := s.judge(s.file().read(s.lastRead(now)), now)
	s.judged = state
	switch {
	case state == leaseExpired:
		s.request(runner.Stop{Reason: runner.StopSessionExpired, Detail: "session " + in.Session, Time: wall}, now)
	case state == leaseLate && in.LeaseLoss == runner.LeaseContinue:
	case state == leaseLate && s.stop != nil:
		s.cutGrace(0, now)
		s.freeze(now)
	case state == leaseLate && in.LeaseLoss == runner.LeaseStop:
		s.freeze(now)
		s.request(runner.Stop{Reason: runner.StopLeaseLost, Detail: "on_lease_loss is stop", Time: wall}, now)
	case state == leaseLate:
		s.freeze(now)
		if limit := in.FreezeMax; limit > 0 && now-s.frozenSince >= limit {
			s.request(runner.Stop{Reason: runner.StopFreezeMax, Detail: limit.String(), Time: wall}, now)
		}
	case s.frozen && s.stop == nil:
		s.thaw(now)
	}
}

func (s *shim) freeze(now time.Duration) {
	if !s.frozen {
		s.frozen, s.frozenSince = true, now
		s.tree.halt(now)
	}
}

func (s *shim) thaw(now time.Duration) {
	s.frozenTotal += now - s.frozenSince
	s.frozen = false
	s.tree.goOn(now)
}

// request begins to end the attempt. The first reason stays; a later one can only
// shorten the grace.
func (s *shim) request(req runner.Stop, now time.Duration) {
	grace := s.graceOf(req)
	if req.Reason.AtOnce() && s.endedWall.IsZero() {
		s.freeze(now)
	}
	if s.stop != nil {
		s.cutGrace(grace, now)
		return
	}
	if !s.endedWall.IsZero() {
		return // the exit came first
	}
	s.stop, s.grace = &req, grace
	go s.writeStopping(&req)
}

// writeStopping puts the reason on disk before the first signal.
func (s *shim) writeStopping(req *runner.Stop) {
	if s.d.write(s.proc, "shim stopping", s.e.name, func() { s.e.stopping = req }) != nil {
		return
	}
	s.d.world.Do(func() { s.wrote = true })
	s.ring()
}

// graceOf returns the time between SIGTERM and SIGKILL.
func (s *shim) graceOf(req runner.Stop) time.Duration {
	switch {
	case req.Reason.AtOnce() || req.Grace < 0:
		return 0
	case req.Grace > 0:
		return req.Grace
	}
	return s.e.in.GraceOrDefault()
}

func (s *shim) cutGrace(grace, now time.Duration) {
	s.grace = min(s.grace, grace)
	if s.stopping {
		s.killAt = min(s.killAt, now+grace)
	}
}

// stopWritten sends the first signal.
func (s *shim) stopWritten(now time.Duration) {
	if !s.endedWall.IsZero() {
		s.stop = nil // the exit came first, and counts
		return
	}
	s.stopping = true
	if s.grace == 0 || s.frozen {
		s.killAt = now
		return
	}
	s.killAt = now + s.grace
	s.tree.terminate()
}

// outcome classes the end.
func (s *shim) outcome() (exit runner.Exit) {
	s.d.world.Do(func() {
		t := s.tree
		exit = runner.Exit{
			Code: t.code, Signal: unix.SignalName(t.signal), Started: s.beganWall, Ended: s.endedWall,
			DurationSeconds: (s.ended - s.began).Seconds(), FrozenSeconds: s.frozenTotal.Seconds(), LogBytes: int64(len(s.e.log)),
		}
		if s.frozen {
			exit.FrozenSeconds += (s.ended - s.frozenSince).Seconds()
		}
		switch {
		case exit.Signal != "":
			exit.Class, exit.Reason = job.ClassUser, "the command was ended by "+exit.Signal
		case exit.Code != 0:
			exit.Class, exit.Reason = job.ClassUser, fmt.Sprintf("the command exited with code %d", exit.Code)
		}
		if stop := s.stop; stop != nil {
			exit.Class, exit.StopReason, exit.StopDetail = stop.Reason.Class(), stop.Reason, stop.Detail
			exit.Reason = string(stop.Reason) + ": " + stop.Detail
		}
	})
	return exit
}
