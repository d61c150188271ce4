package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"gpuqd/daemon/device"
)

// eventsPause lies between two lines of events at least, so that a storm of them is
// a count and not a flood.
const eventsPause = 100 * time.Millisecond

type options struct {
	interval, heartbeat, patience time.Duration
	library                       string
	once                          bool
}

// run reports until ctx ends or something fails, and returns the exit code. It owns
// the inventory and all that is written; the watch waits for events beside it.
func run(ctx context.Context, lib nvml.Interface, in *input, out io.Writer, opts options, note func(string, ...any)) int {
	w := &writer{out: json.NewEncoder(out), last: time.Now()}
	if ret := lib.Init(); ret != nvml.SUCCESS {
		w.write(device.Report{Error: initError(lib, ret, opts.library)})
		return device.ExitNoDriver
	}
	if opts.once {
		defer lib.Shutdown()
		s := newSampler(lib, opts.patience, func() {}, func(gpu) {})
		defer s.leave()
		w.write(s.inventory())
		return w.code()
	}
	w.watch = newWatch(lib, note)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newSampler(lib, opts.patience, func() { w.beat(opts.heartbeat) }, w.watch.see)
	for first := true; ; first = false {
		look := in.take() // before the sampling: what is asked for later is answered later
		r := s.inventory()
		r.Look = look
		if first { // with all devices at once
			go w.watch.run(ctx)
			defer w.shutdown(lib, cancel)
			defer s.leave()
		}
		if !w.watch.settle(ctx, w.writeEvents) { // what happens to a device that gpuqd knows of is heard
			return w.code()
		}
		w.writeEvents() // they were heard before
		if problem := w.watch.problem(); problem != "" {
			r.Problems = append(r.Problems, problem)
		}
		w.write(r)
		if w.failed || !w.rest(ctx, in, opts) {
			return w.code()
		}
	}
}

// shutdown ends the watch, then NVML: the library must not go while a call is in it.
func (w *writer) shutdown(lib nvml.Interface, cancel context.CancelFunc) {
	cancel()
	if w.watch.stop() {
		lib.Shutdown()
	}
}

// writer writes reports until the first one fails, or one is an error: then gpuqd
// starts another helper, which initialises NVML afresh.
type writer struct {
	out    *json.Encoder
	watch  *watch    // nil with --once
	last   time.Time // of the last line
	events time.Time // of the last line with events
	failed bool      // nothing more is to be written
}

func (w *writer) write(r device.Report) {
	if w.failed {
		return
	}
	r.Version = device.WireVersion
	w.failed = w.out.Encode(r) != nil || r.Error != nil
	w.last = time.Now()
}

// writeEvents writes what the watch has heard.
func (w *writer) writeEvents() {
	if events := w.watch.take(); events != nil {
		w.write(device.Report{Events: events})
		w.events = w.last
	}
}

// beat tells of progress in the inventory: events first, and a sign of life if
// nothing was written for so long.
func (w *writer) beat(every time.Duration) {
	if w.watch.stuck() {
		return
	}
	if time.Since(w.events) >= eventsPause {
		w.writeEvents()
	}
	if time.Since(w.last) >= every {
		w.write(device.Report{Heartbeat: true})
	}
}

// rest waits for the next inventory, or for a look, with signs of life and events;
// false means to end. While the driver keeps the watch's call it waits on, in
// silence.
func (w *writer) rest(ctx context.Context, in *input, opts options) bool {
	next := time.NewTimer(opts.interval)
	defer next.Stop()
	beat := time.NewTicker(opts.heartbeat)
	defer beat.Stop()
	events := time.NewTimer(0) // when the next line of events may come
	events.Stop()
	defer events.Stop()
	due := false
	for !w.failed && (!due || w.watch.stuck()) {
		select {
		case <-next.C:
			due = true
		case <-in.asked:
			due = true
		case <-beat.C:
			if !w.watch.stuck() {
				w.write(device.Report{Heartbeat: true})
			}
		case <-w.watch.heard:
			events.Reset(max(0, eventsPause-time.Since(w.events)))
		case <-events.C:
			w.writeEvents()
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil && !w.failed
}

func (w *writer) code() int {
	if w.failed {
		return 1
	}
	return 0
}

// initErrors says, for each way in which NVML does not initialise, what that
// means and what to do. Source: nvmlReturn_t in nvml.h.
var initErrors = map[nvml.Return]device.ReportError{
	nvml.ERROR_LIBRARY_NOT_FOUND: {
		Kind:    device.NoDriver,
		Message: "libnvidia-ml.so.1 is not there: install the NVIDIA driver, or configure simulated devices or none",
	},
	nvml.ERROR_DRIVER_NOT_LOADED: {
		Kind:    device.NoDriver,
		Message: "the NVIDIA kernel module is not loaded: modprobe nvidia, and look at the kernel log",
	},
	nvml.ERROR_LIB_RM_VERSION_MISMATCH: {
		Kind:    device.DriverMismatch,
		Message: "the NVIDIA library and kernel module are of different versions, as after an update: restart the host",
	},
	nvml.ERROR_NO_PERMISSION: {
		Kind:    device.DriverFailed,
		Message: "gpuqd-device may not open /dev/nvidiactl: look at its permissions and at DeviceAllow= of the unit",
	},
}

// initError explains a failure of the library; path is where it was told to be, ""
// for anywhere.
func initError(lib nvml.Interface, ret nvml.Return, path string) *device.ReportError {
	if ret == nvml.ERROR_LIBRARY_NOT_FOUND && path != "" {
		return &device.ReportError{
			Kind:    device.NoDriver,
			Message: fmt.Sprintf("%s cannot be loaded: correct device.library, or leave it out where the NVIDIA driver is installed", path),
		}
	}
	if e, ok := initErrors[ret]; ok {
		return &e
	}
	return &device.ReportError{
		Kind:    device.DriverFailed,
		Message: fmt.Sprintf("NVML did not initialise: %s; run nvidia-smi and look at the kernel log", lib.ErrorString(ret)),
	}
}
