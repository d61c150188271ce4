package disk_test

import (
	"context"
	"testing"
	"time"

	"gpuqd/daemon/job"
	"gpuqd/daemon/runner"
	"gpuqd/test/history"
	"gpuqd/test/sim/disk"
	"gpuqd/test/sim/world"
)

func TestStopIsSeenAtItsSignal(t *testing.T) {
	for seed := range uint64(20) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			a := s.start(s.Intent(plain))
			must(t, a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
			asked := time.Now()
			time.Sleep(time.Second)
			wantWithin(t, "the end", r.at(history.Finished, 1), asked.Add(-slack-3*time.Millisecond), slack+12*time.Millisecond)
		})
	}
}

// TestStopIsSeenWithoutItsSignal: the daemon dies between its write and SIGUSR1.
func TestStopIsSeenWithoutItsSignal(t *testing.T) {
	for seed := range uint64(50) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			a := s.start(s.Intent(plain))
			time.Sleep(r.host.World().Between(0, time.Second, "stop"))
			r.killAt("disk stop", true, r.p)
			if err := a.RequestStop(runner.Stop{Reason: runner.StopKilled}); err == nil {
				t.Error("the dead daemon was told of its write")
			}
			asked := time.Now()
			time.Sleep(time.Second)
			wantWithin(t, "the end", r.at(history.Finished, 1), asked, disk.Tick+slack+6*time.Millisecond)
		})
	}
}

// TestStopDuringStartIsSeenAtOnce: it came too late for the shim to refuse.
func TestStopDuringStartIsSeenAtOnce(t *testing.T) {
	seen := 0
	for seed := range uint64(50) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			a := s.begin(s.Intent(plain))
			asked := make(chan time.Time, 1)
			r.host.World().OnStep(func(at world.Step) {
				if at.Name == "shim started" && !at.After {
					go func() {
						if err := a.RequestStop(runner.Stop{Reason: runner.StopKilled}); err != nil {
							t.Error(err)
						}
						asked <- time.Now()
					}()
				}
			})
			must(t, s.Start(context.Background(), a))
			time.Sleep(time.Second)
			if began := r.at(history.Began, 1); (<-asked).Before(began) {
				seen++
				wantWithin(t, "the end", r.at(history.Finished, 1), began, slack+6*time.Millisecond)
			}
		})
	}
	if seen == 0 {
		t.Error("no stop came in the middle of a start")
	}
}

// TestExitBeforeTheStopCounts: the command ends while the reason of its stop is on
// its way to the disk.
func TestExitBeforeTheStopCounts(t *testing.T) {
	seen := 0
	for seed := range uint64(50) {
		simulated(t, seed, func(t *testing.T, s *scene, r *simRig) {
			a := s.start(s.Intent(disk.Payload{Run: 5 * time.Second, Code: 3}))
			time.Sleep(4 * time.Second)
			r.disk.Slow(time.Second)
			must(t, a.RequestStop(runner.Stop{Reason: runner.StopKilled}))
			e, err := a.Wait(context.Background())
			must(t, err)
			switch {
			case e.Code == 3 && e.Class == job.ClassUser && e.StopReason == "":
				seen++
			case e.Code == 143 && e.Class == job.ClassKilled && e.StopReason == runner.StopKilled:
			default:
				t.Errorf("it ended as %+v", e)
			}
			if complete := r.all(history.Finished)[0].Complete; complete != (e.Code == 3) {
				t.Errorf("complete is %t, its exit %+v", complete, e)
			}
		})
	}
	if seen == 0 {
		t.Error("no exit came before its stop")
	}
}
