package disk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"gpuqd/daemon/agent"
	"gpuqd/daemon/runner"
	"gpuqd/test/history"
	"gpuqd/test/sim/disk"
	"gpuqd/test/sim/world"
)

// killAt kills a process at the next step of a name.
func (r *simRig) killAt(name string, after bool, p *world.Process) {
	r.host.World().OnStep(func(s world.Step) {
		if s.Name == name && s.After == after {
			p.Kill()
		}
	})
}

// faults are what strikes at a step, and the steps of an attempt's life.
var (
	faults = map[string]func(r *simRig, s world.Step){
		"the process dies": func(_ *simRig, s world.Step) { s.Process.Kill() },
		"the daemon dies":  func(r *simRig, _ world.Step) { r.p.Kill() },
		"the host crashes": func(r *simRig, _ world.Step) { r.host.Crash() },
		"shims freeze": func(r *simRig, _ world.Step) {
			r.host.Freeze("shim")
			time.AfterFunc(time.Minute, func() { r.host.Thaw("shim") })
		},
		"the host freezes": func(r *simRig, _ world.Step) {
			r.host.Freeze("")
			time.AfterFunc(time.Minute, func() { r.host.Thaw("") })
		},
	}
	steps = []string{
		"disk begin", "disk start", "shim lock", "shim started", "shim exec", "shim stopping", "shim exit",
		"disk stop", "disk verdict", "disk revoke", "disk lost", "shim revoked",
	}
)

// life runs one attempt as a daemon does; it ends at the first error.
func (r *simRig) life(in runner.Intent) error {
	a, err := r.Begin(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Start(ctx, a); err != nil {
		return err
	}
	return r.settle(ctx, a, runner.StopKilled)
}

// settle brings an attempt to its verdict, stopping it if that helps.
func (r *simRig) settle(ctx context.Context, a agent.Attempt, reason runner.StopReason) error {
	err := a.Revoke()
	if err == nil {
		return nil
	}
	if !errors.Is(err, runner.ErrStarted) {
		return err
	}
	if err := a.RequestStop(runner.Stop{Reason: reason}); err != nil {
		return err
	}
	_, err = a.Wait(ctx)
	if errors.Is(err, runner.ErrLost) {
		if err = a.RecordLost("its shim is gone"); err == nil {
			_, err = a.Wait(ctx)
		}
	}
	if err != nil {
		return err
	}
	return a.MarkCommitted("commit")
}

// TestFaultAtEveryStep breaks an attempt's life at each of its steps, and wants
// the next daemon to bring it to an end at which nothing is left, with at most
// one execution, and none of what was revoked.
func TestFaultAtEveryStep(t *testing.T) {
	reached := map[string]bool{}
	for name, strike := range faults {
		for _, step := range steps {
			for _, after := range []bool{false, true} {
				for seed := range uint64(4) {
					t.Run(fmt.Sprintf("%s/%s/%t/%d", name, step, after, seed), func(t *testing.T) {
						simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
							in := s.guarded(disk.Payload{Run: long, IgnoresTERM: true, Forks: seed%2 == 1})
							struck := false
							r.host.World().OnStep(func(at world.Step) {
								if !struck && at.Name == step && at.After == after {
									struck, reached[step] = true, true
									strike(r, at)
								}
							})
							if step == "disk revoke" || step == "disk lost" || step == "shim revoked" {
								r.crooked(step, in)
							} else {
								_ = r.life(in)
							}
							r.recover(in)
							r.wantOneLife()
						})
					})
				}
			}
		}
	}
	for _, step := range steps {
		if !reached[step] {
			t.Errorf("step %q was not reached", step)
		}
	}
}

// crooked is a life in which the daemon meets an attempt that it must revoke, or
// record as lost.
func (r *simRig) crooked(step string, in runner.Intent) {
	a, err := r.Begin(in)
	must(r.t, err)
	switch step {
	case "shim revoked":
		_ = a.RequestStop(runner.Stop{Reason: runner.StopKilled})
		_ = r.Start(context.Background(), a)
		return
	case "disk lost":
		_ = r.Start(context.Background(), a)
		r.disk.KillShim()
	}
	_ = r.settle(context.Background(), a, runner.StopKilled)
}

// recover lets the host, and a new daemon, make up for what happened.
func (r *simRig) recover(in runner.Intent) {
	time.Sleep(2 * time.Minute)
	up := false
	r.host.World().Do(func() { up = r.host.Up() })
	if !up {
		r.host.Boot()
	}
	r.Reopen()
	a, err := r.Get(in.Key())
	if errors.Is(err, runner.ErrNotFound) {
		return
	}
	must(r.t, err)
	if _, settled, err := a.Verdict(); err != nil || settled {
		must(r.t, err)
		return
	}
	must(r.t, r.settle(context.Background(), a, runner.StopSessionExpired))
	started, wasStarted, err := a.Started()
	must(r.t, err)
	_, wasRevoked, err := a.Revoked()
	must(r.t, err)
	if wasStarted == wasRevoked {
		r.t.Errorf("started %t, revoked %t", wasStarted, wasRevoked)
	}
	if ran := r.Ran(a); ran > 1 || ran == 1 && !wasStarted {
		r.t.Errorf("it ran %d times, its start is %+v", ran, started)
	}
}

// wantOneLife wants at most one execution, and nothing left of it.
func (r *simRig) wantOneLife() {
	began, finished := len(r.all(history.Began)), len(r.all(history.Finished))
	if began > 1 || finished != began {
		r.t.Errorf("it began %d times, and finished %d times", began, finished)
	}
	r.host.World().Do(func() {
		if left := r.disk.Running(); len(left) > 0 {
			r.t.Errorf("left: %v", left)
		}
	})
}

// TestDeadDaemonChangesNothing: not even where it dies in the middle of a write.
func TestDeadDaemonChangesNothing(t *testing.T) {
	simulated(t, 1, func(t *testing.T, s *scene, r *simRig) {
		a, in := s.begin(s.Intent(plain)), s.Intent(plain)
		for what, call := range map[string]func() error{
			"Begin":         func() error { return second(s.Begin(in)) },
			"RequestStop":   func() error { return a.RequestStop(runner.Stop{Reason: runner.StopKilled}) },
			"MarkCommitted": func() error { return a.MarkCommitted("commit") },
			"Revoke":        func() error { return a.Revoke() },
			"WriteDeadline": func() error { return s.WriteDeadline(runner.Deadline{Session: "new"}) },
		} {
			time.AfterFunc(time.Nanosecond, r.p.Kill)
			if err := call(); !errors.Is(err, world.ErrDead) {
				t.Errorf("%s, killed in the middle: %v", what, err)
			}
			if err := call(); !errors.Is(err, world.ErrDead) {
				t.Errorf("%s of the dead: %v", what, err)
			}
			r.Reopen()
			a = first(s.Get(a.Key()))
		}
		if err := second(s.Get(in.Key())); !errors.Is(err, runner.ErrNotFound) {
			t.Errorf("Get: %v", err)
		}
		if err := second(s.ReadDeadline("new")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadDeadline: %v", err)
		}
		s.state(a)
		s.say("start: %s", s.startIt(a)) // neither stopped nor revoked, and its lock is free
		s.wantSeen("started=false revoked=false ended=false settled=false ran=0 ok; start: ok")
	})
}

func TestDiskOutlivesTheHost(t *testing.T) {
	simulated(t, 1, func(t *testing.T, s *scene, r *simRig) {
		in := s.guarded(disk.Payload{Run: long, Forks: true})
		a := s.start(in)
		session, err := s.ReadDeadline("session")
		must(t, err)
		r.host.Crash()
		if finished := r.all(history.Finished); len(finished) != 1 || finished[0].Code != 137 || finished[0].Complete {
			t.Errorf("the payload's end is %v", finished)
		}
		if _, _, err := a.Started(); !errors.Is(err, world.ErrDead) {
			t.Errorf("the dead daemon read: %v", err)
		}
		r.host.Boot()
		r.Reopen()
		if d, err := s.ReadDeadline("session"); err != nil || d != session || d.Live("session", r.host.BootID(), 0) {
			t.Errorf("the deadline is %+v, %v", d, err)
		}
		a, err = s.Get(in.Key())
		must(t, err)
		s.wait(a)
		s.say("lost: %s", word(a.RecordLost("reboot")))
		next := s.begin(nextAttempt(in))
		s.say("next: %s", s.startIt(next))
		s.wantSeen("start: ok; wait: lost; lost: ok; next: refused")
	})
}

// nextAttempt is the next attempt of an intent's job.
func nextAttempt(in runner.Intent) runner.Intent {
	in.Attempt++
	return in
}

func TestFullDiskLosesNoResult(t *testing.T) {
	simulated(t, 1, func(t *testing.T, s *scene, r *simRig) {
		a := s.start(s.guarded(disk.Payload{Run: long}))
		begun := s.begin(s.Intent(plain))
		other := s.Intent(plain)
		r.disk.Full(true)
		if _, err := s.Begin(other); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Begin: %v", err)
		}
		if err := s.WriteDeadline(runner.Deadline{Session: "new"}); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("the first deadline of a session: %v", err)
		}
		s.lease(time.Hour, runner.SessionLive)
		s.say("start: %s", s.startIt(begun)) // its working directory is there
		s.stop(a, runner.StopKilled, 0)
		s.wait(a)
		must(t, a.MarkCommitted("commit"))
		r.disk.Full(false)
		must(t, second(s.Begin(other)))
		s.wantSeen("start: ok; start: ok; stop: ok; exit: code=143 signal=SIGTERM class=killed stop=killed detail=by bob lost=false frozen=false log=52")
	})
	simulated(t, 1, func(t *testing.T, s *scene, r *simRig) {
		a := s.begin(s.Intent(plain))
		r.disk.Full(true)
		if err := s.Start(context.Background(), a); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Start without a working directory: %v", err)
		}
		must(t, a.Revoke())
	})
}

func TestKilledTreeIsRecordedBySignal(t *testing.T) {
	simulated(t, 1, func(t *testing.T, s *scene, r *simRig) {
		if r.disk.KillTree() || r.disk.KillShim() {
			t.Error("something was killed where nothing ran")
		}
		a := s.start(s.Intent(plain))
		if !r.disk.KillTree() {
			t.Error("nothing was killed")
		}
		s.wait(a)
		s.wantSeen("start: ok; exit: code=137 signal=SIGKILL class=user stop= detail= lost=false frozen=false log=52")
	})
}

func TestWhatAShimLeavesRunsToItsEnd(t *testing.T) {
	simulated(t, 1, func(t *testing.T, s *scene, r *simRig) {
		s.start(s.Intent(disk.Payload{Run: 10 * time.Second, Forks: true, Code: 3}))
		r.disk.KillShim()
		time.Sleep(time.Minute)
		if f := r.all(history.Finished); len(f) != 1 || !f[0].Complete || f[0].Code != 3 {
			t.Errorf("its end is %v", f)
		}
	})
}

func TestSlowDiskIsSlow(t *testing.T) {
	simulated(t, 1, func(t *testing.T, s *scene, r *simRig) {
		r.disk.Slow(2 * time.Second)
		since := time.Now()
		for range 20 {
			s.begin(s.Intent(plain))
		}
		if took := time.Since(since); took < 10*time.Second || took > 30*time.Second {
			t.Errorf("20 writes took %s", took)
		}
	})
}

// TestSameSeedSameEvents: also of many attempts that end in one crash.
func TestSameSeedSameEvents(t *testing.T) {
	play := func(seed uint64) (events []history.Event) {
		synctest.Test(t, func(t *testing.T) {
			r := newSimRig(t, seed)
			r.busyLife(&scene{rig: r, t: t}, 8)
			r.close()
			events = r.host.World().Events()
		})
		return events
	}
	for seed := range uint64(20) {
		first := play(seed)
		if len(first) < 16 {
			t.Fatalf("only %d events", len(first))
		}
		for range 3 {
			if again := play(seed); !reflect.DeepEqual(first, again) {
				t.Fatalf("seed %d gave\n%v\nand\n%v", seed, first, again)
			}
		}
	}
}

// busyLife runs n attempts at a time, some of which are left running.
func (r *simRig) busyLife(s *scene, n int) {
	in := make([]runner.Intent, n)
	for i := range in {
		in[i] = s.guarded(disk.Payload{Run: time.Duration(1+i) * 3 * time.Second})
	}
	done := make(chan struct{})
	for i := range in {
		go func() {
			defer func() { done <- struct{}{} }()
			time.Sleep(time.Duration(i+1) * 7 * time.Millisecond)
			a, err := r.Begin(in[i])
			must(r.t, err)
			must(r.t, r.Start(context.Background(), a))
			ctx, cancel := context.WithTimeout(context.Background(), 13*time.Second)
			defer cancel()
			if _, err := a.Wait(ctx); err == nil {
				must(r.t, a.MarkCommitted("commit"))
			}
		}()
	}
	for range 6 {
		time.Sleep(2 * time.Second)
		s.lease(15*time.Second, runner.SessionLive)
	}
	for range in {
		<-done
	}
}

// BenchmarkHistory is this part of one history: eight attempts on one host.
func BenchmarkHistory(b *testing.B) {
	b.ReportAllocs()
	play := func(t *testing.T) { // a bubble takes a *testing.T
		for seed := range uint64(b.N) {
			synctest.Test(t, func(t *testing.T) {
				r := newSimRig(t, seed)
				r.busyLife(&scene{rig: r, t: t}, 8)
				r.close()
			})
		}
	}
	all := func(string, string) (bool, error) { return true, nil }
	if !testing.RunTests(all, []testing.InternalTest{{Name: "BenchmarkHistory", F: play}}) {
		b.Fatal("a history failed")
	}
}
