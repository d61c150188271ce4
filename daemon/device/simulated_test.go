package device

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
	"gpuqd/test/wait"
)

// heard is what a source has said.
type heard struct {
	mu   sync.Mutex
	said []Report
	each func(Report) // called for each; nil is nothing
}

func (h *heard) take(r Report) {
	h.mu.Lock()
	h.said = append(h.said, r)
	each := h.each
	h.mu.Unlock()
	if each != nil {
		each(r)
	}
}

func (h *heard) reports() []Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.said)
}

func (h *heard) last(t *testing.T) Report {
	t.Helper()
	all := h.reports()
	if len(all) == 0 {
		t.Fatal("nothing was said")
	}
	return all[len(all)-1]
}

// simulate runs a source in a bubble of fake time.
func simulate(t *testing.T, s *Simulated, body func(h *heard)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := new(heard)
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- s.Run(ctx, h.take) }()
		synctest.Wait()
		body(h)
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

func twoDevices() *Simulated {
	return &Simulated{Host: "h", Count: 2, Model: "SIM", MemoryBytes: 8 << 30, Silence: 30 * time.Second}
}

func inject(t *testing.T, s *Simulated, f fault.Fault) {
	t.Helper()
	if err := s.Inject(f); err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	synctest.Wait()
}

// sleepFor waits in fake time.
func sleepFor(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestSimulatedWithoutFaults(t *testing.T) {
	t.Run("SaysOnceWhatThereIs", func(t *testing.T) {
		simulate(t, twoDevices(), func(h *heard) {
			sleepFor(24 * time.Hour)
			if len(h.reports()) != 1 || len(h.last(t).Devices) != 2 || h.last(t).Look != 0 {
				t.Errorf("%+v", h.reports())
			}
		})
	})
	t.Run("LooksWithinTheCall", func(t *testing.T) {
		s := twoDevices()
		s.Look(3) // before Run
		simulate(t, s, func(h *heard) {
			if h.last(t).Look != 3 {
				t.Errorf("the first inventory answers look %d, want 3", h.last(t).Look)
			}
			s.Look(7)
			if got := h.last(t); len(h.reports()) != 2 || got.Look != 7 || len(got.Devices) != 2 {
				t.Errorf("%+v", h.reports())
			}
			s.Look(5) // an older question, late
			if h.last(t).Look != 7 {
				t.Errorf("look %d after 7", h.last(t).Look)
			}
		})
	})
	t.Run("LookFromWithinADeliveryIsAnswered", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			h.mu.Lock()
			h.each = func(r Report) {
				if r.Look == 1 {
					s.Look(2)
				}
			}
			h.mu.Unlock()
			s.Look(1)
			if h.last(t).Look != 2 || len(h.reports()) != 3 {
				t.Errorf("%+v", h.reports())
			}
		})
	})
	t.Run("SaysNothingOnceItIsOver", func(t *testing.T) {
		s, h := twoDevices(), new(heard)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx, h.take); err != nil {
			t.Fatal(err)
		}
		s.Look(9)
		if len(h.reports()) != 1 {
			t.Errorf("%+v", h.reports())
		}
	})
}

func TestSimulatedMIG(t *testing.T) {
	s := twoDevices()
	s.MIG, s.ComputeCapability, s.Nodes = 7, "9.0", []string{"/dev/a", "/dev/b"}
	simulate(t, s, func(h *heard) {
		all := h.last(t).Devices
		if len(all) != 14 {
			t.Fatalf("%d instances, want 14", len(all))
		}
		seen := map[string]bool{}
		for i, d := range all {
			seen[d.UUID] = true
			parent := SimulatedUUID("h", i/7)
			if d.Index != i || d.ParentUUID != parent || d.MemoryBytes != 8<<30/7 || !d.Simulated || d.ComputeCapability != "9.0" ||
				d.Node != s.Nodes[i/7] || d.MIGProfile != "1g.1gb" || !strings.HasPrefix(d.UUID, SimulatedMIGPrefix) {
				t.Errorf("instance %d is %+v", i, d)
			}
		}
		if len(seen) != 14 {
			t.Errorf("%d UUIDs, want 14", len(seen))
		}
		inject(t, s, fault.Fault{Kind: fault.XID, Device: SimulatedUUID("h", 1), XID: 79})
		if e := h.last(t).Events; len(e) != 1 || e[0].UUID != SimulatedUUID("h", 1) {
			t.Errorf("XID of a GPU: %+v", e)
		}
		inject(t, s, fault.Fault{Kind: fault.Sick, Device: SimulatedUUID("h", 1), Reason: "it smokes"})
		for i, d := range h.last(t).Devices {
			if (d.Sick != "") != (i >= 7) {
				t.Errorf("instance %d is sick: %q", i, d.Sick)
			}
		}
	})
	for instances, profile := range map[int]string{1: "7g.8gb", 2: "3g.4gb", 3: "2g.2gb", 7: "1g.1gb"} {
		one := &Simulated{Host: "h", Count: 1, MemoryBytes: 8 << 30, MIG: instances}
		if got := one.devices(); len(got) != instances || got[0].MIGProfile != profile {
			t.Errorf("%d instances: %+v", instances, got)
		}
	}
}

func TestFaultsOfOneDevice(t *testing.T) {
	for name, c := range map[string]struct {
		fault fault.Fault
		want  func(*Facts) // on those of a well device
	}{
		"Recovery":    {fault.Fault{Kind: fault.Recovery, Action: "gpu_reset"}, func(f *Facts) { f.Recovery = RecoveryReset }},
		"Memory":      {fault.Fault{Kind: fault.Memory, MemoryBytes: 3 << 30}, func(f *Facts) { f.MemoryUsedBytes = 3 << 30 }},
		"Throttle":    {fault.Fault{Kind: fault.Throttle, Reason: "hot"}, func(f *Facts) { f.Throttle = []string{"hot"} }},
		"Temperature": {fault.Fault{Kind: fault.Temperature, Celsius: 95}, func(f *Facts) { f.TemperatureCelsius = new(95) }},
		"Sick":        {fault.Fault{Kind: fault.Sick, Reason: "it smokes"}, func(f *Facts) { f.Sick = "it smokes" }},
	} {
		t.Run(name, func(t *testing.T) {
			s := twoDevices()
			simulate(t, s, func(h *heard) {
				well := h.last(t).Devices
				c.fault.Device, c.fault.For = "1", job.Duration(time.Minute)
				inject(t, s, c.fault)
				want := slices.Clone(well)
				c.want(&want[1])
				want[1].Faults = []string{c.fault.String()}
				if got := h.last(t).Devices; !reflect.DeepEqual(got, want) {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
				sleepFor(59 * time.Second)
				if got := h.last(t).Devices; !reflect.DeepEqual(got, want) {
					t.Errorf("it is over too soon: %+v", got)
				}
				sleepFor(time.Second)
				if got := h.last(t).Devices; !reflect.DeepEqual(got, well) {
					t.Errorf("it is not over: %+v", got)
				}
				said := len(h.reports())
				sleepFor(time.Hour)
				if len(h.reports()) != said {
					t.Error("it goes on talking with nothing to say")
				}
				c.fault.For = 0
				inject(t, s, c.fault)
				inject(t, s, fault.Fault{Kind: fault.Clear, Device: "1"})
				if got := h.last(t).Devices; !reflect.DeepEqual(got, well) {
					t.Errorf("not cleared: %+v", got)
				}
			})
		})
	}
	t.Run("XIDIsSaidOnce", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			now := time.Now()
			inject(t, s, fault.Fault{Kind: fault.XID, Device: SimulatedUUID("h", 0)[:15], XID: 79, Count: 3})
			want := []Event{{UUID: SimulatedUUID("h", 0), Kind: EventXID, XID: 79, Count: 3, At: now}}
			if got := h.last(t); !reflect.DeepEqual(got.Events, want) || len(got.Devices) != 2 {
				t.Errorf("%+v", got)
			}
			s.Look(1)
			if got := h.last(t).Events; got != nil {
				t.Errorf("said again: %+v", got)
			}
		})
	})
	t.Run("ErrorsAreCounted", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			inject(t, s, fault.Fault{Kind: fault.Uncorrected, Device: "0"})
			inject(t, s, fault.Fault{Kind: fault.Uncorrected, Device: "all", Count: 2})
			got := h.last(t)
			if a, b := got.Devices[0].ECC, got.Devices[1].ECC; a.Uncorrected != 3 || b.Uncorrected != 2 || a.UncorrectedAggregate != 3 {
				t.Errorf("%+v %+v", a, b)
			}
			if len(got.Events) != 2 || got.Events[1].Kind != EventUncorrected || got.Events[1].Count != 2 {
				t.Errorf("%+v", got.Events)
			}
		})
	})
	t.Run("QuietErrorsAreSeenWithTheNextLook", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			s.Look(1)
			inject(t, s, fault.Fault{Kind: fault.Uncorrected, Device: "0", Count: 2, Quiet: true})
			inject(t, s, fault.Fault{Kind: fault.Uncorrected, Device: "1", Quiet: true})
			inject(t, s, fault.Fault{Kind: fault.Clear, Device: "1"})
			inject(t, s, fault.Fault{Kind: fault.Temperature, Device: "1", Celsius: 60}) // is looked at all the time, and nobody asks
			sleepFor(time.Minute)
			if got := h.last(t); got.Devices[0].ECC.Uncorrected != 0 || len(got.Events) != 0 {
				t.Errorf("they are seen: %+v", got)
			}
			s.Look(2)
			s.Look(3)
			if got := h.last(t); got.Devices[0].ECC.Uncorrected != 2 || got.Devices[0].ECC.UncorrectedAggregate != 2 || got.Devices[1].ECC.Uncorrected != 0 {
				t.Errorf("%+v", got.Devices)
			}
			for _, r := range h.reports() {
				if len(r.Events) > 0 {
					t.Errorf("they are told of: %+v", r.Events)
				}
			}
		})
	})
	t.Run("LostDeviceIsNotNamed", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			inject(t, s, fault.Fault{Kind: fault.Lost, Device: "0"})
			if got := h.last(t).Devices; len(got) != 1 || got[0].Index != 1 {
				t.Errorf("%+v", got)
			}
			inject(t, s, fault.Fault{Kind: fault.Back, Device: "0"})
			if got := h.last(t).Devices; len(got) != 2 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("SameAgainReplacesItAndOthersAddUp", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			for _, f := range []fault.Fault{
				{Kind: fault.Memory, MemoryBytes: 1 << 30},
				{Kind: fault.Memory, MemoryBytes: 2 << 30},
				{Kind: fault.Throttle, Reason: "hot"},
				{Kind: fault.Throttle, Reason: "hot"},
				{Kind: fault.Throttle, Reason: "power"},
			} {
				f.Device = "0"
				inject(t, s, f)
			}
			if got := h.last(t).Devices[0]; got.MemoryUsedBytes != 2<<30 || !slices.Equal(got.Throttle, []string{"hot", "power"}) || len(got.Faults) != 3 {
				t.Errorf("%+v", got)
			}
		})
	})
}

func TestFaultsOfTheSource(t *testing.T) {
	t.Run("SilenceIsToldOnceAndAnswersNoLook", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			inject(t, s, fault.Fault{Kind: fault.Silent})
			s.Look(1)
			sleepFor(29 * time.Second)
			if len(h.reports()) != 1 {
				t.Fatalf("it speaks: %+v", h.reports())
			}
			sleepFor(time.Second)
			if got := h.last(t); got.Error == nil || got.Error.Kind != HelperSilent || !strings.Contains(got.Error.Message, "for 30s") {
				t.Errorf("%+v", got)
			}
			sleepFor(time.Hour)
			s.Look(2)
			if len(h.reports()) != 2 {
				t.Errorf("it speaks: %+v", h.reports())
			}
			inject(t, s, fault.Fault{Kind: fault.Speak})
			if got := h.last(t); got.Error != nil || len(got.Devices) != 2 || got.Look != 2 {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("DriverGoesAndComes", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			inject(t, s, fault.Fault{Kind: fault.DriverGone, For: job.Duration(time.Minute)})
			if got := h.last(t); got.Error == nil || got.Error.Kind != NoDriver || got.Devices != nil {
				t.Errorf("%+v", got)
			}
			s.Look(4)
			if h.last(t).Error == nil {
				t.Error("a look brings the driver back")
			}
			sleepFor(time.Minute)
			if got := h.last(t); got.Error != nil || len(got.Devices) != 2 || got.Look != 4 {
				t.Errorf("%+v", got)
			}
			inject(t, s, fault.Fault{Kind: fault.DriverGone})
			inject(t, s, fault.Fault{Kind: fault.DriverBack})
			if got := h.last(t); got.Error != nil {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("ClearOfAllEndsEverything", func(t *testing.T) {
		s := twoDevices()
		simulate(t, s, func(h *heard) {
			well := h.last(t).Devices
			for _, f := range []fault.Fault{
				{Kind: fault.Uncorrected, Device: "0"},
				{Kind: fault.Sick, Device: "all", Reason: "r"},
				{Kind: fault.Lost, Device: "1"},
				{Kind: fault.DriverGone},
				{Kind: fault.Silent},
				{Kind: fault.Clear, Device: "all"},
			} {
				inject(t, s, f)
			}
			if got := h.last(t); got.Error != nil || !reflect.DeepEqual(got.Devices, well) {
				t.Errorf("%+v", got)
			}
		})
	})
}

func TestScript(t *testing.T) {
	s := twoDevices()
	s.Script = []ScriptedFault{
		{After: time.Hour, Fault: fault.Fault{Kind: fault.Lost, Device: "0", For: job.Duration(time.Minute)}},
		{After: 2 * time.Hour, Fault: fault.Fault{Kind: fault.XID, Device: "1", XID: 48}},
	}
	simulate(t, s, func(h *heard) {
		sleepFor(time.Hour - 1)
		if len(h.reports()) != 1 {
			t.Fatalf("too soon: %+v", h.reports())
		}
		sleepFor(1)
		if got := h.last(t).Devices; len(got) != 1 {
			t.Errorf("%+v", got)
		}
		sleepFor(time.Minute)
		if got := h.last(t).Devices; len(got) != 2 {
			t.Errorf("%+v", got)
		}
		sleepFor(time.Hour - time.Minute)
		if got := h.last(t).Events; len(got) != 1 || got[0].XID != 48 {
			t.Errorf("%+v", got)
		}
	})
}

// Not in a bubble: the processes are real.
func TestProcessFault(t *testing.T) {
	s, m := twoDevices(), (*Manager)(nil)
	s.interval = time.Millisecond
	m = New("h", s, nil)
	stop := runManager(t, m)
	defer stop()
	within(t, "ready", m.Ready())
	var pids []int
	var ends []func()
	for range 2 {
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
		defer end()
		pids, ends = append(pids, cmd.Process.Pid), append(ends, end)
		if err := m.Inject(fault.Fault{Kind: fault.Process, Device: "1", PID: cmd.Process.Pid, MemoryBytes: 1 << 30}); err != nil {
			t.Fatal(err)
		}
	}
	one := func() Status { return m.Snapshot()[1] }
	want := []Process{{pids[0], 1 << 30}, {pids[1], 1 << 30}}
	if got := one(); !slices.Equal(got.Processes, want) || got.MemoryUsedBytes != 2<<30 || len(m.Snapshot()[0].Processes) != 0 {
		t.Errorf("%+v", got)
	}
	ends[0]()
	wait.For(t, time.Minute, func() error {
		if got := one(); !slices.Equal(got.Processes, want[1:]) || got.MemoryUsedBytes != 1<<30 {
			return fmt.Errorf("one of two has ended: %+v", got)
		}
		return nil
	})
	var p *fault.Problem
	if err := m.Inject(fault.Fault{Kind: fault.Process, Device: "1", PID: pids[0], MemoryBytes: 1}); !errors.As(err, &p) || p.Param != fault.ParamPID {
		t.Errorf("a process that has ended: %v", err)
	}
	ends[1]()
	wait.For(t, time.Minute, func() error {
		if got := one(); len(got.Processes) != 0 || got.MemoryUsedBytes != 0 {
			return fmt.Errorf("both have ended: %+v", got)
		}
		return nil
	})
}

func TestInjectRefuses(t *testing.T) {
	s := twoDevices()
	for name, c := range map[string]struct {
		fault fault.Fault
		want  string
	}{
		"UnknownIndex":    {fault.Fault{Kind: fault.Lost, Device: "2"}, ErrUnknown.Error()},
		"UnknownUUID":     {fault.Fault{Kind: fault.Lost, Device: "GPU-1"}, ErrUnknown.Error()},
		"AmbiguousUUID":   {fault.Fault{Kind: fault.Lost, Device: "GPU-sim"}, "begins the UUIDs of 2 devices"},
		"TooMuchMemory":   {fault.Fault{Kind: fault.Memory, Device: "0", MemoryBytes: 9 << 30}, "more than the 8589934592 bytes"},
		"MalformedFault":  {fault.Fault{Kind: fault.XID, Device: "0"}, "xid needs it"},
		"ProcessThatIsNo": {fault.Fault{Kind: fault.Process, Device: "0", PID: fault.PIDMax, MemoryBytes: 1}, "the host has no process"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.Inject(c.fault); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	t.Run("RealDevices", func(t *testing.T) {
		m := New("h", new(Helper), nil)
		f := fault.Fault{Kind: fault.Clear, Device: fault.AllDevices}
		if err := m.Inject(f); !errors.Is(err, ErrNotSimulated) {
			t.Errorf("got %v", err)
		}
		if _, err := m.Targets(f); !errors.Is(err, ErrNotSimulated) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ActionsAreTheDrivers", func(t *testing.T) {
		want := []RecoveryAction{RecoveryReset, RecoveryReboot, RecoveryDrainP2P, RecoveryDrainReset}
		for i, a := range fault.Recoveries {
			if len(fault.Recoveries) != len(want) || want[i] != RecoveryAction(a) {
				t.Errorf("%q, want %q", fault.Recoveries, want)
			}
		}
	})
}
