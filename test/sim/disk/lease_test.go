package disk_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/history"
	"gpuqd/test/sim/disk"
)

// slack is what a simulated instant may be late, beside ticks: a wake after a
// thaw, or the odd nanoseconds of a payload's time.
const slack = 2 * time.Millisecond

// simulated plays f on a simulated host, which crashes at the end.
func simulated(t *testing.T, seed uint64, f func(t *testing.T, s *scene, r *simRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newSimRig(t, seed)
		defer r.close()
		f(t, &scene{rig: r, t: t}, r)
	})
}

// at returns when the n-th event of a kind happened, counted from 1.
func (r *simRig) at(kind history.Kind, n int) (at time.Time) {
	r.t.Helper()
	w := r.host.World()
	w.Do(func() {
		for _, e := range w.Events() {
			if e.Kind == kind {
				if n--; n == 0 {
					at = e.At
				}
			}
		}
	})
	if at.IsZero() {
		r.t.Fatalf("no such event: %s", kind)
	}
	return at
}

// wantWithin wants an instant in [from, from+bound].
func wantWithin(t *testing.T, what string, at, from time.Time, bound time.Duration) {
	t.Helper()
	if d := at.Sub(from); d < 0 || d > bound {
		t.Errorf("%s came after %s, want within %s", what, d, bound)
	}
}

// TestLeaseIsKeptToOneTick renews a lease now and then, late at times, and wants
// the payload frozen within a tick of the deadline, never before, and thawed
// within two of the renewal, one to read it and one to act.
func TestLeaseIsKeptToOneTick(t *testing.T) {
	froze := 0
	for seed := range uint64(200) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			const ttl = 3 * time.Second
			w := r.host.World()
			a := s.start(s.guarded(plain))
			s.lease(ttl, runner.SessionLive)
			halts := 0
			for range 12 {
				deadline := time.Now().Add(ttl)
				time.Sleep(w.Between(100*time.Millisecond, 5*time.Second, "renewal"))
				renewed := time.Now()
				s.lease(ttl, runner.SessionLive)
				time.Sleep(2*disk.Tick + 1)
				frozen, late := s.Froze(a) > halts, renewed.Sub(deadline)
				if frozen && late < -disk.Tick || !frozen && late > disk.Tick {
					t.Errorf("renewed %s after the deadline: frozen is %t", late, frozen)
				}
				if frozen {
					halts++
					wantWithin(t, "the freeze", r.at(history.Halted, halts), deadline, disk.Tick)
					wantWithin(t, "the thaw", r.at(history.Went, halts), renewed, 2*disk.Tick)
				}
				s.lease(ttl, runner.SessionLive)
			}
			if n := s.Froze(a); n != halts {
				t.Errorf("frozen %d times, %d of them past the deadline", n, halts)
			}
			froze += halts
		})
	}
	if froze < 200 {
		t.Errorf("only %d freezes were seen", froze)
	}
}

// TestExpiryEndsWithinTwoTicks: one to read the word, one to act on it.
func TestExpiryEndsWithinTwoTicks(t *testing.T) {
	for seed := range uint64(50) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			s.start(s.guarded(plain))
			time.Sleep(r.host.World().Between(0, time.Second, "expiry"))
			expired := time.Now()
			s.lease(time.Hour, runner.SessionExpired)
			time.Sleep(time.Second)
			wantWithin(t, "the freeze", r.at(history.Halted, 1), expired, 2*disk.Tick)
			wantWithin(t, "the end", r.at(history.Finished, 1), r.at(history.Halted, 1), 2*3*time.Millisecond)
		})
	}
}

// TestDeadlineInTheMiddleOfAStart lets the deadline pass at some point of a start:
// the payload begins before it, or never.
func TestDeadlineInTheMiddleOfAStart(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(300) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			in := s.guarded(plain)
			in.LeaseLoss = runner.LeaseStop
			a := s.begin(in)
			r.disk.Slow(20 * time.Millisecond)
			left := r.host.World().Between(0, 40*time.Millisecond, "deadline")
			deadline := time.Now().Add(left)
			s.lease(left, runner.SessionLive)
			err := s.Start(context.Background(), a)
			began := r.all(history.Began)
			if len(began) > 0 && !began[0].At.Before(deadline) {
				t.Errorf("it began %s after the deadline", began[0].At.Sub(deadline))
			}
			if errors.Is(err, runner.ErrRefused) {
				outcomes["refused"]++
				return
			}
			must(t, err)
			e, err := a.Wait(context.Background())
			must(t, err)
			if e.StopReason != runner.StopLeaseLost || e.Class != job.ClassHostLost || (e.Code == -1) != (len(began) == 0) {
				t.Errorf("began %v, ended %+v", began, e)
			}
			outcomes[fmt.Sprintf("code %d", e.Code)]++
		})
	}
	if len(outcomes) != 3 {
		t.Errorf("the outcomes were %v; want refused, not run, and stopped", outcomes)
	}
}

// TestThawedShimReadsAtOnce: what it missed does not count against the payload.
func TestThawedShimReadsAtOnce(t *testing.T) {
	for seed := range uint64(50) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			a := s.start(s.guarded(plain))
			s.lease(time.Second, runner.SessionLive)
			r.host.Freeze("shim")
			time.Sleep(3 * time.Second)
			s.lease(time.Hour, runner.SessionLive)
			time.Sleep(r.host.World().Between(1, disk.Tick, "thaw"))
			r.host.Thaw("shim")
			time.Sleep(time.Second)
			if s.Froze(a) > 0 {
				t.Error("it was frozen under a live lease")
			}
		})
	}
}

// TestFreezesOfProcesses: what goes on while others stand still.
func TestFreezesOfProcesses(t *testing.T) {
	const run, pause = 10 * time.Second, 7 * time.Second
	play := func(t *testing.T, name string, check func(s *scene, r *simRig, began time.Time)) {
		for seed := range uint64(20) {
			simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
				in := s.guarded(disk.Payload{Run: run})
				a := s.start(in)
				s.lease(4*time.Second, runner.SessionLive)
				time.Sleep(r.host.World().Between(0, 2*time.Second, "freeze"))
				r.host.Freeze(name)
				time.Sleep(pause)
				r.host.Thaw(name)
				time.Sleep(time.Second)
				s.lease(time.Hour, runner.SessionLive)
				if _, err := a.Wait(context.Background()); err != nil {
					t.Error(err)
				}
				check(s, r, r.at(history.Began, 1))
			})
		}
	}
	t.Run("Daemon", func(t *testing.T) {
		play(t, "gpuqd", func(s *scene, r *simRig, began time.Time) {
			halted := r.at(history.Went, 1).Sub(r.at(history.Halted, 1))
			wantWithin(t, "the freeze", r.at(history.Halted, 1), began.Add(4*time.Second), disk.Tick+slack+6*time.Millisecond)
			wantWithin(t, "the end", r.at(history.Finished, 1), began.Add(run+halted), slack)
		})
	})
	t.Run("Host", func(t *testing.T) {
		play(t, "", func(s *scene, r *simRig, began time.Time) {
			halted := r.at(history.Went, 1).Sub(r.at(history.Halted, 1))
			wantWithin(t, "the freeze", r.at(history.Halted, 1), r.at(history.Resumed, 1), slack)
			wantWithin(t, "the end", r.at(history.Finished, 1), began.Add(run+pause+halted), slack)
		})
	})
	t.Run("Shim", func(t *testing.T) {
		play(t, "shim", func(s *scene, r *simRig, began time.Time) {
			var halted time.Duration // nobody guards it meanwhile
			if len(r.all(history.Halted)) > 0 {
				halted = r.at(history.Went, 1).Sub(r.at(history.Halted, 1))
			}
			wantWithin(t, "the end", r.at(history.Finished, 1), began.Add(run+halted), slack)
			if halted > time.Second+2*disk.Tick {
				t.Errorf("it was frozen for %s", halted)
			}
		})
	})
}

// all returns the events of a kind.
func (r *simRig) all(kind history.Kind) (list []history.Event) {
	w := r.host.World()
	w.Do(func() {
		for _, e := range w.Events() {
			if e.Kind == kind {
				list = append(list, e)
			}
		}
	})
	return list
}
