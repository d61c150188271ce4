package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/control"
	"gpuqd/daemon/device"
	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/daemon/ledger"
	"gpuqd/daemon/runner"
)

func TestExitIsWeighedAgainstItsDevices(t *testing.T) {
	xid79, xid31 := []string{"device 0: XID 79 (GPU has fallen off the bus) at 12:00:00Z"}, []string{"device 0: XID 31 (GPU memory page fault) at 12:00:00Z"}
	for name, c := range map[string]struct {
		exit   runner.Exit
		faults device.Faults
		class  job.Class
		says   []string
	}{
		"Success":                 {runner.Exit{}, device.Faults{}, "", nil},
		"SuccessOverAFault":       {runner.Exit{}, device.Faults{Device: xid79}, job.ClassDevice, []string{"cannot be trusted", "XID 79", "exited with 0"}},
		"UserOverAFault":          {runner.Exit{Class: job.ClassUser, Code: 3, Reason: "exit code 3"}, device.Faults{Device: xid79}, job.ClassDevice, []string{"XID 79", "exit code 3"}},
		"KilledOverAFault":        {runner.Exit{Class: job.ClassKilled, Reason: "killed"}, device.Faults{Device: xid79}, job.ClassKilled, []string{"killed; device 0: XID 79"}},
		"SuccessWithApplication":  {runner.Exit{}, device.Faults{Application: xid31}, "", nil},
		"UserWithApplication":     {runner.Exit{Class: job.ClassUser, Reason: "exit code 1"}, device.Faults{Application: xid31}, job.ClassUser, []string{"exit code 1; device 0: XID 31"}},
		"SuccessNotLookedAt":      {runner.Exit{}, device.Faults{Unlooked: "silent"}, "", nil},
		"UserNotLookedAt":         {runner.Exit{Class: job.ClassUser}, device.Faults{Unlooked: "silent"}, job.ClassUser, []string{"not looked at after it: silent"}},
		"FaultBeforeItWasUnknown": {runner.Exit{}, device.Faults{Device: xid79, Unlooked: "silent"}, job.ClassDevice, []string{"XID 79", "silent"}},
	} {
		got := weighed(c.exit, c.faults)
		if got.Class != c.class || got.Code != c.exit.Code || c.says == nil && got.Reason != "" {
			t.Errorf("%s: %+v", name, got)
		}
		for _, text := range c.says {
			if !strings.Contains(got.Reason, text) {
				t.Errorf("%s: %q does not say %q", name, got.Reason, text)
			}
		}
	}
}

// ends is an attempt whose command exits when it is told to, or stopped.
type ends struct {
	Attempt
	exit  chan runner.Exit
	stops chan runner.Stop
}

func (e *ends) RequestStop(s runner.Stop) error { e.stops <- s; return nil }
func (e *ends) Wait(ctx context.Context) (*runner.Exit, error) {
	select {
	case exit := <-e.exit:
		return &exit, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
func (*ends) LogTail(int) ([]byte, error) { return nil, nil }
func (*ends) MarkCommitted(string) error  { return nil }
func (*ends) MarkDiscarded(string) error  { return nil }

// running drives an attempt on the host's first device.
func (b operateBench) running(t *testing.T, ctx context.Context) (*run, *ends) {
	t.Helper()
	r := b.claimAs(t, "ada", device.SimulatedUUID("a", 0))
	e := &ends{exit: make(chan runner.Exit), stops: make(chan runner.Stop, 1)}
	r.attempt, r.adopted = e, true
	b.work.Go(func() { r.drive(ctx) })
	return r, e
}

func (b operateBench) inject(t *testing.T, f fault.Fault) {
	t.Helper()
	if err := b.devices.Inject(f); err != nil {
		t.Fatal(err)
	}
}

// The whole way: a device fails under an attempt whose command exits with 0 all the
// same; its job is queued again at no cost, and the device takes nothing.
func TestSuccessOverAFaultOfTheDeviceIsNone(t *testing.T) {
	for name, f := range map[string]fault.Fault{
		"XID": {Kind: fault.XID, Device: "0", XID: 79},
		"ECC": {Kind: fault.Uncorrected, Device: "0"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newOperateBench(t)
			ctx := runFor(t, b.leaseBench)
			r, e := b.running(t, ctx)
			b.inject(t, f)
			e.exit <- runner.Exit{DurationSeconds: 1}
			b.work.Wait()
			j := b.stored(t, r.hold.JobID)
			if j.State != job.Queued || j.Failures != 0 || j.Requeues != 1 || !strings.Contains(j.Reason, "cannot be trusted") {
				t.Errorf("the job is %s with %d failures and %d requeues: %s", j.State, j.Failures, j.Requeues, j.Reason)
			}
			if free := b.view().Free; len(free) != 1 {
				t.Errorf("free are %+v, want the other device", free)
			}
		})
	}
}

func TestApplicationXIDExplainsAFailure(t *testing.T) {
	b := newOperateBench(t)
	ctx := runFor(t, b.leaseBench)
	r, e := b.running(t, ctx)
	b.inject(t, fault.Fault{Kind: fault.XID, Device: "0", XID: 31})
	e.exit <- runner.Exit{Class: job.ClassUser, Code: 1, Reason: "exit code 1", DurationSeconds: 1}
	b.work.Wait()
	j := b.stored(t, r.hold.JobID)
	if j.State != job.Failed || !strings.Contains(j.Reason, "exit code 1; device 0: XID 31 (GPU memory page fault)") {
		t.Errorf("the job is %s: %s", j.State, j.Reason)
	}
	if free := b.view().Free; len(free) != 2 {
		t.Errorf("free are %+v, want both", free)
	}
}

// An alarm ends the attempt, and no other; while it lasts the attempt is asked again, in
// case the first request has not come through.
func TestAlarmEndsTheAttempt(t *testing.T) {
	b := newOperateBench(t)
	ctx := runFor(t, b.leaseBench)
	b.work.Go(func() { _ = b.alarmLoop(ctx) })
	r, e := b.running(t, ctx)
	b.inject(t, fault.Fault{Kind: fault.XID, Device: "0", XID: 79})
	stop := <-e.stops
	if stop.Reason != runner.StopDevice || !strings.Contains(stop.Detail, "device 0: XID 79") {
		t.Errorf("stopped with %+v", stop)
	}
	b.inject(t, fault.Fault{Kind: fault.XID, Device: "0", XID: 95})
	if again := <-e.stops; again != stop {
		t.Errorf("then stopped with %+v", again)
	}
	e.stops = nil // a stop for anything else would block
	b.endAlarmed(device.Alarm{JobID: r.hold.JobID, Attempt: r.number, Kind: device.AlarmMemory})
	b.endAlarmed(device.Alarm{JobID: r.hold.JobID, Attempt: r.number + 1, Kind: device.AlarmDevice})
	b.endAlarmed(device.Alarm{JobID: "gone", Attempt: 1, Kind: device.AlarmDevice})
	e.exit <- runner.Exit{Code: 143, Class: stop.Reason.Class(), StopReason: stop.Reason, StopDetail: stop.Detail, Reason: "a device failed: " + stop.Detail}
	if err := b.runs.waitEmpty(ctx); err != nil {
		t.Fatal(err)
	}
	if j := b.stored(t, r.hold.JobID); j.State != job.Queued || j.Failures != 0 || !strings.Contains(j.Reason, "a device failed") {
		t.Errorf("the job is %s with %d failures: %s", j.State, j.Failures, j.Reason)
	}
	for kind := range alarmStops {
		if alarmStops[kind].Class() != map[device.AlarmKind]job.Class{device.AlarmDevice: job.ClassDevice, device.AlarmMemory: job.ClassOOMGPU}[kind] {
			t.Errorf("%s is of class %s", kind, alarmStops[kind].Class())
		}
	}
}

// never is a source that answers no look, as a helper that hangs in the driver.
type never struct{}

func (never) Run(ctx context.Context, deliver func(device.Report)) error {
	deliver(device.Report{Devices: []device.Facts{{Device: device.Device{UUID: "GPU-1"}}}})
	<-ctx.Done()
	return nil
}
func (never) Look(uint64) {}

// A driver that hangs holds a result up for five seconds, and no longer.
func TestHungDriverHoldsNoResultUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		devices := device.New("a", never{}, nil)
		go func() { _ = devices.Run(ctx) }()
		<-devices.Ready()
		a := New(Options{Devices: devices})
		j := &job.Job{ID: job.NewID(), Attempt: 1, Owner: &job.Owner{}}
		r := newRun(a, j, []string{"GPU-1"})
		if err := devices.Acquire(j.ID, 1, r.devices, 0); err != nil {
			t.Fatal(err)
		}
		devices.Release(j.ID, 1)
		began := time.Now()
		exit := &runner.Exit{Class: job.ClassUser, Reason: "exit code 1"}
		r.weighDevices(ctx, exit)
		if took := time.Since(began); took != lookWait {
			t.Errorf("it took %s", took)
		}
		if exit.Class != job.ClassUser || !strings.Contains(exit.Reason, "not looked at after it") {
			t.Errorf("%+v", exit)
		}
		if free := devices.Free(); len(free) != 0 {
			t.Errorf("free are %+v, and nobody has looked", free)
		}
	})
}

func TestResumeEndsAQuarantine(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	b.inject(t, fault.Fault{Kind: fault.XID, Device: "1", XID: 79})
	uuid := device.SimulatedUUID("a", 1)
	if len(b.view().Free) != 1 {
		t.Fatal("the device is not in quarantine")
	}
	if _, err := b.Resume(ctx, ada, control.ResumeArgs{Host: "a", Device: "1"}); !errors.Is(err, control.ErrForbidden) {
		t.Errorf("a user ends a quarantine: %v", err)
	}
	for _, changed := range []bool{true, false} {
		got, err := b.Resume(ctx, operator, control.ResumeArgs{Host: "a", Device: "1"})
		if err != nil || got.Changed != changed || got.Device != uuid || len(b.view().Free) != 2 {
			t.Fatalf("%+v, %v, want changed %t", got, err, changed)
		}
	}
	if got := b.events(t); len(got) != 1 || !strings.HasPrefix(got[0], "resume a/"+uuid+" olga: ") {
		t.Errorf("events %q", got)
	}
	b.inject(t, fault.Fault{Kind: fault.Sick, Device: "1", Reason: "it burns"})
	got, err := b.Resume(ctx, operator, control.ResumeArgs{Host: "a", Device: "1"})
	if err != nil || !strings.Contains(got.Warning, "stays sick: ") {
		t.Errorf("%+v, %v", got, err)
	}
}

// Another host that is out of reach finds the resume at its next renewal, once; one
// that is asked does it at once.
func TestResumeReachesItsHostLater(t *testing.T) {
	b, ctx := newOperateBench(t), t.Context()
	b.addHost(t, "c", 1)
	if got, err := b.Resume(ctx, operator, control.ResumeArgs{Host: "c", Device: "0"}); err != nil || got.Changed {
		t.Errorf("resume of what is well: %+v, %v", got, err)
	}
	renew := func(state string) *ledger.Host {
		t.Helper()
		now, err := b.ledger.Host(ctx, "c")
		if err != nil {
			t.Fatal(err)
		}
		h, err := b.ledger.Renew(ctx, ledger.Renewal{
			Host: "c", Session: "session-c", Seq: now.Session.RenewSeq, TTL: b.cfg.Lease.TTL, Now: b.now(),
			Devices: []ledger.HostDevice{{UUID: device.SimulatedUUID("c", 0), State: state}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if h := renew("sick"); len(h.Resumes) != 0 {
		t.Errorf("%+v was left for nothing", h.Resumes)
	}
	for range 2 {
		got, err := b.Resume(ctx, operator, control.ResumeArgs{Host: "c", Device: "0"})
		if err != nil || !got.Changed || !strings.Contains(got.Warning, "at its next renewal") {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	h := renew("sick")
	if len(h.Resumes) != 1 || h.Resumes[0].Who != "olga" || h.Resumes[0].Device != device.SimulatedUUID("c", 0) || h.Resumes[0].Seq != 2 {
		t.Errorf("left are %+v", h.Resumes)
	}
}

// Jobs of two people that fail at once, one after the other, take the device out;
// a rehearsal and a kill between them say nothing.
func TestFastFailuresOpenABreaker(t *testing.T) {
	b := newOperateBench(t)
	b.devices = device.NewWith("a", &device.Simulated{Host: "a", Count: 2}, device.Options{BreakerFast: 30 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	over, devices := make(chan struct{}), b.devices
	go func() { defer close(over); _ = devices.Run(ctx) }()
	t.Cleanup(func() { cancel(); b.work.Wait(); <-over })
	<-devices.Ready()
	for i, user := range []string{"ada", "bob", "ada"} {
		if free := b.view().Free; len(free) != 2 {
			t.Fatalf("after %d failures free are %+v", i, free)
		}
		r := b.claimAs(t, user, device.SimulatedUUID("a", 0))
		e := &ends{exit: make(chan runner.Exit), stops: make(chan runner.Stop, 1)}
		r.attempt, r.adopted = e, true
		b.work.Go(func() { r.drive(ctx) })
		e.exit <- runner.Exit{Class: job.ClassUser, Code: 1, DurationSeconds: 1}
		if err := b.runs.waitEmpty(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if free := b.view().Free; len(free) != 1 {
		t.Errorf("free are %+v, want the other device", free)
	}
	got, err := b.Resume(t.Context(), operator, control.ResumeArgs{Host: "a", Device: "0"})
	if err != nil || !got.Changed || len(b.view().Free) != 2 {
		t.Errorf("resume: %+v, %v", got, err)
	}
}

func TestKindOfAJobIsItsSubmitterAndProgram(t *testing.T) {
	kind := func(user string, command ...string) string {
		return jobKind(&job.Job{Submitter: user, Spec: job.Spec{Command: command}})
	}
	if kind("ada", "python", "train.py", "--lr", "1") != kind("ada", "python", "train.py", "--lr", "2") {
		t.Error("arguments make another kind")
	}
	for _, other := range []string{kind("bob", "python", "train.py"), kind("ada", "python", "test.py"), kind("ada", "python")} {
		if other == kind("ada", "python", "train.py") {
			t.Errorf("%q is of the same kind", other)
		}
	}
}
