package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuqd/daemon/device"
)

const (
	// waitSlice bounds one wait for events, and with it how long an end takes.
	waitSlice = 250 * time.Millisecond
	// stuckAfter is how long a call of the watch may take: it does nothing that takes
	// long but waiting, and that is bounded.
	stuckAfter = 2 * time.Second
	// listenPause lies between two sets of events when neither went well, doubled up to
	// listenPauseMax. After one that did the next comes at once: what happens between
	// two is not heard. A device that is lost fails every wait of its set.
	listenPause    = 250 * time.Millisecond
	listenPauseMax = 30 * time.Second
	// heardMax bounds the kinds of event that wait to be written. At the bound the
	// driver keeps the rest.
	heardMax = 256
)

// eventTypes is what the watch listens for, where a device has it.
const eventTypes = nvml.EventTypeXidCriticalError | nvml.EventTypeDoubleBitEccError

// watch hears what devices report as it happens. One goroutine, run's, makes its
// calls into the driver; NVML is thread-safe, so others may ask meanwhile. Equal
// events that were not yet taken are one with a count.
//
// Source: nvmlDeviceRegisterEvents and nvmlEventSetWait_v2 in nvml.h.
type watch struct {
	lib   nvml.Interface
	slice time.Duration
	note  func(format string, args ...any) // for a person who reads standard error

	came  chan struct{} // capacity 1: a GPU is there that was not
	tried chan struct{} // capacity 1: the GPUs that are there were registered, as far as they can be
	heard chan struct{} // capacity 1: events are there to be taken
	room  chan struct{} // capacity 1: they were taken
	done  chan struct{} // closed when run has returned

	mu      sync.Mutex
	gpus    []gpu // in the order in which they came
	offered int   // how many of them were registered once, or refused
	pending []device.Event
	deaf    string    // why nothing is heard; "" while it listens
	inCall  time.Time // when the call that the driver has now began; zero between calls
}

func newWatch(lib nvml.Interface, note func(string, ...any)) *watch {
	return &watch{
		lib: lib, slice: waitSlice, note: note,
		came: make(chan struct{}, 1), tried: make(chan struct{}, 1), heard: make(chan struct{}, 1), room: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one that nobody has seen yet covers this one
	}
}

// see takes note of a GPU and of the instances that it has now.
func (w *watch) see(g gpu) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.gpus {
		if w.gpus[i].uuid == g.uuid {
			w.gpus[i] = g
			return
		}
	}
	w.gpus = append(w.gpus, g)
	poke(w.came)
}

// settle waits until all GPUs seen were registered once, or refused: what happens
// from then on is heard. Meanwhile empty takes what is heard, for which the watch may
// wait. false means that ctx has ended.
func (w *watch) settle(ctx context.Context, empty func()) bool {
	for {
		w.mu.Lock()
		all := w.offered >= len(w.gpus)
		w.mu.Unlock()
		if all {
			return true
		}
		select {
		case <-w.tried:
		case <-w.heard:
			empty()
		case <-ctx.Done():
			return false
		}
	}
}

// take returns what was heard since the last call.
func (w *watch) take() []device.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.pending
	w.pending = nil
	poke(w.room)
	return events
}

// problem says for a person that nothing is heard, and why; "" while it listens.
func (w *watch) problem() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deaf == "" {
		return ""
	}
	return "XIDs and memory errors are not heard as they happen: the driver does not tell of events: " + w.deaf
}

func (w *watch) setDeaf(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = why
}

// stuck reports whether the driver keeps a call of the watch.
func (w *watch) stuck() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.inCall.IsZero() && time.Since(w.inCall) > w.slice+stuckAfter
}

// call makes one call into the driver.
func (w *watch) call(f func() nvml.Return) nvml.Return {
	w.setInCall(time.Now())
	defer w.setInCall(time.Time{})
	return f()
}

func (w *watch) setInCall(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inCall = t
}

// run listens until ctx ends. A set of events that goes bad is made anew, without
// the devices that are lost; the inventory says which those are.
func (w *watch) run(ctx context.Context) {
	defer close(w.done)
	pause, said := listenPause, nvml.SUCCESS
	for {
		ret, waited := w.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if waited {
			w.note("the driver stopped telling of events: %s; listening again", w.lib.ErrorString(ret))
			pause, said = listenPause, nvml.SUCCESS
			continue
		}
		w.setDeaf(w.lib.ErrorString(ret))
		if ret != said {
			w.note("the driver does not tell of events: %s; trying again", w.lib.ErrorString(ret))
			said = ret
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, listenPauseMax)
		case <-w.came: // settle waits for what becomes of it
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// listen listens with one set of events until ctx ends or the driver refuses, and
// returns its answer. waited says that it heard or waited in peace at least once.
func (w *watch) listen(ctx context.Context) (ret nvml.Return, waited bool) {
	var set nvml.EventSet
	if ret := w.call(func() (ret nvml.Return) {
		set, ret = w.lib.EventSetCreate()
		return ret
	}); ret != nvml.SUCCESS {
		w.offer(w.seen())
		return ret, false
	}
	defer w.call(func() nvml.Return { return w.lib.EventSetFree(set) })
	r := registered{tried: map[string]bool{}}
	for ctx.Err() == nil {
		if ret := w.register(set, &r); ret != nvml.SUCCESS {
			return ret, waited
		}
		if r.count == 0 { // nothing to wait for in the driver
			w.setDeaf(r.refused)
			select {
			case <-w.came:
			case <-ctx.Done():
			}
			continue
		}
		began := time.Now()
		var data nvml.EventData
		switch ret := w.call(func() (ret nvml.Return) {
			data, ret = w.lib.EventSetWait(set, uint32(w.slice.Milliseconds()))
			return ret
		}); ret {
		case nvml.SUCCESS:
			waited = true
			w.setDeaf("")
			if !w.hear(ctx, data) {
				return nvml.SUCCESS, waited
			}
		case nvml.ERROR_TIMEOUT:
			waited = true
			w.setDeaf("")
			// It may come early, when there was an interrupt; over and over would be a
			// busy loop.
			sleep(ctx, min(w.slice/10, w.slice-min(w.slice, time.Since(began))))
		default:
			return ret, waited
		}
	}
	return nvml.SUCCESS, waited
}

func (w *watch) seen() []gpu {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.gpus)
}

// offer takes note that GPUs were registered or refused.
func (w *watch) offer(gpus []gpu) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offered = max(w.offered, len(gpus))
	poke(w.tried)
}

// registered is which GPUs a set of events has been offered, by UUID, and how many
// of them have events.
type registered struct {
	tried   map[string]bool
	count   int
	refused string // the driver's answer for one that has events and could not be registered
}

// register adds the GPUs that are new to a set. One that has no events is fine, and
// so is one that is lost.
func (w *watch) register(set nvml.EventSet, r *registered) nvml.Return {
	select {
	case <-w.came: // those are among the ones that follow
	default:
	}
	gpus := w.seen()
	defer w.offer(gpus)
	for _, g := range gpus {
		if r.tried[g.uuid] {
			continue
		}
		r.tried[g.uuid] = true
		var has uint64
		ret := w.call(func() (ret nvml.Return) {
			if has, ret = g.handle.GetSupportedEventTypes(); ret != nvml.SUCCESS || has&eventTypes == 0 {
				return nvml.ERROR_NOT_SUPPORTED
			}
			return g.handle.RegisterEvents(has&eventTypes, set)
		})
		switch ret {
		case nvml.SUCCESS:
			r.count++
		case nvml.ERROR_UNKNOWN: // "event set is in undefined state and should be freed"
			return ret
		case nvml.ERROR_NOT_SUPPORTED:
		default:
			if !isLost(ret) {
				r.refused = w.lib.ErrorString(ret)
			}
		}
	}
	return nvml.SUCCESS
}

// hear takes one event in. It waits where too many are there, and returns false
// when ctx ended meanwhile.
func (w *watch) hear(ctx context.Context, data nvml.EventData) bool {
	e := device.Event{Count: 1, At: time.Now()}
	switch {
	case data.EventType&nvml.EventTypeXidCriticalError != 0:
		e.Kind, e.XID = device.EventXID, int(data.EventData)
	case data.EventType&nvml.EventTypeDoubleBitEccError != 0:
		e.Kind = device.EventUncorrected
	default:
		return true
	}
	for _, uuid := range w.whose(data) {
		e.UUID = uuid
		for !w.add(e) {
			select {
			case <-w.room:
			case <-ctx.Done():
				return false
			}
		}
	}
	poke(w.heard)
	return true
}

// add counts an event; false means that there is no room for one of its kind.
func (w *watch) add(e device.Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.pending {
		if p := &w.pending[i]; p.UUID == e.UUID && p.Kind == e.Kind && p.XID == e.XID {
			p.Count++
			return true
		}
	}
	if len(w.pending) >= heardMax {
		poke(w.heard)
		return false
	}
	w.pending = append(w.pending, e)
	return true
}

// whose returns the UUIDs of the devices that an event is about: the MIG instances
// that it names, else the GPU, else nobody's name. An event that names a GPU
// instance alone is about each compute instance in it.
//
// Source: nvmlEventData_t in nvml.h; the numbers are all ones where it names none.
func (w *watch) whose(data nvml.EventData) []string {
	const none = 0xFFFFFFFF
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.gpus {
		if g.handle != data.Device {
			continue
		}
		var uuids []string
		for _, i := range g.instances {
			if i.gi == data.GpuInstanceId && (data.ComputeInstanceId == none || i.ci == data.ComputeInstanceId) {
				uuids = append(uuids, i.uuid)
			}
		}
		if uuids == nil {
			uuids = []string{g.uuid}
		}
		return uuids
	}
	return []string{""}
}

// stop waits for the end of run, whose ctx has ended. false means that the driver
// keeps its call.
func (w *watch) stop() bool {
	timer := time.NewTimer(w.slice + stuckAfter)
	defer timer.Stop()
	select {
	case <-w.done:
		return true
	case <-timer.C:
		return false
	}
}
