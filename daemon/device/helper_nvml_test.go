package device

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gpuqd/test/scriptednvml"
	"gpuqd/test/wait"
)

// overNVML is a Helper of the real gpuqd-device over a scripted driver.
type overNVML struct {
	*Helper
	driver *scriptednvml.Library
	log    *logBuffer
}

func newOverNVML(t *testing.T) *overNVML {
	t.Helper()
	script := scriptednvml.Script{Devices: []scriptednvml.Device{
		{UUID: "GPU-a", Model: "NVIDIA H100", Bus: 1, Memory: 80 << 30},
		{UUID: "GPU-b", Model: "NVIDIA H100", Bus: 2, Minor: 1, Memory: 80 << 30},
	}}
	o := &overNVML{driver: scriptednvml.New(t, script), log: &logBuffer{}}
	o.Helper = &Helper{
		Path: scriptednvml.BuildHelper(t), Library: o.driver.Path, Interval: 20 * time.Millisecond,
		Silence: patience, Restart: 5 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(o.log, nil)),
	}
	return o
}

// calls sets what calls do instead of their work; none is a driver that works.
func (o *overNVML) calls(t *testing.T, calls ...scriptednvml.Call) {
	t.Helper()
	o.driver.Change(t, func(s *scriptednvml.Script) { s.Calls = calls })
}

// manage runs a manager of the helper until the end of the test.
func (o *overNVML) manage(t *testing.T) *Manager {
	t.Helper()
	m := New("host-1", o.Helper, nil)
	runManager(t, m)
	return m
}

func eventually(t *testing.T, m *Manager, uuid string, want State) Status {
	t.Helper()
	wait.Until(t, fmt.Sprintf("%s is %s", uuid, want), func() bool { return m.find(uuid).State == want })
	return m.find(uuid)
}

// reports keeps what a helper delivers.
type reports struct {
	mu  sync.Mutex
	all []Report
}

func (r *reports) deliver(one Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
}

// has reports whether a report was delivered of which want is true.
func (r *reports) has(want func(Report) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.all, want)
}

func (r *reports) events() (all []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		all = append(all, one.Events...)
	}
	return all
}

// record runs a helper until the end of the test.
func record(t *testing.T, h *Helper) *reports {
	t.Helper()
	r := &reports{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.Run(ctx, r.deliver); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		within(t, "the helper's end", done)
	})
	return r
}

func (r *reports) look(n uint64) func() bool {
	return func() bool { return r.has(func(one Report) bool { return one.Devices != nil && one.Look >= n }) }
}

// A driver that keeps a call, whichever, makes all devices sick. The helper in it is
// asked to end and never killed; when the driver lets it go, another one reports.
func TestHungDriverMakesDevicesSickUntilItComesBack(t *testing.T) {
	for _, call := range []string{"nvmlDeviceGetUUID", "nvmlEventSetWait_v2"} {
		t.Run(call, func(t *testing.T) {
			o := newOverNVML(t)
			o.Silence = time.Second
			m := o.manage(t)
			eventually(t, m, "GPU-a", Free)
			o.calls(t, scriptednvml.Call{Name: call, Hangs: true})
			t.Cleanup(func() { o.calls(t) }) // or a failed test would leave it hanging
			sick := eventually(t, m, "GPU-a", Sick)
			var pid int
			if _, after, _ := strings.Cut(sick.Reason, "(process "); !scan(after, &pid) || !strings.Contains(sick.Reason, "said nothing") {
				t.Fatalf("sick as %q, want which process is silent", sick.Reason)
			}
			wait.Until(t, "the helper is asked to end", func() bool { return o.log.count("stuck") > 0 })
			if call == "nvmlDeviceGetUUID" {
				time.Sleep(200 * time.Millisecond) // 40 restart pauses in which nothing must happen
				if err := syscall.Kill(pid, 0); err != nil || !o.driver.Hanging() {
					t.Errorf("the helper in the driver is gone (%v), want it left alone", err)
				}
				if s := m.find("GPU-b").State; s != Sick {
					t.Errorf("GPU-b is %s while the driver hangs, want sick", s)
				}
			}
			o.calls(t)
			eventually(t, m, "GPU-a", Free)
			eventually(t, m, "GPU-b", Free)
		})
	}
}

func scan(text string, into *int) bool {
	_, err := fmt.Sscanf(text, "%d)", into)
	return err == nil
}

func TestDriverThatGoesAndComesBack(t *testing.T) {
	o := newOverNVML(t)
	m := o.manage(t)
	eventually(t, m, "GPU-a", Free)
	o.driver.Change(t, func(s *scriptednvml.Script) { s.Gone = true })
	eventually(t, m, "GPU-a", Sick)
	wait.Until(t, "the problem names the kernel module", func() bool { return strings.Contains(m.Problem(), "kernel module is not loaded") })
	o.driver.Change(t, func(s *scriptednvml.Script) { s.Gone = false })
	eventually(t, m, "GPU-a", Free)
	wait.Until(t, "the problem is over", func() bool { return m.Problem() == "" })
}

func TestDeviceThatIsLostIsSickAlone(t *testing.T) {
	o := newOverNVML(t)
	m := o.manage(t)
	eventually(t, m, "GPU-b", Free)
	if err := m.Acquire("j", 1, []string{"GPU-b"}, 0); err != nil {
		t.Fatal(err)
	}
	o.calls(t, scriptednvml.Call{UUID: "GPU-b", Return: scriptednvml.GPUIsLost})
	d := eventually(t, m, "GPU-b", Sick)
	if !strings.Contains(d.Reason, "fallen off the bus") {
		t.Errorf("sick as %q", d.Reason)
	}
	select {
	case a := <-m.Alarms():
		if a.JobID != "j" || !strings.Contains(a.Detail, "fallen off the bus") {
			t.Errorf("alarm %+v", a)
		}
	case <-time.After(patience):
		t.Error("the attempt on it is not told to end")
	}
	if d := m.find("GPU-a"); d.State != Free {
		t.Errorf("GPU-a is %s (%s), want free", d.State, d.Reason)
	}
}

func TestLibraryThatIsNotThereIsNamed(t *testing.T) {
	o := newOverNVML(t)
	o.Library = filepath.Join(t.TempDir(), "absent.so")
	m := o.manage(t)
	within(t, "ready", m.Ready())
	if p := m.Problem(); !strings.Contains(p, "absent.so") {
		t.Errorf("problem is %q, want the library's path", p)
	}
}

func TestHelperLook(t *testing.T) {
	t.Run("IsAnsweredAtOnce", func(t *testing.T) {
		o := newOverNVML(t)
		o.Interval = time.Hour
		o.Look(3) // before Run
		r := record(t, o.Helper)
		wait.Until(t, "look 3 is answered", r.look(3))
		o.Look(4)
		wait.Until(t, "look 4 is answered", r.look(4))
	})
	t.Run("IsAskedAgainOfTheNextHelper", func(t *testing.T) {
		o := newOverNVML(t)
		o.Interval = time.Hour
		r := record(t, o.Helper)
		wait.Until(t, "an inventory", r.look(0))
		o.calls(t, scriptednvml.Call{Name: "nvmlDeviceGetUUID", Hangs: true})
		o.Look(9)
		wait.Until(t, "it hangs in the look", o.driver.Hanging)
		o.calls(t, scriptednvml.Call{Name: "nvmlDeviceGetUUID", Crashes: true})
		wait.Until(t, "it crashed", func() bool { return o.log.count("device helper ended") > 0 })
		o.calls(t)
		wait.Until(t, "look 9 is answered", r.look(9))
	})
	// A helper that hangs does not read: its input fills up, and whoever looks must
	// not notice. When it comes back it hears of the highest look all the same.
	t.Run("NeverWaitsForAHelperThatDoesNotRead", func(t *testing.T) {
		s := newScripted(t, sayInventory+"while [ ! -e read ]; do\n"+sayHeartbeat+"sleep 0.02\ndone\n"+
			`while read -r word n; do echo '{"version":2,"devices":[],"look":'$n'}'; `+sayHeartbeat+"done\n")
		r := record(t, s.helper)
		wait.Until(t, "an inventory", r.look(0))
		const looks = 100_000 // far more lines than a pipe holds
		for n := range uint64(looks) {
			s.helper.Look(n + 1)
			for len(s.helper.looks()) > 0 { // or most would be written as one
				runtime.Gosched()
			}
		}
		if err := os.WriteFile(filepath.Join(s.dir, "read"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the last look is answered", r.look(looks))
	})
}

func TestHelperPassesEventsOn(t *testing.T) {
	instances := []scriptednvml.Instance{
		{UUID: "MIG-x", Profile: "1g.10gb", GI: 1, Memory: 10 << 30},
		{UUID: "MIG-y", Profile: "1g.10gb", GI: 2, Memory: 10 << 30},
	}
	for _, c := range []struct {
		name    string
		include []string
		devices []string
		events  []string // the first is a GPU
	}{
		{"OfAll", nil, []string{"GPU-a", "MIG-x", "MIG-y"}, []string{"GPU-a", "GPU-b", "MIG-x", "MIG-y"}},
		{"OfOneGPU", []string{"GPU-a"}, []string{"GPU-a"}, []string{"GPU-a"}},
		{"OfAnInstanceAndItsGPU", []string{"MIG-y"}, []string{"MIG-y"}, []string{"GPU-b", "MIG-y"}},
		{"OfTheInstancesOfAGPU", []string{"GPU-b"}, []string{"MIG-x", "MIG-y"}, []string{"GPU-b", "MIG-x", "MIG-y"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOverNVML(t)
			o.Include = c.include
			o.driver.Change(t, func(s *scriptednvml.Script) { s.Devices[1].MIG, s.Devices[1].Instances = true, instances })
			r := record(t, o.Helper)
			wait.Until(t, "the inventory", func() bool {
				return r.has(func(one Report) bool {
					var uuids []string
					for _, f := range one.Devices {
						uuids = append(uuids, f.UUID)
					}
					return slices.Equal(uuids, c.devices)
				})
			})
			o.driver.Happen(t,
				scriptednvml.Event{UUID: "GPU-a", XID: 79},
				scriptednvml.Event{UUID: "GPU-b", XID: 79},
				scriptednvml.Event{UUID: "GPU-b", XID: 79, Instance: &instances[0]},
				scriptednvml.Event{UUID: "GPU-b", XID: 79, Instance: &instances[1]},
				scriptednvml.Event{UUID: c.events[0], XID: 1}, // one that is passed on, so that the others were
			)
			got := map[string]int{}
			wait.Until(t, "the last event", func() bool {
				clear(got)
				last := false
				for _, e := range r.events() {
					if e.XID == 79 {
						got[e.UUID] += e.Count
					}
					last = last || e.XID == 1
				}
				return last
			})
			for uuid, n := range got {
				if !slices.Contains(c.events, uuid) || n != 1 {
					t.Errorf("%d events of %s, want one of each of %v", n, uuid, c.events)
				}
			}
			if len(got) != len(c.events) {
				t.Errorf("events of %v, want of %v", got, c.events)
			}
		})
	}
}
