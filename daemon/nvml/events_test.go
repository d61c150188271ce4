package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"gpuqd/daemon/device"
	"gpuqd/test/wait"
)

// driver is the events part of a driver: what wait answers is put into answers, and
// without an answer nothing happens.
type driver struct {
	*server.Server
	answers chan answer

	mu         sync.Mutex
	sets       int
	registered []string // UUIDs, in the last set
}

type answer struct {
	data nvml.EventData
	ret  nvml.Return
}

func newDriver() *driver {
	d := &driver{Server: complete(dgxa100.New()), answers: make(chan answer)}
	d.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.sets++
		d.registered = nil
		return &mock.EventSet{}, nvml.SUCCESS
	}
	d.EventSetWaitFunc = func(_ nvml.EventSet, ms uint32) (nvml.EventData, nvml.Return) {
		select {
		case a := <-d.answers:
			return a.data, a.ret
		case <-time.After(time.Duration(ms) * time.Millisecond):
			return nvml.EventData{}, nvml.ERROR_TIMEOUT
		}
	}
	for _, dev := range d.Devices {
		dev := dev.(*server.Device)
		dev.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return nvml.EventTypeXidCriticalError | 0x10, nvml.SUCCESS }
		dev.RegisterEventsFunc = func(types uint64, _ nvml.EventSet) nvml.Return {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.registered = append(d.registered, dev.UUID)
			return nvml.SUCCESS
		}
	}
	return d
}

func (d *driver) device(i int) *server.Device { return d.Devices[i].(*server.Device) }

func (d *driver) listens(uuid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.registered, uuid)
}

func (d *driver) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sets
}

// xid is an event that names no MIG instance.
func xid(dev nvml.Device, code uint64) nvml.EventData {
	return nvml.EventData{
		Device: dev, EventType: nvml.EventTypeXidCriticalError, EventData: code,
		GpuInstanceId: 0xFFFFFFFF, ComputeInstanceId: 0xFFFFFFFF,
	}
}

// startWatch runs a watch until the end of the test.
func startWatch(t *testing.T, lib nvml.Interface) *watch {
	t.Helper()
	w := newWatch(lib, t.Logf)
	w.slice = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	go w.run(ctx)
	t.Cleanup(func() {
		cancel()
		<-w.done
	})
	return w
}

// seeAll lets a watch listen to all devices.
func (w *watch) seeAll(t *testing.T, d *driver) {
	t.Helper()
	for _, dev := range d.Devices {
		w.see(gpu{handle: dev, uuid: dev.(*server.Device).UUID})
	}
	if !w.settle(t.Context(), func() {}) {
		t.Fatal("the devices were not registered")
	}
}

func TestWatchCountsEqualEventsThatWereNotTaken(t *testing.T) {
	d := newDriver()
	w := startWatch(t, d)
	w.seeAll(t, d)
	for range 3 {
		d.answers <- answer{xid(d.device(1), 13), nvml.SUCCESS}
	}
	d.answers <- answer{xid(d.device(1), 79), nvml.SUCCESS}
	d.answers <- answer{nvml.EventData{Device: d.device(1), EventType: nvml.EventTypeClock}, nvml.SUCCESS} // not asked for
	d.answers <- answer{nvml.EventData{EventType: nvml.EventTypeDoubleBitEccError}, nvml.SUCCESS}
	d.answers <- answer{ret: nvml.ERROR_TIMEOUT} // it has heard the one before
	got := w.take()
	for i := range got {
		got[i].At = time.Time{}
	}
	uuid := d.device(1).UUID
	want := []device.Event{
		{UUID: uuid, Kind: device.EventXID, XID: 13, Count: 3},
		{UUID: uuid, Kind: device.EventXID, XID: 79, Count: 1},
		{Kind: device.EventUncorrected, Count: 1}, // of a device that nobody knows
	}
	if !slices.Equal(got, want) {
		t.Errorf("heard %+v, want %+v", got, want)
	}
	if again := w.take(); again != nil {
		t.Errorf("they were taken, and are there again: %+v", again)
	}
}

// storm is one kind of event more than the watch has room for.
func (d *driver) storm() {
	for code := range uint64(heardMax + 1) {
		d.answers <- answer{xid(d.device(0), code), nvml.SUCCESS}
	}
}

func TestWatchLeavesTheRestToTheDriverWhenFull(t *testing.T) {
	d := newDriver()
	w := startWatch(t, d)
	w.seeAll(t, d)
	d.storm()
	select { // the last one waits for room, and the driver is not asked meanwhile
	case d.answers <- answer{ret: nvml.ERROR_TIMEOUT}:
		t.Error("it asks for more than it has room for")
	case <-time.After(10 * w.slice):
	}
	if w.stuck() {
		t.Error("it counts as stuck, and the driver has no call of it")
	}
	if n := len(w.take()); n != heardMax {
		t.Errorf("%d events, want %d", n, heardMax)
	}
	wait.Until(t, "the last one is heard", func() bool { return len(w.take()) == 1 })
}

// A storm must not keep a device that comes in it from being settled.
func TestWatchSettlesThoughItIsFull(t *testing.T) {
	d := newDriver()
	w := startWatch(t, d)
	w.seeAll(t, d)
	d.storm()
	w.see(gpu{handle: d.device(1), uuid: "GPU-new"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	heard := 0
	if !w.settle(ctx, func() { heard += len(w.take()) }) {
		t.Fatal("it does not settle")
	}
	wait.Until(t, "all is heard", func() bool { heard += len(w.take()); return heard == heardMax+1 })
}

func TestWatchMakesASetThatWentBadAnew(t *testing.T) {
	d := newDriver()
	w := startWatch(t, d)
	w.seeAll(t, d)
	lost, well := d.device(3), d.device(5)
	d.answers <- answer{ret: nvml.ERROR_TIMEOUT}
	lost.RegisterEventsFunc = func(uint64, nvml.EventSet) nvml.Return { return nvml.ERROR_GPU_IS_LOST }
	d.answers <- answer{ret: nvml.ERROR_GPU_IS_LOST}
	d.answers <- answer{xid(well, 79), nvml.SUCCESS}
	wait.Until(t, "the event of another device is heard", func() bool {
		events := w.take()
		return len(events) == 1 && events[0].UUID == well.UUID
	})
	if d.count() != 2 || d.listens(lost.UUID) || !d.listens(well.UUID) {
		t.Errorf("%d sets, the last with %v, want a second one without the lost device", d.count(), d.registered)
	}
}

// A driver that refuses at once must not be asked in a busy loop.
func TestWatchPausesWhereSetAfterSetGoesBad(t *testing.T) {
	d := newDriver()
	d.EventSetWaitFunc = func(nvml.EventSet, uint32) (nvml.EventData, nvml.Return) { return nvml.EventData{}, nvml.ERROR_UNKNOWN }
	w := startWatch(t, d)
	w.seeAll(t, d)
	began, before := time.Now(), d.count()
	wait.Until(t, "three more sets", func() bool { return d.count() >= before+3 })
	// One may begin early, for a device that came meanwhile.
	if sets, most := d.count()-before, int(time.Since(began)/listenPause)+2; sets > most {
		t.Errorf("%d sets in %s, want %d at most", sets, time.Since(began), most)
	}
}

// A driver that has no events at all holds no inventory up, not even one with a
// device that comes in the pause.
func TestWatchSettlesWithoutEvents(t *testing.T) {
	d := newDriver()
	d.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) { return nil, unsupported }
	w := startWatch(t, d)
	w.seeAll(t, d)
	for _, uuid := range []string{"GPU-new", "GPU-newer", "GPU-newest", "GPU-last"} {
		w.see(gpu{handle: d.device(0), uuid: uuid})
		if !w.settle(t.Context(), func() {}) {
			t.Fatal("it does not settle")
		}
	}
}

// Who relies on XIDs must learn that none will come.
func TestInventoryComplainsWhileNothingIsHeard(t *testing.T) {
	d := newDriver()
	var refuses atomic.Bool
	refuses.Store(true)
	create := d.EventSetCreateFunc
	d.EventSetCreateFunc = func() (nvml.EventSet, nvml.Return) {
		if refuses.Load() {
			return nil, nvml.ERROR_NO_PERMISSION
		}
		return create()
	}
	r := startRun(t, d, options{interval: 5 * time.Millisecond, heartbeat: time.Hour})
	r.next("the complaint", func(r device.Report) bool {
		return len(r.Devices) > 0 && slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, "XIDs") })
	})
	refuses.Store(false)
	r.next("an inventory without it", func(r device.Report) bool { return len(r.Devices) > 0 && len(r.Problems) == 0 })
}

func TestWatchOfDevicesWithoutEventsAsksNothing(t *testing.T) {
	d := newDriver()
	for i := range d.Devices {
		d.device(i).GetSupportedEventTypesFunc = func() (uint64, nvml.Return) { return 0, unsupported }
	}
	d.EventSetWaitFunc = func(nvml.EventSet, uint32) (nvml.EventData, nvml.Return) {
		t.Error("it waits for events of nobody")
		return nvml.EventData{}, nvml.ERROR_TIMEOUT
	}
	w := startWatch(t, d)
	w.seeAll(t, d)
	added := &server.Device{UUID: "GPU-new"}
	asked := make(chan struct{})
	added.GetSupportedEventTypesFunc = func() (uint64, nvml.Return) {
		close(asked)
		return 0, nvml.SUCCESS
	}
	w.see(gpu{handle: added, uuid: "GPU-new"})
	<-asked
}

func TestWatchNamesMIGInstances(t *testing.T) {
	w := newWatch(complete(dgxa100.New()), t.Logf)
	dev := w.lib.(*server.Server).Devices[0]
	w.see(gpu{dev, "GPU-a", []instance{{"MIG-x", 1, 0}, {"MIG-y", 1, 1}, {"MIG-z", 2, 0}}})
	for _, c := range []struct {
		name   string
		gi, ci uint32
		want   []string
	}{
		{"Named", 1, 1, []string{"MIG-y"}},
		{"OfAGPUInstance", 1, 0xFFFFFFFF, []string{"MIG-x", "MIG-y"}},
		{"OfNone", 0xFFFFFFFF, 0xFFFFFFFF, []string{"GPU-a"}},
		{"OfOneThatIsGone", 5, 0, []string{"GPU-a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.whose(nvml.EventData{Device: dev, GpuInstanceId: c.gi, ComputeInstanceId: c.ci})
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// What was heard before an inventory is written before it.
func TestRunWritesEventsBeforeTheInventoryThatFollows(t *testing.T) {
	d := newDriver()
	asked, leave := make(chan struct{}), make(chan struct{})
	first := true
	d.device(7).GetUUIDFunc = func() (string, nvml.Return) {
		if !first {
			asked <- struct{}{}
			<-leave
		}
		first = false
		return d.device(7).UUID, nvml.SUCCESS
	}
	r := startRun(t, d, options{interval: time.Hour, heartbeat: time.Hour})
	r.next("the first inventory", isInventory)
	// The pause after a line of events must not put those behind the inventory that
	// come in it.
	d.answers <- answer{xid(d.device(7), 13), nvml.SUCCESS}
	r.next("an event", func(l device.Report) bool { return l.Events != nil })
	if !r.in.hear("look 1\n") {
		t.Fatal("the look is not understood")
	}
	<-asked // the inventory is under way
	d.answers <- answer{xid(d.device(7), 48), nvml.SUCCESS}
	d.answers <- answer{ret: nvml.ERROR_TIMEOUT} // it was heard
	leave <- struct{}{}
	events := r.next("a line", func(device.Report) bool { return true })
	if len(events.Events) != 1 || events.Events[0].XID != 48 {
		t.Errorf("the next line is %+v, want the event", events)
	}
	if got := r.next("the second inventory", isInventory); got.Look != 1 {
		t.Errorf("it answers look %d, want 1", got.Look)
	}
	r.stop()
	r.ends(0)
}
