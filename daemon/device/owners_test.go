package device

import (
	"testing"
	"testing/synctest"
	"time"
)

// slow are processes of which one hangs whoever looks at it.
type slow struct {
	*people
	hangs map[int]chan struct{} // until closed
}

func (s *slow) Describe(pid int) (ProcessOwner, bool) {
	if until := s.hangs[pid]; until != nil {
		<-until
	}
	return s.people.Describe(pid)
}

// A process that hangs in the driver hangs who reads its files of /proc. The other
// devices go on, and no more than one goroutine waits for it.
func TestProcessThatHangsHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Silence: 30 * time.Second}, "a", "b")
		s := &slow{b.processes, map[int]chan struct{}{5: make(chan struct{})}}
		b.Manager.processes = s
		b.processes.there[5] = ProcessOwner{PID: 5, Name: "python3", User: "ada", JobID: "j", Attempt: 1}
		b.processes.there[6] = ProcessOwner{PID: 6, Name: "Xorg", User: "eve"}
		b.grant("j", 1, "a")
		b.set("a", func(f *Facts) { f.Processes = []Process{{5, 1 << 30}} })
		b.Release("j", 1)
		b.set("b", func(f *Facts) { f.Processes = []Process{{6, 1 << 20}} })
		b.report()
		b.want("a", Checking)
		b.want("b", Sick, "process 6 (Xorg of user eve)")
		within(t, "an end of the window", b.Settled("j", 1))
		b.set("b", func(f *Facts) { f.Processes = nil })
		before := time.Now()
		b.report()
		b.want("b", Free)
		if waited := time.Since(before); waited > 0 {
			t.Errorf("the second inventory waited %s", waited)
		}
		time.Sleep(cleanMost)
		b.report()
		b.want("a", Sick, "process 5 with 1.0 GiB hangs in the kernel")
		close(s.hangs[5])
		synctest.Wait()
		b.report()
		if len(b.processes.killed) != 1 {
			t.Errorf("killed %v, want what can be told of again", b.processes.killed)
		}
		b.set("a", func(f *Facts) { f.Processes = nil })
		b.report()
		b.want("a", Free)
	})
}

// Programs that may always be on a device are passed over, with their memory, whoever
// comes and goes; one of an attempt's is no such program by its name.
func TestProcessesThatAreAllowed(t *testing.T) {
	b := newBench(t, Options{Allow: []string{"Xorg", "nvidia-cuda-mps-server"}}, "a")
	b.processes.there[7] = ProcessOwner{PID: 7, Name: "Xorg", User: "root"}
	b.processes.there[8] = ProcessOwner{PID: 8, Name: "nvidia-cuda-mps", User: "root"} // as much as the kernel keeps
	allowed := func(f *Facts) {
		f.Processes, f.MemoryUsedBytes = []Process{{7, 3 << 30}, {8, 30 << 20}}, 3<<30+34<<20
	}
	b.set("a", allowed)
	b.report()
	b.want("a", Free)
	b.grant("j", 1, "a")
	b.Release("j", 1)
	b.report()
	b.want("a", Free)
	if b.Foreign() != 0 {
		t.Errorf("%d foreign processes", b.Foreign())
	}
	b.grant("j", 2, "a")
	b.processes.there[9] = ProcessOwner{PID: 9, Name: "Xorg", User: "bob", JobID: "j2", Attempt: 1}
	b.set("a", func(f *Facts) { f.Processes = append(f.Processes, Process{9, 1 << 20}) })
	b.Release("j", 2)
	b.report()
	b.want("a", Checking)
	if b.Foreign() != 1 {
		t.Errorf("%d foreign processes, want that of another attempt", b.Foreign())
	}
}

// What cannot be told of a device is no word that nothing is on it.
func TestLookAtADeviceThatFailsIsNone(t *testing.T) {
	b := newBench(t, Options{}, "a")
	b.grant("j", 1, "a")
	b.Release("j", 1)
	b.set("a", func(f *Facts) { f.Sick = "list the processes: Unknown Error" })
	b.report()
	b.want("a", Sick, "list the processes")
	within(t, "an end of the window", b.Settled("j", 1))
	if f := b.Faults("j", 1); f.Unlooked == "" {
		t.Errorf("faults %+v: it was not looked at", f)
	}
	b.set("a", func(f *Facts) { f.Sick, f.Processes = "", []Process{{5, 1 << 30}} })
	b.processes.there[5] = ProcessOwner{PID: 5, Name: "python3", User: "ada", JobID: "j", Attempt: 1}
	b.report()
	b.want("a", Checking)
	if len(b.processes.killed) != 1 {
		t.Errorf("killed %v", b.processes.killed)
	}
}

// Memory that the idle device has come to use is accepted by a person.
func TestResumeAcceptsMemoryOfTheIdleDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{}, "a")
		dirty := func(number int, used uint64) {
			b.grant("j", number, "a")
			b.Release("j", number)
			b.set("a", func(f *Facts) { f.MemoryUsedBytes = used })
			b.report()
			time.Sleep(cleanMost)
			b.report()
		}
		dirty(1, 300<<20)
		b.want("a", Sick, "300 MiB of its memory are in use", "gpuqctl resume of the device accepts it")
		if b.Resume("", "ada") || !b.Resume("a", "ada") {
			t.Error("want it to be resumed with the device, not with the host")
		}
		b.want("a", Checking)
		b.report()
		b.want("a", Free)
		dirty(2, 320<<20)
		b.want("a", Free)
		dirty(3, 3<<30)
		b.want("a", Sick, "3.0 GiB of its memory are in use")
		b.report(xid("a", 79)) // a resume of the quarantine accepts nothing else
		if !b.Resume("a", "ada") {
			t.Error("the quarantine was not ended")
		}
		b.report()
		time.Sleep(cleanMost)
		b.report()
		b.want("a", Sick, "3.0 GiB of its memory are in use")
	})
}
