package device

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/job"
)

// bench is a manager over devices whose driver the test plays. Run is not needed:
// looks are answered when the test says so.
type bench struct {
	*Manager
	t         *testing.T
	facts     map[string]Facts
	processes *people
	asked     []uint64 // looks
}

// people are the processes of a host.
type people struct {
	mu       sync.Mutex
	there    map[int]ProcessOwner
	immortal bool
	killed   []int
}

func (p *people) Describe(pid int) (ProcessOwner, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	owner, ok := p.there[pid]
	return owner, ok
}

func (p *people) Kill(owner ProcessOwner) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = append(p.killed, owner.PID)
	if !p.immortal {
		delete(p.there, owner.PID)
	}
	return nil
}

// askedOnly is a Looker that notes what it is asked.
type askedOnly struct {
	mute
	b *bench
}

func (a askedOnly) Look(n uint64) { a.b.asked = append(a.b.asked, n) }

func newBench(t *testing.T, o Options, uuids ...string) *bench {
	b := &bench{t: t, facts: map[string]Facts{}, processes: &people{there: map[int]ProcessOwner{}}}
	o.Processes = b.processes
	b.Manager = NewWith("gpu7", askedOnly{b: b}, o)
	for i, uuid := range uuids {
		b.facts[uuid] = Facts{Device: Device{UUID: uuid, Index: i, MemoryBytes: 80 << 30}, MemoryUsedBytes: 4 << 20}
	}
	b.report()
	return b
}

// report delivers an inventory that answers every look so far.
func (b *bench) report(events ...Event) {
	r := Report{Version: WireVersion, Devices: []Facts{}, Look: uint64(1 << 30), Events: events}
	for _, uuid := range slices.Sorted(maps.Keys(b.facts)) {
		f := b.facts[uuid]
		f.Processes = slices.Clone(f.Processes)
		r.Devices = append(r.Devices, f)
	}
	b.take(r)
}

// set changes what the driver says of a device.
func (b *bench) set(uuid string, change func(*Facts)) {
	f := b.facts[uuid]
	change(&f)
	b.facts[uuid] = f
}

func (b *bench) grant(id job.ID, number int, uuids ...string) {
	b.t.Helper()
	if err := b.Acquire(id, number, uuids, 0); err != nil {
		b.t.Fatal(err)
	}
}

// want checks a device's state, what its reason says, and that Acquire and Free
// agree with it.
func (b *bench) want(uuid string, state State, says ...string) {
	b.t.Helper()
	s := b.find(uuid)
	if s.State != state {
		b.t.Fatalf("%s is %s (%s), want %s", uuid, s.State, s.Reason, state)
	}
	for _, text := range says {
		if !strings.Contains(s.Reason, text) {
			b.t.Errorf("%s: %q does not say %q", uuid, s.Reason, text)
		}
	}
	free := slices.ContainsFunc(b.Free(), func(d Device) bool { return d.UUID == uuid })
	if free != (state == Free) {
		b.t.Errorf("%s is %s, and among the free: %t", uuid, state, free)
	}
	if state == Free {
		return
	}
	if err := b.Acquire("other", 1, []string{uuid}, 0); !errors.Is(err, ErrNotFree) {
		b.t.Errorf("%s is %s and was granted (%v)", uuid, state, err)
	}
}

func (b *bench) alarmed() (list []Alarm) {
	for {
		select {
		case a := <-b.Alarms():
			list = append(list, a)
		default:
			return list
		}
	}
}

func xid(uuid string, code int) Event {
	return Event{UUID: uuid, Kind: EventXID, XID: code, Count: 1, At: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
}

func TestXIDsByClass(t *testing.T) {
	for _, c := range []struct {
		code                int
		device, other       State
		alarms              int
		deviceFault, remark bool
		reason              string
	}{
		{31, Busy, Free, 0, false, true, ""},
		{63, Busy, Free, 0, false, false, ""},
		{79, Sick, Free, 1, true, false, "XID 79 (GPU has fallen off the bus) at 12:00:00Z: reboot the host"},
		{151, Sick, Sick, 1, true, false, "XID 151"},
		{9999, Sick, Free, 0, false, true, "XID 9999 (a code that gpuqd does not know)"},
	} {
		b := newBench(t, Options{}, "a", "b")
		b.grant("j", 1, "a")
		b.take(Report{Events: []Event{xid("a", c.code)}})
		b.want("a", c.device, c.reason)
		b.want("b", c.other)
		if c.device == Sick {
			b.want("a", Sick, "gpuqctl resume gpu7/0")
		}
		alarms := b.alarmed()
		if len(alarms) != c.alarms || len(alarms) > 0 && (alarms[0].JobID != "j" || alarms[0].Attempt != 1 || alarms[0].Kind != AlarmDevice) {
			t.Errorf("%d: alarms %+v", c.code, alarms)
		}
		b.report()
		if again := b.alarmed(); len(again) != c.alarms {
			t.Errorf("%d: with the next inventory alarms %+v", c.code, again)
		}
		b.Release("j", 1)
		b.report()
		faults := b.Faults("j", 1)
		if len(faults.Device) > 0 != c.deviceFault || len(faults.Application) > 0 != c.remark || faults.Unlooked != "" {
			t.Errorf("%d: faults %+v", c.code, faults)
		}
		if b.Tally().XIDs[c.code] != 1 {
			t.Errorf("%d: counted %v", c.code, b.Tally().XIDs)
		}
	}
}

func TestEventOfAGPUConcernsItsInstances(t *testing.T) {
	b := newBench(t, Options{}, "m1", "m2", "x")
	for _, uuid := range []string{"m1", "m2"} {
		b.set(uuid, func(f *Facts) { f.ParentUUID = "gpu" })
	}
	b.report(xid("gpu", 95))
	b.want("m1", Sick)
	b.want("m2", Sick)
	b.want("x", Free)
	b.report(xid("somebody else's", 95))
	b.want("x", Free)
	b.report(xid("", 95)) // the driver does not say whose
	b.want("x", Sick)
}

func TestStormOfOneXIDIsOneQuarantine(t *testing.T) {
	b := newBench(t, Options{}, "a")
	b.grant("j", 1, "a")
	for i := range 1000 {
		e := xid("a", 48)
		e.At = e.At.Add(time.Duration(i) * time.Second)
		b.take(Report{Events: []Event{e}})
	}
	b.Release("j", 1)
	if n := len(b.Faults("j", 1).Device); n > faultsMax || b.Tally().Quarantines[QuarantineXID] != 1 || b.Tally().XIDs[48] != 1000 {
		t.Errorf("%d faults, %+v", n, b.Tally())
	}
}

func TestSicknessFromFacts(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Facts)
		state  State
		says   string
		alarms int
	}{
		"Sick":         {func(f *Facts) { f.Sick = "it burns" }, Sick, "it burns", 0},
		"Reset":        {func(f *Facts) { f.Recovery = RecoveryReset }, Sick, "gpu_reset", 1},
		"Reboot":       {func(f *Facts) { f.Recovery = RecoveryReboot }, Sick, "reboot", 1},
		"Drain":        {func(f *Facts) { f.Recovery = RecoveryDrainReset }, Sick, "drain_and_reset", 0},
		"DrainP2P":     {func(f *Facts) { f.Recovery = RecoveryDrainP2P }, Sick, "drain_p2p", 0},
		"New":          {func(f *Facts) { f.Recovery = "bus_reset" }, Sick, "bus_reset", 0},
		"RemapFailed":  {func(f *Facts) { f.ECC = &ECC{RemapFailed: true} }, Sick, "replaced", 0},
		"RemapPending": {func(f *Facts) { f.ECC = &ECC{RemapPending: true} }, Busy, "", 0},
		"Corrected":    {func(f *Facts) { f.ECC = &ECC{Corrected: 1e6} }, Busy, "", 0},
		"Uncorrected":  {func(f *Facts) { f.ECC = &ECC{Uncorrected: 3} }, Sick, "3 since the driver was loaded, 0 before", 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Options{}, "a", "b")
			b.grant("j", 1, "a")
			b.set("a", c.change)
			b.report()
			b.want("a", c.state, c.says)
			b.want("b", Free)
			if got := b.alarmed(); len(got) != c.alarms {
				t.Errorf("alarms %+v", got)
			}
			b.set("a", func(f *Facts) { f.Sick, f.Recovery = "", "" })
			b.report()
			if sticky := name == "Uncorrected" || name == "RemapFailed"; sticky != (b.find("a").State == Sick) {
				t.Errorf("it is %s when the driver has taken it back", b.find("a").State)
			}
		})
	}
}

func TestLostDeviceEndsItsAttempt(t *testing.T) {
	b := newBench(t, Options{}, "a", "b")
	b.grant("j", 1, "a")
	lost := b.facts["a"]
	delete(b.facts, "a")
	b.report()
	b.want("a", Sick, "lost")
	if got := b.alarmed(); len(got) != 1 {
		t.Errorf("alarms %+v", got)
	}
	b.Release("j", 1)
	b.report()
	within(t, "an end of the window", b.Settled("j", 1))
	if f := b.Faults("j", 1); len(f.Device) != 1 {
		t.Errorf("faults %+v", f)
	}
	b.facts["a"] = lost
	b.report()
	b.want("a", Free)
}

// The silence of the helper makes devices sick and ends nothing.
func TestSilenceEndsNoAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Silence: 30 * time.Second}, "a", "b")
		b.grant("j", 1, "a")
		time.Sleep(31 * time.Second)
		b.want("b", Sick, "nothing has been heard of it for more than 30s")
		b.report()
		b.want("b", Free)
		b.take(Report{Error: &ReportError{Kind: HelperSilent, Message: "silent"}})
		b.want("a", Sick, "silent")
		if got := b.alarmed(); len(got) != 0 {
			t.Errorf("alarms %+v", got)
		}
		b.Release("j", 1)
		within(t, "an end of the window", b.Settled("j", 1))
		if f := b.Faults("j", 1); f.Unlooked != "silent" {
			t.Errorf("faults %+v", f)
		}
		b.report()
		b.want("a", Free)
	})
}

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
			b.want("a", Sick, "process 5 (python3 of user ada) with 1073741824 bytes of attempt 1 of job j", "does not end")
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
		b.want("a", Sick, "process 7 (Xorg of user eve) with 1048576 bytes", "process 8 (python3 of user bob) of attempt 1 of job j2")
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
			b.want("a", Sick, "bytes of its memory are in use")
		})
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

	b.processes.there[8] = ProcessOwner{PID: 8, JobID: "j", Attempt: 3}
	b.set("a", func(f *Facts) { f.Processes = []Process{{8, 1 << 20}} })
	b.report()
	b.want("a", Sick)
	if err := b.Adopt("j", 3, []string{"a"}, 0); err != nil {
		t.Fatal(err)
	}
	b.want("a", Busy)
	b.report()
	b.want("a", Busy)
}

func TestQuarantineEndsByResumeAndACleanLook(t *testing.T) {
	b := newBench(t, Options{}, "a", "b")
	b.report(xid("a", 79), xid("b", 151))
	if b.Resume("", "ada") != true {
		t.Error("the host has nothing to resume")
	}
	b.want("a", Sick, "XID 79")
	b.want("b", Checking)
	b.report()
	b.want("b", Free)
	if !b.Resume("a", "ada") || b.Resume("a", "ada") {
		t.Error("resume does not say whether it ended anything")
	}
	b.want("a", Checking)
	b.set("a", func(f *Facts) { f.Recovery = RecoveryReset })
	b.report()
	b.want("a", Sick, "gpu_reset")
	b.set("a", func(f *Facts) { f.Recovery = "" })
	b.report()
	b.want("a", Free)
}

func TestStateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.json")
	o := Options{StateFile: path, BootID: "boot-1", BreakerFast: 30 * time.Second}
	fresh := func(boot string) *bench {
		o.BootID = boot
		b := newBench(t, o, "a", "b")
		b.set("b", func(f *Facts) { f.ECC = &ECC{Uncorrected: 2} })
		return b
	}
	b := fresh("boot-1")
	b.grant("j", 1, "a")
	b.report(xid("a", 79))
	b.want("a", Sick)
	b.want("b", Sick, "2 since")
	b.Resume("b", "ada")
	b.report()
	b.want("b", Free)

	// A restart: the quarantine holds, the errors that were accepted stay so, and the
	// attempt that is found running knows what has happened.
	again := fresh("boot-1")
	again.report()
	again.want("a", Sick, "XID 79")
	again.want("b", Free)
	if err := again.Adopt("j", 1, []string{"a"}, 0); err != nil {
		t.Fatal(err)
	}
	again.Release("j", 1)
	again.report()
	if f := again.Faults("j", 1); len(f.Device) != 1 || !strings.Contains(f.Device[0], "XID 79") {
		t.Errorf("faults after the restart: %+v", f)
	}
	again.Recall("j", 1, []string{"a"}) // or found ended
	again.Release("j", 1)
	if f := again.Faults("j", 1); len(f.Device) != 1 {
		t.Errorf("faults of an attempt found ended: %+v", f)
	}

	// Errors that came while no daemon looked are those of whoever ran there.
	gap := newBench(t, o)
	gap.facts["b"] = b.facts["b"]
	gap.set("b", func(f *Facts) { f.ECC = &ECC{Uncorrected: 5} })
	gap.report()
	gap.want("b", Sick, "5 since the driver was loaded, 2 before")
	if err := gap.Adopt("k", 1, []string{"b"}, 0); err != nil {
		t.Fatal(err)
	}
	if f := gap.Faults("k", 1); len(f.Device) != 1 {
		t.Errorf("faults of who ran meanwhile: %+v", f)
	}

	// A reboot ends it.
	rebooted := newBench(t, Options{StateFile: path, BootID: "boot-2"}, "a")
	rebooted.want("a", Free)
}

func TestDamagedStateFileIsPutAside(t *testing.T) {
	for name, text := range map[string]string{"Torn": `{"version":1,"boot_id":"boot-1","dev`, "Newer": `{"version":99}`, "Empty": ""} {
		path := filepath.Join(t.TempDir(), "devices.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, Options{StateFile: path, BootID: "boot-1"}, "a")
		b.want("a", Free)
		if kept, err := os.ReadFile(path + ".damaged"); err != nil || string(kept) != text {
			t.Errorf("%s: kept %q, %v", name, kept, err)
		}
		b.report(xid("a", 79))
		newBench(t, Options{StateFile: path, BootID: "boot-1"}, "a").want("a", Sick)
	}
}

// What cannot be written is written as soon as it can.
func TestStateFileIsWrittenAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	o := Options{StateFile: filepath.Join(dir, "devices.json"), BootID: "boot-1"}
	b := newBench(t, o, "a")
	b.report(xid("a", 79))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.report()
	newBench(t, o, "a").want("a", Sick)
}

func TestOrdersAreCarriedOutOnce(t *testing.T) {
	o := Options{StateFile: filepath.Join(t.TempDir(), "devices.json"), BootID: "boot-1"}
	old := []Order{{Seq: 3, UUID: "a", Who: "ada"}}
	b := newBench(t, o, "a")
	b.report(xid("a", 79))
	b.TakeOrders(old) // from before there was a file: about an earlier quarantine
	b.want("a", Sick)
	b.TakeOrders([]Order{{Seq: 5, UUID: "a", Who: "ada"}})
	b.want("a", Checking)
	b.report(xid("a", 79))
	b.TakeOrders([]Order{{Seq: 5, UUID: "a", Who: "ada"}})
	b.want("a", Sick)

	again := newBench(t, o, "a")
	again.TakeOrders([]Order{{Seq: 5, UUID: "a", Who: "ada"}})
	again.want("a", Sick)
	again.TakeOrders([]Order{{Seq: 7, UUID: "a", Who: "ada"}})
	again.want("a", Checking)
}

func TestBreakersOfAManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{BreakerFast: 30 * time.Second}, "a", "b")
		run := func(id job.ID, uuid, kind string, class job.Class) {
			t.Helper()
			b.grant(id, 1, uuid)
			b.Release(id, 1)
			b.report()
			b.Ended(Ending{JobID: id, Attempt: 1, Devices: []string{uuid}, Kind: kind, Class: class, Lasted: time.Second})
			b.Release(id, 1)
		}
		run("j0", "b", "other", "")
		run("j1", "a", "x", job.ClassUser)
		run("j2", "a", "y", job.ClassUser)
		run("j3", "a", "x", job.ClassUser)
		b.want("a", Sick, "j1, j2, j3", "gpuqctl resume gpu7/0")
		b.want("b", Free)
		if got := b.Tally(); got.DeviceBreakers != 1 || got.HostBreakers != 0 {
			t.Errorf("counted %+v", got)
		}
		time.Sleep(breakerFirst)
		b.want("a", Free)
		b.grant("probe", 1, "a")
		b.Release("probe", 1)
		b.report()
		b.want("a", Checking, "probe")
		b.Ended(Ending{JobID: "probe", Attempt: 1, Devices: []string{"a"}, Kind: "x", Class: job.ClassKilled, Lasted: time.Second})
		b.want("a", Free)
		run("j4", "a", "x", job.ClassUser)
		b.want("a", Sick, "j2, j3, j4")
		run("j5", "b", "z", job.ClassUser) // the host's: failures on a second device
		b.want("b", Sick, "the devices of this host", "gpuqctl resume gpu7 ends it")
		if !b.Resume("", "ada") {
			t.Error("nothing was resumed")
		}
		b.want("a", Free)
		b.want("b", Free)
	})
}
