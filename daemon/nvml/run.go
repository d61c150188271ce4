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

type options struct {
	interval, heartbeat time.Duration
	once                bool
}

// run reports until ctx ends or something fails, and returns the exit code. One
// goroutine does all of it, heartbeats included: while the driver keeps a call,
// nothing is written, and that is how gpuqd learns of it.
func run(ctx context.Context, lib nvml.Interface, out io.Writer, opts options) int {
	w := &writer{out: json.NewEncoder(out), last: time.Now()}
	if ret := lib.Init(); ret != nvml.SUCCESS {
		w.write(device.Report{Error: initError(lib, ret)})
		return device.ExitNoDriver
	}
	defer lib.Shutdown()
	s := newSampler(lib, func() {
		if !opts.once {
			w.beat(opts.heartbeat)
		}
	})
	for {
		r := s.inventory()
		w.write(r)
		switch {
		case w.err != nil, r.Error != nil:
			return 1 // gpuqd starts another, which initialises NVML afresh
		case opts.once:
			return 0
		}
		if !w.rest(ctx, opts) {
			return w.code()
		}
	}
}

// writer writes reports until the first one fails.
type writer struct {
	out  *json.Encoder
	last time.Time // of the last line
	err  error     // why nothing more can be written
}

func (w *writer) write(r device.Report) {
	if w.err != nil {
		return
	}
	r.Version = device.WireVersion
	w.err = w.out.Encode(r)
	w.last = time.Now()
}

// beat writes a sign of life if none was written for so long.
func (w *writer) beat(every time.Duration) {
	if time.Since(w.last) >= every {
		w.write(device.Report{Heartbeat: true})
	}
}

// rest waits for the next inventory with signs of life; false means to end.
func (w *writer) rest(ctx context.Context, opts options) bool {
	next := time.NewTimer(opts.interval)
	defer next.Stop()
	beat := time.NewTicker(opts.heartbeat)
	defer beat.Stop()
	for w.err == nil {
		select {
		case <-next.C:
			return ctx.Err() == nil
		case <-beat.C:
			w.write(device.Report{Heartbeat: true})
		case <-ctx.Done():
			return false
		}
	}
	return false
}

func (w *writer) code() int {
	if w.err != nil {
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

func initError(lib nvml.Interface, ret nvml.Return) *device.ReportError {
	if e, ok := initErrors[ret]; ok {
		return &e
	}
	return &device.ReportError{
		Kind:    device.DriverFailed,
		Message: fmt.Sprintf("NVML did not initialise: %s; run nvidia-smi and look at the kernel log", lib.ErrorString(ret)),
	}
}
