package disk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/sim/world"

	"golang.org/x/sys/unix"
)

// answer is a shim's word to its starter.
type answer struct {
	refused bool
	reason  string
}

// Start implements agent.Runner, as runner.ProcessStarter does.
func (r *Runner) Start(ctx context.Context, a agent.Attempt) error {
	if err := r.start(ctx, a.(*Attempt)); err != nil {
		return fmt.Errorf("start attempt %s: %w", a.Key(), err)
	}
	return nil
}

func (r *Runner) start(ctx context.Context, a *Attempt) error {
	if err := r.look(func() error { return r.d.makeWorkdir(a.e.in.Workdir) }); err != nil {
		return err
	}
	forked := false
	err := r.d.at(r.p, "disk start", a.e.name, func() { forked = true })
	if !forked {
		return err
	}
	s := r.d.launch(a.e) // also where the daemon has died over it
	if err != nil {
		return err
	}
	select {
	case word := <-s.answer:
		return a.heard(word)
	case <-s.proc.Dead():
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.p.Dead():
		return world.ErrDead
	}
	select {
	case word := <-s.answer: // its last word
		return a.heard(word)
	default:
	}
	if !a.hear("silence") {
		return world.ErrDead
	}
	return errors.New("the shim ended without an answer")
}

// heard turns an answer into Start's error, once the daemon can hear it.
func (a *Attempt) heard(word answer) error {
	if !a.hear("answer") {
		return world.ErrDead
	}
	if err := a.r.p.Wait(); err != nil {
		return err
	}
	if word.refused {
		return fmt.Errorf("%w: %s", runner.ErrRefused, word.reason)
	}
	return nil
}

// makeWorkdir makes a job's working directory where it is missing.
func (d *Disk) makeWorkdir(path string) error {
	if path == "" || d.workdirs[path] {
		return nil
	}
	if d.full {
		return fmt.Errorf("mkdir %s: %w", path, unix.ENOSPC)
	}
	d.workdirs[path] = true
	return nil
}

// How long a shim takes from its fork to its first look at the disk.
const (
	bootMin = time.Millisecond
	bootMax = 8 * time.Millisecond
)

// run is gpuqd-shim run: from the lock to the exit record.
func (s *shim) run() {
	defer s.proc.Kill()
	d, e := s.d, s.e
	if !nap(s.proc, d.world.Between(bootMin, bootMax, d.host.Name(), "shim", e.name)) {
		return
	}
	locked := false
	if d.at(s.proc, "shim lock", e.name, func() { locked = e.try(s.proc) }) != nil {
		return
	}
	if !locked && d.lockBeforeStart(s.proc, e) != nil {
		return
	}
	s.boot, s.offset = d.host.BootID(), d.host.Boottime()-d.world.Now()
	var reason string
	started := false
	d.world.Do(func() {
		d.inBoot(s.boot)
		reason, started = s.whyNot(), e.started != nil
	})
	switch {
	case started: // by another shim: it is left as it is, without a word
	case reason != "":
		s.refuse(reason)
	default:
		s.start()
	}
}

// whyNot returns why the attempt must not be started, "" where it may be.
func (s *shim) whyNot() string {
	e := s.e
	switch {
	case e.revoked != nil:
		return "revoked: " + e.revoked.Reason
	case e.exit != nil:
		return "it has ended; an attempt runs once"
	case e.stop != nil:
		return "a stop was requested before the start: " + string(e.stop.Reason) + ": " + e.stop.Detail
	}
	if state := s.judge(s.newestWord(), s.d.world.Now()); state != leaseLive {
		return "its session's lease is not live: " + state.String()
	}
	return ""
}

// refuse makes it final that the attempt does not run here, and says so.
func (s *shim) refuse(reason string) {
	v := &runner.Revoked{Reason: reason, Time: s.d.stamp()}
	revoked := false
	s.d.world.Do(func() { revoked = s.e.revoked != nil })
	if !revoked && s.d.write(s.proc, "shim revoked", s.e.name, func() { s.e.revoked = v }) != nil {
		return
	}
	s.answer <- answer{refused: true, reason: reason}
}

// start forks the command, records that, releases it, and supervises it.
func (s *shim) start() {
	d, e := s.d, s.e
	t := d.fork(s)
	start := &runner.Started{BootID: s.boot, Time: d.stamp()}
	d.world.Do(func() {
		s.tree = t
		s.pid, t.pid = d.pid(), d.pid()
		start.PID, start.ShimPID, start.StartTicks, start.ShimTicks = t.pid, s.pid, uint64(t.pid), uint64(s.pid)
	})
	if d.write(s.proc, "shim started", e.name, func() { e.started, e.shim, e.tree = start, s, t }) != nil {
		t.proc.Kill() // where died came before it was known
		return
	}
	s.beganWall = d.stamp()
	state := leaseLive
	err := d.at(s.proc, "shim exec", e.name, func() {
		// The sync may have taken any time.
		if state = s.judge(s.newestWord(), d.world.Now()); state == leaseLive {
			s.release()
		}
	})
	if err != nil {
		return
	}
	if state != leaseLive {
		t.proc.Kill()
		s.record(runner.Exit{
			Code: -1, Class: job.ClassHostLost, StopReason: runner.StopLeaseLost, Started: s.beganWall, Ended: d.stamp(),
			Reason: "it was not run: its session's lease is not live: " + state.String(),
		})
		return
	}
	s.answer <- answer{}
	s.answered = true
	if s.supervise() {
		s.record(s.outcome())
	}
}

// record writes the exit record, and answers where that is the first word.
func (s *shim) record(exit runner.Exit) {
	if s.d.write(s.proc, "shim exit", s.e.name, func() { s.e.exit = &exit }) == nil && !s.answered {
		s.answer <- answer{}
	}
}
