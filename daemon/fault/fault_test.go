package fault

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"gpuqd/daemon/job"
)

// good has a fault of each kind with all that it may have.
var good = map[Kind]Fault{
	XID:         {Device: "0", XID: 79, Count: 3},
	Uncorrected: {Device: "all", Count: 2, Quiet: true},
	Lost:        {Device: "GPU-sim-1", For: job.Duration(time.Second)},
	Back:        {Device: "1"},
	Recovery:    {Device: "1", Action: "gpu_reset"},
	Memory:      {Device: "1", MemoryBytes: 3 << 30},
	Process:     {Device: "1", PID: 4711, MemoryBytes: 5 << 20, For: job.Duration(time.Hour)},
	Throttle:    {Device: "1", Reason: "hot"},
	Temperature: {Device: "1", Celsius: 95},
	Sick:        {Device: "1", Reason: "it smokes"},
	Clear:       {Device: "all"},
	DriverGone:  {For: job.Duration(time.Second)},
	DriverBack:  {Device: "all"},
	Silent:      {},
	Speak:       {},
}

func TestCheck(t *testing.T) {
	t.Run("EveryKindHasAFormAndAnExample", func(t *testing.T) {
		if len(Kinds) != len(forms) || len(Kinds) != len(good) {
			t.Errorf("%d kinds, %d forms, %d examples", len(Kinds), len(forms), len(good))
		}
		for _, k := range Kinds {
			f := good[k]
			f.Kind = k
			if err := f.Check(); err != nil || k.Does() == "" {
				t.Errorf("%s: %v; it does %q", f, err, k.Does())
			}
		}
	})
	t.Run("EveryParameterThatAKindHasNoUseForIsRefused", func(t *testing.T) {
		full := Fault{
			XID: 1, Count: 1, Quiet: true, MemoryBytes: 1, PID: 1, Action: "gpu_reset", Celsius: 1, Reason: "r", For: job.Duration(time.Second),
		}
		for _, k := range Kinds {
			full.Kind, full.Device = k, AllDevices
			var p *Problem
			if err := full.Check(); !errors.As(err, &p) || p.Text != string(k)+" has none: leave it out" {
				t.Errorf("%s: %v", k, err)
			}
		}
	})
	t.Run("EveryParameterThatAKindNeedsIsAskedFor", func(t *testing.T) {
		for k, how := range forms {
			if len(how.needs) == 0 {
				continue
			}
			var p *Problem
			if err := (Fault{Kind: k, Device: "0"}).Check(); !errors.As(err, &p) || !slices.Contains(how.needs, p.Param) {
				t.Errorf("%s: %v", k, err)
			}
		}
	})
	for name, c := range map[string]struct {
		fault Fault
		param string
	}{
		"UnknownKind":         {Fault{Kind: "fire", Device: "0"}, ParamKind},
		"NoDevice":            {Fault{Kind: Lost}, ParamDevice},
		"DriverOfOneDevice":   {Fault{Kind: DriverGone, Device: "0"}, ParamDevice},
		"XIDTooHigh":          {Fault{Kind: XID, Device: "0", XID: XIDMax + 1}, ParamXID},
		"NegativeXID":         {Fault{Kind: XID, Device: "0", XID: -1}, ParamXID},
		"CountTooHigh":        {Fault{Kind: XID, Device: "0", XID: 79, Count: CountMax + 1}, ParamCount},
		"TooMuchMemory":       {Fault{Kind: Memory, Device: "0", MemoryBytes: MemoryBytesMax + 1}, ParamMemory},
		"UnknownAction":       {Fault{Kind: Recovery, Device: "0", Action: "pray"}, ParamAction},
		"TooHot":              {Fault{Kind: Temperature, Device: "0", Celsius: CelsiusMax + 1}, ParamDegree},
		"ReasonOfTwoLines":    {Fault{Kind: Sick, Device: "0", Reason: "a\nb"}, ParamReason},
		"ReasonOfBlanks":      {Fault{Kind: Sick, Device: "0", Reason: "  "}, ParamReason},
		"NegativeTime":        {Fault{Kind: Lost, Device: "0", For: -1}, ParamFor},
		"TooLong":             {Fault{Kind: Lost, Device: "0", For: job.Duration(ForMax + 1)}, ParamFor},
		"ProcessWithoutAPID":  {Fault{Kind: Process, Device: "0", MemoryBytes: 1}, ParamPID},
		"ProcessIDTooHigh":    {Fault{Kind: Process, Device: "0", MemoryBytes: 1, PID: PIDMax + 1}, ParamPID},
		"ProcessWithNoMemory": {Fault{Kind: Process, Device: "0", PID: 1}, ParamMemory},
	} {
		t.Run(name, func(t *testing.T) {
			var p *Problem
			if err := c.fault.Check(); !errors.As(err, &p) || p.Param != c.param {
				t.Errorf("got %v, want a problem of %s", err, c.param)
			}
		})
	}
}

func TestString(t *testing.T) {
	got := map[Kind]string{}
	for k, f := range good {
		f.Kind = k
		got[k] = f.String()
	}
	want := map[Kind]string{
		XID: "xid 79, 3 times", Uncorrected: "ecc_uncorrected, 2 times, seen with the next look", Lost: "lost, for 1s", Back: "back",
		Recovery: "recovery gpu_reset", Memory: "memory 3 GiB", Process: "process 4711 5 MiB, for 1h0m0s",
		Throttle: `throttle "hot"`, Temperature: "temperature 95 C", Sick: `sick "it smokes"`, Clear: "clear",
		DriverGone: "driver_gone, for 1s", DriverBack: "driver_back", Silent: "silent", Speak: "speak",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
