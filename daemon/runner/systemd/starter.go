// Package systemd starts attempts as units of the system. It is apart from
// package runner, whose other user, the shim, has no need of D-Bus.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/runner"
	"gpuqd/daemon/runner/proctree"
)

// Starter runs each attempt as a transient service of the system's
// systemd, gpuqd-job-<job ID>.service: its limits hold, it opens the devices it
// was granted and no others, and whatever becomes of the daemon, of the shim or of
// both, systemd ends the rest of a unit whose shim is gone. There is one unit per
// job, so that its name excludes a second attempt on the host.
//
// What systemd says of a unit is a hint. An attempt was started where its record
// says so, and has ended where its record says so or no unit of its invocation is
// loaded: a unit that has ended is forgotten, and reads like one that never was.
type Starter struct {
	shim   string // path of gpuqd-shim
	bus    *bus
	slices sync.Map // names of slices that have a description
}

var _ runner.Starter = (*Starter)(nil)

// New returns a starter that runs the shim at path. It needs root
// and a systemd that can be asked for units.
func New(ctx context.Context, path string) (*Starter, error) {
	if err := unix.Access(path, unix.X_OK); err != nil {
		return nil, fmt.Errorf("use shim %s: %w; install gpuqd-shim, or set runner.shim to its path", path, err)
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return nil, fmt.Errorf("the systemd starter cannot be used: systemd does not run this machine (%w); set runner.starter to process", err)
	}
	if _, err := proctree.ReadStat(1); err != nil { // else no attempt's processes would be seen, and all devices free
		return nil, fmt.Errorf("the systemd starter cannot be used: gpuqd does not see what others run (%w): /proc is mounted with hidepid= and gid=; name that group in SupplementaryGroups= of gpuqd.service, or leave gid= out", err)
	}
	s := &Starter{shim: path, bus: newBus()}
	if _, err := s.bus.unit(ctx, UnitName("00000000-0000-4000-8000-000000000000")); err != nil {
		return nil, errors.Join(fmt.Errorf("the systemd starter cannot be used: %w; gpuqd must run as root, with systemd's D-Bus in reach", err), s.Close())
	}
	return s, nil
}

// Name returns "systemd".
func (s *Starter) Name() string { return "systemd" }

// Close implements Starter. Units run on.
func (s *Starter) Close() error { return s.bus.close() }

// Start implements Starter.
func (s *Starter) Start(ctx context.Context, a *runner.Attempt) error {
	if err := s.start(ctx, a); err != nil {
		return fmt.Errorf("start attempt %s: %w", a.Key(), err)
	}
	return nil
}

func (s *Starter) start(ctx context.Context, a *runner.Attempt) error {
	if a.Intent().Account == nil {
		return errors.New("its intent names no account to run as, and a unit of the system would run it as root")
	}
	answer, err := listenForAnswer(a.Dir())
	if err != nil {
		return err
	}
	defer answer.close()
	s.describeSlice(ctx, a.Intent().Account)
	unit := UnitName(a.Key().JobID)
	boot, err := proctree.BootID()
	if err != nil {
		return err
	}
	run := []string{"gpuqd-shim", "run", "--answer=" + answer.path, "--unit=" + unit, "--boot=" + boot, a.Dir()}
	if err := s.launch(ctx, unit, properties(s.shim, run, a)); err != nil {
		return err
	}
	return s.await(ctx, unit, a, answer)
}

const (
	// killWait bounds the wait for a unit that was killed to be gone.
	killWait = 10 * time.Second
	// activeWait is how long a unit may seem active whose shim is gone.
	activeWait = 500 * time.Millisecond
	// leftoverWait bounds the wait for an ended unit of the same name to be gone:
	// an attempt that follows another at once can meet it.
	leftoverWait = 10 * time.Second
	// unitTick is how often a unit is looked at that is about to be gone, at first;
	// it doubles up to unitTickMax.
	unitTick    = 20 * time.Millisecond
	unitTickMax = time.Second
	// answerTick is how long an answer is waited for before the unit is looked at,
	// at first; it doubles up to answerTickMax. Most answers come sooner; on a host
	// with many starts under way the looks must not be what holds them up.
	answerTick    = 500 * time.Millisecond
	answerTickMax = 4 * time.Second
	// lookWait bounds how long looks may fail, while the shim may well be alive and
	// about to answer, before the outcome is given up as unknown.
	lookWait = 2 * time.Minute
)

// launch starts the unit, once what is left of an earlier one of its name is gone.
func (s *Starter) launch(ctx context.Context, unit string, props []property) error {
	tick := unitTick
	for end := time.Now().Add(leftoverWait); ; tick = min(2*tick, unitTickMax) {
		err := s.bus.startTransient(ctx, unit, props)
		if errors.Is(err, errSlow) {
			return nil // it may come to start: the answer, or a look, tells
		}
		if !errors.Is(err, errUnitExists) {
			return err
		}
		left, err := s.bus.unit(ctx, unit)
		if err == nil {
			err = s.clear(ctx, unit, left)
		}
		if err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("an earlier unit %s is still there, %s: end it with systemctl kill --signal=KILL %[1]s", unit, left.ActiveState)
		}
		if err := sleep(ctx, tick); err != nil {
			return err
		}
	}
}

// clear has systemd forget a unit that has ended. One that is ending is left to
// itself; one that is alive is an error.
func (s *Starter) clear(ctx context.Context, unit string, left unitState) error {
	switch {
	case left.gone() && left.Loaded():
		return s.bus.resetFailed(ctx, unit)
	case left.gone(), left.ActiveState == "deactivating":
		return nil
	}
	pid, err := s.bus.mainPID(ctx, unit)
	if err != nil {
		return err
	}
	if stat, err := proctree.ReadStat(pid); pid > 0 && err == nil && stat.Alive() {
		return fmt.Errorf("its unit %s is alive already, as process %d: another attempt of the job runs here; see systemctl status %[1]s", unit, pid)
	}
	return nil // starting, or systemd has not seen its end yet
}

// sleep waits for d, or returns ctx's cause.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// await waits for the shim's word. A unit that ends without one has no more to
// say; its record may.
func (s *Starter) await(ctx context.Context, unit string, a *runner.Attempt, answer *answerPipe) error {
	tick, seen := answerTick, time.Now()
	for ended := false; ; tick = min(2*tick, answerTickMax) {
		text, err := answer.wait(ctx, tick)
		if err != nil {
			return err
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
		switch word {
		case runner.AnswerStarted:
			return nil
		case runner.AnswerRefused:
			return fmt.Errorf("%w: %s", runner.ErrRefused, rest)
		}
		if ended {
			return s.unanswered(a)
		}
		u, err := s.bus.unit(ctx, unit)
		switch {
		case err == nil:
			seen = time.Now()
		case ctx.Err() != nil || time.Since(seen) > lookWait:
			return err
		}
		if ended = err == nil && u.gone(); ended {
			tick = unitTick // once more: its word may have come since
		}
	}
}

// unanswered says what may be behind a unit that ended without a word.
func (s *Starter) unanswered(a *runner.Attempt) error {
	if err := unix.Access(s.shim, unix.X_OK); err != nil {
		return fmt.Errorf("its unit ended at once: the shim %s cannot be executed: %w; install gpuqd-shim", s.shim, err)
	}
	return fmt.Errorf("its unit ended without an answer; see %s, and journalctl -u %s", a.ShimLogPath(), UnitName(a.Key().JobID))
}

// Kill implements Starter: it has systemd end what is left of the attempt's unit,
// and then looks for itself.
func (s *Starter) Kill(ctx context.Context, a *runner.Attempt) error {
	started, ok, err := a.Started()
	if err != nil {
		return err
	}
	ended := true
	if ok && started.Unit != "" {
		if ended, err = s.endUnit(ctx, started); err != nil {
			return fmt.Errorf("end unit of attempt %s: %w", a.Key(), err)
		}
	}
	if err := a.KillLeftovers(); err != nil {
		return err
	}
	if !ended {
		// Without a cgroup of the attempt's own systemd may know of more than can be
		// seen from here.
		return fmt.Errorf("end unit of attempt %s: %s has not ended after %s: a process of it may be stuck in the kernel; see systemctl status %[2]s", a.Key(), started.Unit, killWait)
	}
	return nil
}

// endUnit reports whether no unit of the attempt's invocation is loaded any more. It
// gives systemd a while to see to that.
func (s *Starter) endUnit(ctx context.Context, started *runner.Started) (ended bool, err error) {
	boot, err := proctree.BootID()
	if err != nil || boot != started.BootID {
		return err == nil, err
	}
	tick := unitTick
	for began, asked := time.Now(), false; time.Since(began) < killWait; tick = min(2*tick, unitTickMax) {
		u, err := s.bus.unit(ctx, started.Unit)
		if err != nil {
			return false, err
		}
		if u.gone() || u.InvocationID != started.InvocationID {
			return true, nil
		}
		// Its shim is gone, so it is about to end by itself, and then has its witness
		// to write still.
		waited := time.Since(began)
		if !asked && (u.ActiveState == "active" && waited > activeWait || waited > killWait/2) {
			asked = true
			if err := s.bus.kill(ctx, started.Unit); err != nil {
				return false, err
			}
		}
		if err := sleep(ctx, tick); err != nil {
			return false, err
		}
	}
	return false, nil
}
