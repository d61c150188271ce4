package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gpuqd/daemon/device"
	"gpuqd/test/scriptednvml"
	"gpuqd/test/wait"
)

// quick is the time between heartbeats in tests.
const quick = 10 * time.Millisecond

var often = []string{"--interval", "20ms", "--heartbeat", quick.String()}

// seldom leaves inventories to looks.
var seldom = []string{"--interval", "1h", "--heartbeat", quick.String()}

func two() scriptednvml.Script {
	return scriptednvml.Script{Devices: []scriptednvml.Device{
		{UUID: "GPU-a", Model: "NVIDIA H100", Bus: 0x1a, Memory: 80 << 30, Reserved: 1 << 30},
		{UUID: "GPU-b", Model: "NVIDIA H100", Minor: 1, Bus: 0x1b, Memory: 80 << 30, Reserved: 1 << 30},
	}}
}

// of returns what an inventory says of a device.
func of(r device.Report, uuid string) device.Facts {
	i := slices.IndexFunc(r.Devices, func(f device.Facts) bool { return f.UUID == uuid })
	if i < 0 {
		return device.Facts{}
	}
	return r.Devices[i]
}

// whole reports whether a line is an inventory whose devices are all well.
func whole(r device.Report) bool {
	return len(r.Devices) > 0 && !slices.ContainsFunc(r.Devices, func(f device.Facts) bool { return f.Sick != "" })
}

func TestProcessWithoutLibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libnvidia-ml.so.1")
	p := startProcess(t, path)
	got := p.next("the error", func(r device.Report) bool { return r.Error != nil }).Error
	if got.Kind != device.NoDriver || !strings.Contains(got.Message, path) || !strings.Contains(got.Message, "device.library") {
		t.Errorf("got %+v, want that the library cannot be loaded, and what to do", got)
	}
	p.ends(device.ExitNoDriver)
}

func TestProcessWhoseDriverDoesNotInitialise(t *testing.T) {
	script := two()
	script.Calls = []scriptednvml.Call{{Name: "nvmlInit_v2", Return: scriptednvml.VersionMismatch}}
	p := startProcess(t, scriptednvml.New(t, script).Path)
	p.next("the error", func(r device.Report) bool { return r.Error != nil && r.Error.Kind == device.DriverMismatch })
	p.ends(device.ExitNoDriver)
}

// Whichever call the driver keeps of all devices, the helper falls silent, and speaks
// again when it comes back.
func TestProcessIsSilentWhileACallHangs(t *testing.T) {
	for _, call := range []string{
		"nvmlDeviceGetCount_v2", "nvmlDeviceGetTemperature", "nvmlDeviceGetComputeRunningProcesses_v3",
		"nvmlEventSetWait_v2",
	} {
		t.Run(call, func(t *testing.T) {
			library := scriptednvml.New(t, two())
			p := startProcess(t, library.Path, often...)
			p.next("an inventory", whole)
			library.Change(t, func(s *scriptednvml.Script) { s.Calls = []scriptednvml.Call{{Name: call, Hangs: true}} })
			wait.Until(t, "the call hangs", library.Hanging)
			p.silent()
			p.ask("look 1")
			p.silent()
			library.Change(t, func(s *scriptednvml.Script) { s.Calls = nil })
			p.next("the look's inventory", func(r device.Report) bool { return whole(r) && r.Look == 1 })
			p.next("a heartbeat", isHeartbeat)
		})
	}
}

// A device whose calls the driver keeps is sick; the others' looks are answered.
func TestProcessGoesOnWhileOneDeviceHangs(t *testing.T) {
	library := scriptednvml.New(t, two())
	p := startProcess(t, library.Path, append([]string{"--patience", "200ms"}, often...)...)
	p.next("an inventory", whole)
	library.Change(t, func(s *scriptednvml.Script) { s.Calls = []scriptednvml.Call{{UUID: "GPU-b", Hangs: true}} })
	wait.Until(t, "the call hangs", library.Hanging)
	got := p.next("GPU-b is sick", func(r device.Report) bool { return of(r, "GPU-b").Sick != "" })
	if b := of(got, "GPU-b"); !strings.Contains(b.Sick, "does not answer") || b.Lost || b.MinorNumber != 1 {
		t.Errorf("GPU-b is %+v, want who it is, and that it hangs", b)
	}
	p.ask("look 1")
	got = p.next("the look's inventory", func(r device.Report) bool { return r.Look == 1 })
	if a := of(got, "GPU-a"); a.Sick != "" || a.UUID == "" || of(got, "GPU-b").Sick == "" {
		t.Errorf("GPU-a is %+v", a)
	}
	p.next("a heartbeat", isHeartbeat)
	library.Change(t, func(s *scriptednvml.Script) { s.Calls = nil })
	p.next("GPU-b is well again", func(r device.Report) bool { return whole(r) && of(r, "GPU-b").Sick == "" })
}

// The wait for events may hang for good; that must not keep a process whose parent
// is gone.
func TestProcessEndsWithItsParentThoughTheWaitForEventsHangs(t *testing.T) {
	library := scriptednvml.New(t, two())
	p := startProcess(t, library.Path, often...)
	p.next("an inventory", whole)
	library.Change(t, func(s *scriptednvml.Script) {
		s.Calls = []scriptednvml.Call{{Name: "nvmlEventSetWait_v2", Hangs: true}}
	})
	wait.Until(t, "the call hangs", library.Hanging)
	p.stdin.Close()
	p.ends(0)
}

func TestProcessWhoseDeviceIs(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		want string
	}{
		"Lost":        {scriptednvml.GPUIsLost, "restart the host"},
		"ToBeReset":   {scriptednvml.ResetRequired, "nvidia-smi --gpu-reset"},
		"Unexplained": {scriptednvml.Unknown, "kernel log"},
	} {
		t.Run(name, func(t *testing.T) {
			library := scriptednvml.New(t, two())
			p := startProcess(t, library.Path, often...)
			p.next("an inventory", whole)
			library.Change(t, func(s *scriptednvml.Script) {
				s.Calls = []scriptednvml.Call{
					{UUID: "GPU-b", Return: c.code},
					{Name: "nvmlEventSetWait_v2", Return: c.code}, // as while a lost device is in the set
				}
			})
			got := p.next("GPU-b is sick", func(r device.Report) bool { return of(r, "GPU-b").Sick != "" })
			b := of(got, "GPU-b")
			if b.Lost != (c.code != scriptednvml.Unknown) || !strings.Contains(b.Sick, c.want) || b.MinorNumber != 1 || b.PCIAddress != "0000:1b:00.0" {
				t.Errorf("GPU-b is %+v, want what to do, who it is, and whether it is lost", b)
			}
			if a := of(got, "GPU-a"); a.Sick != "" || a.UUID == "" {
				t.Errorf("GPU-a is %+v, want well", a)
			}
			library.Change(t, func(s *scriptednvml.Script) { s.Calls = nil })
			p.next("both are well", whole)
			// What happens before it listens again is nobody's to hear.
			heard := func(r device.Report) bool { return len(r.Events) > 0 }
			wait.Until(t, "events are heard again", func() bool {
				library.Happen(t, scriptednvml.Event{UUID: "GPU-a", XID: 13})
				_, ok := p.scan(heard)
				return ok
			})
		})
	}
}

// A device that is lost while the others work answers what it was asked for before
// with that it is lost, from the first call on that says so.
func TestProcessTakesOneLostAnswerForTheWhole(t *testing.T) {
	library := scriptednvml.New(t, two())
	p := startProcess(t, library.Path, often...)
	p.next("an inventory", whole)
	library.Change(t, func(s *scriptednvml.Script) {
		s.Calls = []scriptednvml.Call{{Name: "nvmlDeviceGetPowerUsage", UUID: "GPU-b", Return: scriptednvml.GPUIsLost}}
	})
	p.next("GPU-b is sick", func(r device.Report) bool {
		return strings.Contains(of(r, "GPU-b").Sick, "read the power") && of(r, "GPU-a").Sick == ""
	})
}

func TestProcessOverAStormOfEvents(t *testing.T) {
	library := scriptednvml.New(t, two())
	p := startProcess(t, library.Path, seldom...)
	p.next("an inventory", whole)
	const storm = 20_000
	began := time.Now()
	library.Happen(t,
		scriptednvml.Event{UUID: "GPU-a", XID: 13, Count: storm},
		scriptednvml.Event{UUID: "GPU-b", XID: 79},
		scriptednvml.Event{UUID: "GPU-b", DoubleBit: true, Count: 2},
	)
	type key struct {
		uuid string
		kind device.EventKind
		xid  int
	}
	got, lines := map[key]int{}, 0
	last := key{"GPU-b", device.EventUncorrected, 0}
	for got[last] < 2 {
		lines++
		for _, e := range p.next("events", func(r device.Report) bool { return len(r.Events) > 0 }).Events {
			got[key{e.UUID, e.Kind, e.XID}] += e.Count
			if e.At.Before(began) || e.At.After(time.Now()) {
				t.Errorf("%+v happened at another time", e)
			}
		}
	}
	if got[key{"GPU-a", device.EventXID, 13}] != storm || got[key{"GPU-b", device.EventXID, 79}] != 1 || len(got) != 3 {
		t.Errorf("heard %v", got)
	}
	if most := int(time.Since(began)/eventsPause) + 2; lines > most {
		t.Errorf("%d lines in %s, want %d at most", lines, time.Since(began), most)
	}
}

func TestProcessWhoseDriverGoesAndComesBack(t *testing.T) {
	library := scriptednvml.New(t, two())
	p := startProcess(t, library.Path, often...)
	p.next("an inventory", whole)
	library.Change(t, func(s *scriptednvml.Script) { s.Gone = true })
	p.next("the error", func(r device.Report) bool { return r.Error != nil && r.Error.Kind == device.DriverFailed })
	p.ends(1)
	p = startProcess(t, library.Path, often...)
	p.next("the error", func(r device.Report) bool { return r.Error != nil && r.Error.Kind == device.NoDriver })
	p.ends(device.ExitNoDriver)
	library.Change(t, func(s *scriptednvml.Script) { s.Gone = false })
	startProcess(t, library.Path, often...).next("an inventory", whole)
}

func TestProcessCrashesInTheDriver(t *testing.T) {
	library := scriptednvml.New(t, two())
	p := startProcess(t, library.Path, often...)
	p.next("an inventory", whole)
	library.Change(t, func(s *scriptednvml.Script) {
		s.Calls = []scriptednvml.Call{{Name: "nvmlDeviceGetName", Crashes: true}}
	})
	p.ends(2)
	if !strings.Contains(p.said(), "SIGSEGV") {
		t.Errorf("it said %q, want the signal", p.said())
	}
}

func TestProcessAnswersLooksAtOnce(t *testing.T) {
	p := startProcess(t, scriptednvml.New(t, two()).Path, seldom...)
	if got := p.next("an inventory", whole); got.Look != 0 {
		t.Errorf("the first inventory answers look %d, and none was asked for", got.Look)
	}
	p.ask("look 3\nwhatever\nlook 7\n" + strings.Repeat("look 99 ", 100) + "look 99\nlook -1")
	p.next("the inventory of look 7", func(r device.Report) bool { return whole(r) && r.Look == 7 })
	p.ask("look 5\nlook 8")
	p.next("the inventory of look 8", func(r device.Report) bool {
		if r.Look > 8 {
			t.Errorf("it answers look %d, which nobody asked for", r.Look)
		}
		return whole(r) && r.Look == 8
	})
	if n := strings.Count(p.said(), "\n"); n != 1 || !strings.Contains(p.said(), "whatever") {
		t.Errorf("it said %q, want one note of the first line without a meaning", p.said())
	}
	p.stdin.Close()
	p.ends(0)
}

func TestProcessShowsMemoryAndProcessesAsTheyComeAndGo(t *testing.T) {
	user := exec.Command("sleep", "1000")
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	script := two()
	script.Devices[0].Processes = []scriptednvml.Process{{PID: user.Process.Pid, Memory: 3 << 30}}
	p := startProcess(t, scriptednvml.New(t, script).Path, often...)
	got := of(p.next("an inventory", whole), "GPU-a")
	want := []device.Process{{PID: user.Process.Pid, MemoryUsedBytes: 3 << 30}}
	if got.MemoryUsedBytes != 3<<30 || !slices.Equal(got.Processes, want) {
		t.Errorf("got %d bytes in use by %v, want those of the process, without the driver's", got.MemoryUsedBytes, got.Processes)
	}
	_ = user.Process.Kill()
	_ = user.Wait() // it was killed
	p.next("it is gone", func(r device.Report) bool {
		f := of(r, "GPU-a")
		return f.UUID != "" && f.Processes == nil && f.MemoryUsedBytes == 0
	})
}

func TestProcessOverAnOldDriver(t *testing.T) {
	script := two()
	script.Devices[0].Facts = map[string]uint64{"temperature": 40, "recovery": 1, "throttle": 4}
	p := startProcess(t, scriptednvml.NewOld(t, script).Path, often...)
	got := of(p.next("an inventory", whole), "GPU-a")
	if got.MemoryUsedBytes != 1<<30 || *got.TemperatureCelsius != 40 || got.Recovery != "" || got.Throttle != nil {
		t.Errorf("got %+v, want what that driver tells, with the driver's own memory as used", got)
	}
}

func TestProcessOverMIGInstances(t *testing.T) {
	script := two()
	b := &script.Devices[1]
	b.MIG = true
	b.Facts = map[string]uint64{"temperature": 50, "ecc_corrected": 1, "ecc_uncorrected": 2}
	b.Instances = []scriptednvml.Instance{
		{UUID: "MIG-x", Profile: "3g.40gb", GI: 2, Memory: 40 << 30, Used: 1 << 20},
		{UUID: "MIG-y", Profile: "1c.2g.20gb", GI: 1, Memory: 20 << 30, Processes: []scriptednvml.Process{{PID: os.Getpid(), Memory: 5}}},
		{UUID: "MIG-z", Profile: "1c.2g.20gb", GI: 1, CI: 1, Memory: 20 << 30},
	}
	library := scriptednvml.New(t, script)
	p := startProcess(t, library.Path, seldom...)
	got := p.next("an inventory", whole)
	var uuids []string
	for _, f := range got.Devices {
		uuids = append(uuids, f.UUID)
	}
	if want := []string{"GPU-a", "MIG-y", "MIG-z", "MIG-x"}; !slices.Equal(uuids, want) {
		t.Fatalf("devices %v, want %v", uuids, want)
	}
	x, y := of(got, "MIG-x"), of(got, "MIG-y")
	if x.MemoryBytes != 40<<30 || x.MemoryUsedBytes != 1<<20 || x.Processes != nil || x.MIGProfile != "3g.40gb" || x.ParentUUID != "GPU-b" {
		t.Errorf("MIG-x is %+v", x)
	}
	if *x.TemperatureCelsius != 50 || x.ECC == nil || x.ECC.Uncorrected != 2 || x.UtilisationPercent != nil {
		t.Errorf("MIG-x fares as %+v, want as its GPU", x.Condition)
	}
	if !slices.Equal(y.Processes, []device.Process{{PID: os.Getpid(), MemoryUsedBytes: 5}}) {
		t.Errorf("MIG-y is used by %v, want by this process alone", y.Processes)
	}
	library.Happen(t,
		scriptednvml.Event{UUID: "GPU-b", XID: 94, Instance: &b.Instances[0]},
		scriptednvml.Event{UUID: "GPU-b", XID: 95},
	)
	var heard []string
	for len(heard) < 2 {
		for _, e := range p.next("events", func(r device.Report) bool { return len(r.Events) > 0 }).Events {
			heard = append(heard, e.UUID)
		}
	}
	if want := []string{"MIG-x", "GPU-b"}; !slices.Equal(heard, want) {
		t.Errorf("events of %v, want of %v", heard, want)
	}
}
