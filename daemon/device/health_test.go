package device

import (
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/job"
)

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

// A driver that still names a device and says that it is lost means the same as one
// that names it no more; so does one that asks for a reset.
func TestDeviceThatSaysItIsLostFailsItsAttempts(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"Lost":  func(f *Facts) { f.Sick, f.Lost = "open: GPU is lost", true },
		"Reset": func(f *Facts) { f.Recovery = RecoveryReset },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Options{}, "a", "b")
			b.grant("runs", 1, "a")
			b.grant("over", 1, "b")
			b.Release("over", 1) // and the driver says so in the look that follows
			b.set("a", change)
			b.set("b", change)
			b.report()
			if got := b.alarmed(); len(got) != 1 || got[0].JobID != "runs" {
				t.Errorf("alarms %+v", got)
			}
			for _, id := range []job.ID{"runs", "over"} {
				if f := b.Faults(id, 1); len(f.Device) != 1 {
					t.Errorf("faults of %s: %+v", id, f)
				}
			}
			b.Recall("found", 1, []string{"a"})
			if f := b.Faults("found", 1); len(f.Device) != 1 {
				t.Errorf("faults of one found ended: %+v", f)
			}
		})
	}
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
