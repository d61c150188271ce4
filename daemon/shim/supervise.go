package main

import (
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
)

const (
	// killTick is how often what is to be killed is looked for again; after
	// killPatience, when it must be stuck in the kernel, slowTick is.
	killTick     = 20 * time.Millisecond
	killPatience = 5 * time.Second
	slowTick     = time.Second
)

// supervisor runs one attempt from its release until nothing of it is left. Its
// loop never touches the disk: a disk that hangs must not keep it from freezing
// or killing.
type supervisor struct {
	a      *runner.Attempt
	in     *runner.Intent
	lease  *lease
	sig    *signals
	out    *output
	cmd    *command
	place  place
	tree   tree
	reaped *reaped

	requests chan runner.Stop // stop requests as they are read; one place: only the newest matters
	written  chan error       // the stop reason is on disk, or cannot be

	began       time.Time
	frozenSince time.Time // zero: not frozen
	frozeAt     time.Time // when the tree was last looked through for what runs on
	frozen      time.Duration
	stuck       bool // the last thaw did not succeed

	status *unix.WaitStatus // the command's; nil while it runs
	ended  time.Time        // of the command

	stop     *runner.Stop // the first one
	grace    time.Duration
	stopping bool      // the stop reason is on disk, signals may be sent
	killAt   time.Time // zero: not yet known
	killing  time.Time // since when; zero: not yet
}

func newSupervisor(a *runner.Attempt, l *lease, sig *signals, out *output, cmd *command, p place) *supervisor {
	return &supervisor{
		a: a, in: a.Intent(), lease: l, sig: sig, out: out, cmd: cmd, place: p,
		tree:     tree{cgroup: cmd.cgroup},
		reaped:   reap(cmd.pid),
		began:    time.Now(),
		requests: make(chan runner.Stop, 1),
		written:  make(chan error, 1),
	}
}

// run supervises the released command until nothing is left, and returns how it
// ended.
func (s *supervisor) run() runner.Exit {
	s.began = time.Now()
	watching := make(chan struct{})
	nudge := make(chan struct{}, 1)
	go s.watchDisk(nudge, watching)
	timer := time.NewTicker(tick)
	defer timer.Stop()
	defer close(watching)
	for {
		select {
		case status := <-s.reaped.ended:
			s.status, s.ended = &status.WaitStatus, time.Now()
			if status.last {
				return s.finish()
			}
		case <-s.reaped.gone:
			return s.finish()
		case req := <-s.requests:
			s.request(req)
		case err := <-s.written:
			s.stopWritten(err)
		case sig := <-s.sig.end:
			s.request(runner.Stop{Reason: runner.StopShutdown, Detail: "the shim received " + sig.String(), Time: time.Now().UTC()})
		case <-s.sig.nudge:
			select {
			case nudge <- struct{}{}:
			default: // one is waiting
			}
		case <-timer.C:
		}
		s.step(time.Now())
		timer.Reset(s.nextTick())
	}
}

func (s *supervisor) nextTick() time.Duration {
	switch {
	case !s.killing.IsZero() && time.Since(s.killing) > killPatience:
		return slowTick
	case !s.killing.IsZero():
		return killTick
	case !s.killAt.IsZero():
		return min(tick, max(time.Until(s.killAt), time.Millisecond))
	case s.in.TimeLimit > 0 && s.stop == nil && s.frozenSince.IsZero():
		return min(tick, max(s.in.TimeLimit-s.ran(time.Now()), time.Millisecond))
	}
	return tick
}

// watchDisk reads the lease and the stop request at each tick and nudge.
func (s *supervisor) watchDisk(nudge, done <-chan struct{}) {
	timer := time.NewTicker(tick)
	defer timer.Stop()
	var last runner.Stop
	for {
		s.lease.refresh()
		req, ok, err := s.a.StopRequest()
		if err == nil && ok && *req != last {
			last = *req
			select {
			case s.requests <- last:
			case <-done:
				return
			}
		}
		select {
		case <-timer.C:
		case <-nudge:
		case <-done:
			return
		}
	}
}

// step enforces what holds now. The order matters: a lease that is not live
// stops the attempt before anything lets it go on.
func (s *supervisor) step(now time.Time) {
	s.enforceLease(now)
	if s.in.TimeLimit > 0 && s.stop == nil && s.status == nil && s.ran(now) >= s.in.TimeLimit {
		s.request(runner.Stop{Reason: runner.StopTimeout, Detail: s.in.TimeLimit.String(), Time: now.UTC()})
	}
	// What the command left behind by itself gets no grace.
	left := s.status != nil && !s.stopping
	due := !s.killAt.IsZero() && !now.Before(s.killAt)
	if s.killing.IsZero() && (left || due) {
		s.killing = now
	}
	if !s.killing.IsZero() {
		s.tree.kill()
	}
}

// enforceLease freezes, thaws or ends the attempt as its session's lease says.
func (s *supervisor) enforceLease(now time.Time) {
	state := s.lease.state()
	switch {
	case !s.killing.IsZero():
	case state == leaseExpired:
		// Also where the job asked to go on without a lease: the ledger has
		// taken it away, and its result would be refused.
		s.request(runner.Stop{Reason: runner.StopSessionExpired, Detail: "session " + s.in.Session, Time: now.UTC()})
	case state == leaseLate && s.in.LeaseLoss == runner.LeaseContinue:
	case state == leaseLate && s.stop != nil:
		s.cutGrace(0) // it would run on past the deadline
		s.freeze(now)
	case state == leaseLate && s.in.LeaseLoss == runner.LeaseStop:
		s.freeze(now) // until the reason is on disk
		s.request(runner.Stop{Reason: runner.StopLeaseLost, Detail: "on_lease_loss is stop", Time: now.UTC()})
	case state == leaseLate:
		s.freeze(now)
		if limit := s.in.FreezeMax; limit > 0 && now.Sub(s.frozenSince) >= limit {
			s.request(runner.Stop{Reason: runner.StopFreezeMax, Detail: limit.String(), Time: now.UTC()})
		}
	case !s.frozenSince.IsZero() && s.stop == nil:
		s.thaw(now)
	}
}

// freeze holds the tree, and counts from when it began to. Until all stands still
// it looks at each tick; later more slowly, for what somebody else continued.
func (s *supervisor) freeze(now time.Time) {
	first := s.frozenSince.IsZero()
	if !first && now.Sub(s.frozeAt) < slowTick {
		return
	}
	s.frozeAt = time.Time{}
	if still := s.tree.freeze(); still {
		s.frozeAt = now
	}
	if first {
		s.frozenSince = now
		note("frozen: it has no right to run now")
	}
}

// thaw lets the tree go on. Where it cannot, the attempt counts as frozen still, and
// each tick tries again.
func (s *supervisor) thaw(now time.Time) {
	if err := s.tree.thaw(); err != nil {
		if !s.stuck {
			note("%v; trying on", err)
		}
		s.stuck = true
		return
	}
	s.stuck = false
	s.frozen += now.Sub(s.frozenSince)
	s.frozenSince = time.Time{}
	note("thawed: the lease was renewed")
}

// frozenFor returns for how long the attempt has been frozen in all.
func (s *supervisor) frozenFor(now time.Time) time.Duration {
	if s.frozenSince.IsZero() {
		return s.frozen
	}
	return s.frozen + max(0, now.Sub(s.frozenSince))
}

// ran returns how long the attempt has run. Frozen time does not count, nor does
// time in which the host was suspended: the job could not use it.
func (s *supervisor) ran(now time.Time) time.Duration { return now.Sub(s.began) - s.frozenFor(now) }
