package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
	"go.uber.org/goleak"

	"gpuqd/daemon/device"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// running is a run whose lines are read as they come.
type running struct {
	t     *testing.T
	stop  context.CancelFunc
	in    *input
	out   *io.PipeReader
	wrote atomic.Int64       // lines that run has begun to write
	lines chan device.Report // closed with the output
	code  chan int
}

func startRun(t *testing.T, lib nvml.Interface, opts options) *running {
	t.Helper()
	opts.patience = cmp.Or(opts.patience, patience)
	ctx, stop := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	r := &running{t: t, stop: stop, in: newInput(), out: reader, lines: make(chan device.Report, 1000), code: make(chan int, 1)}
	go func() {
		code := run(ctx, lib, r.in, countingWriter{writer, &r.wrote}, opts, t.Logf)
		writer.Close()
		r.code <- code
	}()
	go func() {
		defer close(r.lines)
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			line, err := device.ParseLine(scanner.Bytes())
			if err != nil {
				t.Errorf("%s: %v", scanner.Bytes(), err)
			}
			r.lines <- line
		}
	}()
	t.Cleanup(func() {
		stop()
		reader.Close()
	})
	return r
}

// countingWriter counts writes; the encoder makes one of each line.
type countingWriter struct {
	io.Writer
	n *atomic.Int64
}

func (w countingWriter) Write(b []byte) (int, error) {
	w.n.Add(1)
	return w.Writer.Write(b)
}

// next returns the next line of which want is true.
func (r *running) next(what string, want func(device.Report) bool) device.Report {
	r.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("the output ended before %s", what)
			}
			if want(line) {
				return line
			}
		case <-timer.C:
			r.t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

func (r *running) ends(want int) {
	r.t.Helper()
	select {
	case code := <-r.code:
		if code != want {
			r.t.Errorf("exit code %d, want %d", code, want)
		}
	case <-time.After(patience):
		r.t.Fatal("it does not end")
	}
}

func isInventory(r device.Report) bool { return r.Devices != nil }
func isHeartbeat(r device.Report) bool { return r.Heartbeat }

func TestRunReportsAndBeatsUntilStopped(t *testing.T) {
	r := startRun(t, complete(dgxa100.New()), options{interval: 100 * time.Millisecond, heartbeat: 10 * time.Millisecond})
	for range 2 {
		if got := r.next("an inventory", isInventory); len(got.Devices) != 8 {
			t.Fatalf("%d devices, want 8", len(got.Devices))
		}
		r.next("a heartbeat", isHeartbeat)
	}
	r.stop()
	r.ends(0)
}

// trap is a call that the driver keeps from arm to leave, of some devices.
type trap struct {
	armed  atomic.Bool
	inside sync.WaitGroup // one per device, until the driver keeps its call
	gone   chan struct{}
	leave  func()
}

func newTrap(devices ...nvml.Device) *trap {
	p := &trap{gone: make(chan struct{})}
	p.leave = sync.OnceFunc(func() { close(p.gone) })
	p.inside.Add(len(devices))
	for _, d := range devices {
		d, once := d.(*server.Device), sync.OnceFunc(p.inside.Done)
		name := d.GetNameFunc
		d.GetNameFunc = func() (string, nvml.Return) {
			if p.armed.Load() {
				once()
				<-p.gone
			}
			return name()
		}
	}
	return p
}

func (p *trap) arm() { p.armed.Store(true) }

// The heartbeats must stop when the driver keeps all calls: they are how gpuqd
// learns of it.
func TestRunIsSilentWhileTheDriverHangs(t *testing.T) {
	lib := complete(dgxa100.New())
	driver := newTrap(lib.Devices[:]...)
	defer driver.leave()
	driver.arm()
	r := startRun(t, lib, options{interval: time.Hour, heartbeat: time.Millisecond, patience: time.Millisecond})
	driver.inside.Wait()
	before := r.wrote.Load()           // whoever has not answered has not stepped
	time.Sleep(100 * time.Millisecond) // 100 heartbeats that must not come
	if n := r.wrote.Load() - before; n > 0 {
		t.Errorf("it wrote %d lines while the driver hung", n)
	}
	driver.leave()
	r.next("the inventory after all", isInventory)
	r.stop()
	r.ends(0)
}

// A device that hangs alone costs the others nothing but its patience, and one time.
func TestRunGoesOnWithoutADeviceThatHangs(t *testing.T) {
	lib := complete(dgxa100.New())
	driver := newTrap(lib.Devices[3])
	defer driver.leave()
	r := startRun(t, lib, options{interval: 10 * time.Millisecond, heartbeat: time.Millisecond, patience: 20 * time.Millisecond})
	r.next("an inventory", isInventory)
	driver.arm()
	for range 3 {
		got := r.next("one that says so", func(r device.Report) bool { return isInventory(r) && r.Devices[3].Sick != "" })
		for i, d := range got.Devices {
			if (d.Sick == "") != (i != 3) || d.UUID != lib.Devices[i].(*server.Device).UUID || d.Lost {
				t.Errorf("device %d is sick as %q", i, d.Sick)
			}
		}
		if len(got.Devices) != 8 || !strings.Contains(got.Devices[3].Sick, "does not answer") {
			t.Errorf("%d devices; device 3 is sick as %q", len(got.Devices), got.Devices[3].Sick)
		}
	}
	driver.leave()
	r.next("it is well again", func(r device.Report) bool { return isInventory(r) && r.Devices[3].Sick == "" })
	r.stop()
	r.ends(0)
}

// One that hangs from the start cannot be named. The process does not end while the
// driver keeps its call.
func TestRunNamesADeviceThatHungFromTheStartOnceItAnswers(t *testing.T) {
	lib := complete(dgxa100.New())
	driver := newTrap(lib.Devices[3])
	defer driver.leave()
	driver.arm()
	r := startRun(t, lib, options{interval: 10 * time.Millisecond, heartbeat: time.Millisecond, patience: 20 * time.Millisecond})
	driver.inside.Wait()
	got := r.next("the others", isInventory)
	if len(got.Devices) != 7 || len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "device 3") {
		t.Errorf("%d devices, problems %q", len(got.Devices), got.Problems)
	}
	r.stop()
	select {
	case code := <-r.code:
		t.Errorf("it ended with %d inside the driver", code)
	case <-time.After(50 * time.Millisecond):
	}
	driver.leave()
	r.ends(0)
}

func TestRunOnce(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), complete(dgxa100.New()), newInput(), &out, options{once: true, patience: patience}, t.Logf); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	got, err := device.ParseLine(bytes.TrimSpace(out.Bytes()))
	if err != nil || len(got.Devices) != 8 {
		t.Errorf("%d devices (%v), want 8 in one line", len(got.Devices), err)
	}
}

func TestRunWithoutDriver(t *testing.T) {
	for _, c := range []struct {
		name string
		ret  nvml.Return
		want device.ErrorKind
	}{
		{"LibraryMissing", nvml.ERROR_LIBRARY_NOT_FOUND, device.NoDriver},
		{"ModuleNotLoaded", nvml.ERROR_DRIVER_NOT_LOADED, device.NoDriver},
		{"UpdatedUnderneath", nvml.ERROR_LIB_RM_VERSION_MISMATCH, device.DriverMismatch},
		{"NoPermission", nvml.ERROR_NO_PERMISSION, device.DriverFailed},
		{"AnythingElse", nvml.ERROR_UNKNOWN, device.DriverFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			lib := complete(dgxa100.New())
			lib.InitFunc = func() nvml.Return { return c.ret }
			var out bytes.Buffer
			if code := run(t.Context(), lib, newInput(), &out, options{once: true, patience: patience}, t.Logf); code != device.ExitNoDriver {
				t.Errorf("exit code %d, want %d", code, device.ExitNoDriver)
			}
			got, err := device.ParseLine(bytes.TrimSpace(out.Bytes()))
			if err != nil || got.Error == nil || got.Error.Kind != c.want || got.Error.Message == "" {
				t.Errorf("wrote %s (%v), want one error of kind %s", out.Bytes(), err, c.want)
			}
		})
	}
}

// A driver that fails later is initialised afresh, by a new process.
func TestRunEndsWhenTheDriverFails(t *testing.T) {
	lib := complete(dgxa100.New())
	count := 0
	lib.DeviceGetCountFunc = func() (int, nvml.Return) {
		if count++; count == 1 {
			return 8, nvml.SUCCESS
		}
		return 0, nvml.ERROR_UNKNOWN
	}
	r := startRun(t, lib, options{interval: time.Millisecond, heartbeat: time.Hour})
	r.next("the error", func(l device.Report) bool { return l.Error != nil && l.Error.Kind == device.DriverFailed })
	r.ends(1)
}

func TestRunEndsWithItsParent(t *testing.T) {
	t.Run("WhenOutputCloses", func(t *testing.T) {
		r := startRun(t, complete(dgxa100.New()), options{interval: time.Hour, heartbeat: time.Millisecond})
		r.next("an inventory", isInventory)
		r.out.CloseWithError(errors.New("nobody reads"))
		r.ends(1)
	})
	t.Run("WhenInputCloses", func(t *testing.T) {
		in, parent := io.Pipe()
		ctx := newInput().follow(t.Context(), in, t.Logf)
		if _, err := parent.Write([]byte("whatever")); err != nil || ctx.Err() != nil {
			t.Fatalf("it ended (%v) though the input is open (%v)", ctx.Err(), err)
		}
		parent.Close()
		select {
		case <-ctx.Done():
		case <-time.After(patience):
			t.Fatal("it does not end")
		}
	})
}
