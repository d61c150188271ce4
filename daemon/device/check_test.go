package device

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/job"
)

func TestCheckAfterAnAttempt(t *testing.T) {
	t.Run("WaitsForALookSinceTheRelease", func(t *testing.T) {
		b := newBench(t, Options{}, "a")
		b.grant("j", 1, "a")
		b.Release("j", 1)
		b.want("a", Checking)
		if len(b.asked) != 1 {
			t.Fatalf("asked to look %v", b.asked)
		}
		early := Report{Devices: []Facts{b.facts["a"]}, Look: b.asked[0] - 1}
		b.take(early)
		b.want("a", Checking)
		select {
		case <-b.Settled("j", 1):
			t.Error("an inventory from before counts")
		default:
		}
		early.Look = b.asked[0]
		b.take(early)
		b.want("a", Free)
		within(t, "an end of the window", b.Settled("j", 1))
		if got := b.Tally(); got.ChecksClean != 1 || got.ChecksDirty != 0 {
			t.Errorf("counted %+v", got)
		}
		b.Release("j", 1)
		if len(b.windows) != 0 {
			t.Error("a window stays for ever")
		}
	})
	t.Run("EndsWhatTheAttemptLeft", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, Options{}, "a")
			b.grant("j", 1, "a")
			b.processes.there[5] = ProcessOwner{PID: 5, Name: "python3", User: "ada", JobID: "j", Attempt: 1}
			b.set("a", func(f *Facts) { f.Processes, f.MemoryUsedBytes = []Process{{5, 1 << 30}}, 1<<30 })
			b.report()
			b.want("a", Busy)
			b.Release("j", 1)
			b.report()
			b.want("a", Checking)
			if !slices.Equal(b.processes.killed, []int{5}) {
				t.Fatalf("killed %v", b.processes.killed)
			}
			time.Sleep(cleanPause)
			synctest.Wait()
			if len(b.asked) != 2 {
				t.Errorf("asked to look %v, want again after the kill", b.asked)
			}
			b.set("a", func(f *Facts) { f.Processes, f.MemoryUsedBytes = nil, 4<<20 })
			b.report()
			b.want("a", Free)
			if got := b.Tally(); got.ChecksDirty != 1 || got.ChecksClean != 0 {
				t.Errorf("counted %+v", got)
			}
		})
	})
	t.Run("GivesUpOnWhatDoesNotEnd", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, Options{}, "a", "b")
			b.processes.immortal = true
			b.grant("j", 1, "a")
			b.processes.there[5] = ProcessOwner{PID: 5, Name: "python3", User: "ada", JobID: "j", Attempt: 1}
			b.set("a", func(f *Facts) { f.Processes = []Process{{5, 1 << 30}} })
			b.Release("j", 1)
			b.report()
			b.want("a", Checking)
			time.Sleep(cleanMost)
			b.report()
			b.want("a", Sick, "process 5 (python3 of user ada) with 1.0 GiB of attempt 1 of job j", "does not end")
			b.want("b", Free)
			b.set("a", func(f *Facts) { f.Processes = nil })
			b.report()
			b.want("a", Free)
		})
	})
	t.Run("LeavesForeignProcessesAloneAndNamesThem", func(t *testing.T) {
		b := newBench(t, Options{}, "a")
		b.grant("j", 1, "a")
		b.processes.there[7] = ProcessOwner{PID: 7, Name: "Xorg", User: "eve"}
		b.processes.there[8] = ProcessOwner{PID: 8, Name: "python3", User: "bob", JobID: "j2", Attempt: 1}
		b.set("a", func(f *Facts) { f.Processes = []Process{{7, 1 << 20}, {8, 0}} })
		b.report()
		b.want("a", Busy)
		b.Release("j", 1)
		b.report()
		b.want("a", Sick, "process 7 (Xorg of user eve) with 1 MiB", "device.allow_processes")
		if len(b.processes.killed) != 0 || b.Foreign() != 2 {
			t.Errorf("killed %v, %d foreign", b.processes.killed, b.Foreign())
		}
		b.set("a", func(f *Facts) { f.Processes = nil })
		b.report()
		b.want("a", Free)
	})
	t.Run("MindsMemoryThatNobodyUses", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, Options{}, "a")
			b.grant("j", 1, "a")
			b.Release("j", 1)
			b.set("a", func(f *Facts) { f.MemoryUsedBytes += idleSlackBytes })
			b.report()
			b.want("a", Free)
			b.grant("j", 2, "a")
			b.Release("j", 2)
			b.set("a", func(f *Facts) { f.MemoryUsedBytes++ })
			b.report()
			b.want("a", Checking)
			time.Sleep(cleanMost)
			b.report()
			b.want("a", Sick, "MiB of its memory are in use")
		})
	})
	t.Run("SparesWhatMayBeOfAHolder", func(t *testing.T) {
		b := newBench(t, Options{}, "a")
		b.processes.there[5] = ProcessOwner{PID: 5, JobID: "j"} // only the job is known
		b.set("a", func(f *Facts) { f.Processes = []Process{{5, 1 << 30}} })
		if err := b.Adopt("j", 2, []string{"a"}, 0); err != nil {
			t.Fatal(err)
		}
		b.Recall("j", 1, []string{"a"})
		b.report()
		b.want("a", Busy)
		if len(b.processes.killed) != 0 {
			t.Errorf("killed %v", b.processes.killed)
		}
		b.Release("j", 2)
		b.report()
		if !slices.Equal(b.processes.killed, []int{5}) {
			t.Errorf("killed %v, want what attempt 2 left", b.processes.killed)
		}
	})
	t.Run("OfASharedDeviceMindsOnlyThoseWhoLeft", func(t *testing.T) {
		b := newBench(t, Options{}, "a")
		for _, id := range []job.ID{"j1", "j2"} {
			if err := b.Acquire(id, 1, []string{"a"}, 1<<30); err != nil {
				t.Fatal(err)
			}
		}
		b.processes.there[1] = ProcessOwner{PID: 1, JobID: "j1", Attempt: 1}
		b.processes.there[2] = ProcessOwner{PID: 2, JobID: "j2", Attempt: 1}
		b.set("a", func(f *Facts) { f.Processes, f.MemoryUsedBytes = []Process{{1, 1 << 20}, {2, 1 << 20}}, 40<<30 })
		b.Release("j1", 1)
		if err := b.Acquire("j3", 1, []string{"a"}, 1<<30); !errors.Is(err, ErrNotFree) {
			t.Errorf("a part was granted before the look: %v", err)
		}
		if len(b.Candidates()) != 0 {
			t.Errorf("candidates %+v", b.Candidates())
		}
		b.report()
		if !slices.Equal(b.processes.killed, []int{1}) {
			t.Fatalf("killed %v", b.processes.killed)
		}
		b.set("a", func(f *Facts) { f.Processes = f.Processes[1:] })
		b.report()
		b.want("a", Busy)
		if err := b.Acquire("j3", 1, []string{"a"}, 1<<30); err != nil {
			t.Error(err)
		}
	})
}

// A process on a free device that nobody has started makes it sick, and it comes
// back by itself; when an attempt is adopted that it belongs to, it was no stranger.
func TestForeignProcessOnAFreeDevice(t *testing.T) {
	b := newBench(t, Options{}, "a")
	b.processes.there[7] = ProcessOwner{PID: 7, Name: "python3", User: "eve"}
	b.set("a", func(f *Facts) { f.Processes = []Process{{7, 1 << 20}} })
	b.report()
	b.want("a", Sick, "process 7 (python3 of user eve)", "the device comes back by itself")
	b.set("a", func(f *Facts) { f.Processes = []Process{{99, 1 << 20}} })
	b.report() // it has ended, and the driver shows it still
	b.want("a", Checking)
	b.set("a", func(f *Facts) { f.Processes = nil })
	b.report()
	b.want("a", Free)
}

// What is on a device when it is first seen is as suspect as after an attempt, and an
// attempt that is found ended has left the device only now, as far as anybody knows.
func TestDeviceAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{})
		b.facts["a"] = Facts{Device: Device{UUID: "a", MemoryBytes: 80 << 30}, MemoryUsedBytes: 40 << 30}
		b.facts["b"] = Facts{Device: Device{UUID: "b", Index: 1, MemoryBytes: 80 << 30}, Processes: []Process{{5, 1 << 30}}}
		b.processes.there[5] = ProcessOwner{PID: 5, JobID: "j", Attempt: 1}
		b.report()
		b.want("a", Checking)
		b.Recall("j", 1, []string{"b"})
		b.Release("j", 1)
		select {
		case <-b.Settled("j", 1):
			t.Error("nobody has looked since, and it is settled")
		default:
		}
		b.report()
		within(t, "an end of the window", b.Settled("j", 1))
		if !slices.Equal(b.processes.killed, []int{5}) {
			t.Errorf("killed %v, want what the attempt left", b.processes.killed)
		}
		b.set("b", func(f *Facts) { f.Processes = nil })
		time.Sleep(cleanMost)
		b.report()
		b.want("a", Sick, "40.0 GiB of its memory are in use")
		b.want("b", Free)
		b.set("a", func(f *Facts) { f.MemoryUsedBytes = 4 << 20 })
		b.report()
		b.want("a", Free)
	})
}

// A restart finds the devices before the attempts on them: that is no reason for alarm,
// unless nobody adopts them.
func TestProcessOfAnAttemptThatNobodyHasFoundYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{}, "a", "b")
		b.processes.there[8] = ProcessOwner{PID: 8, JobID: "j", Attempt: 3}
		b.processes.there[9] = ProcessOwner{PID: 9, JobID: "k", Attempt: 1}
		b.set("a", func(f *Facts) { f.Processes = []Process{{8, 1 << 20}} })
		b.set("b", func(f *Facts) { f.Processes = []Process{{9, 1 << 20}} })
		b.report()
		b.want("a", Checking)
		b.want("b", Checking)
		if err := b.Adopt("j", 3, []string{"a"}, 0); err != nil {
			t.Fatal(err)
		}
		b.want("a", Busy)
		time.Sleep(cleanMost)
		b.report()
		b.want("a", Busy)
		b.want("b", Sick, "process 9", "of attempt 1 of job k", "kill the job")
		if got := b.Tally(); got.ChecksDirty != 1 || len(b.processes.killed) != 0 {
			t.Errorf("counted %+v, killed %v", got, b.processes.killed)
		}
	})
}
