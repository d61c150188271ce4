package config

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
)

const simulatedHead = "[device]\nkind = \"simulated\"\nsimulated_count = 2\n"

func TestSimulatedFaults(t *testing.T) {
	want := SimulatedFaults{
		{After: job.Duration(time.Minute), Fault: fault.Fault{Kind: fault.XID, Device: "0", XID: 79, Count: 2}},
		{Fault: fault.Fault{Kind: fault.Sick, Device: "all", Reason: "it smokes", For: job.Duration(time.Second)}},
		{Fault: fault.Fault{Kind: fault.Memory, Device: "1", MemoryBytes: 1 << 30}},
		{Fault: fault.Fault{Kind: fault.Silent}},
		{Fault: fault.Fault{Kind: fault.Uncorrected, Device: "1", Quiet: true}},
	}
	t.Run("AreReadFromTables", func(t *testing.T) {
		cfg := Default()
		d := decode("f", []byte(simulatedHead+`
[[device.simulated_faults]]
fault = "xid"
device = 0
xid = 79
count = 2
after = "1m"
[[device.simulated_faults]]
fault = "sick"
device = "all"
reason = "it smokes"
for = "1s"
[[device.simulated_faults]]
fault = "memory"
device = 1
memory_bytes = 1073741824
[[device.simulated_faults]]
fault = "silent"
[[device.simulated_faults]]
fault = "ecc_uncorrected"
device = 1
quiet = true
`), &cfg)
		if len(d.problems) > 0 || !reflect.DeepEqual(cfg.Device.SimulatedFaults, want) {
			t.Errorf("%v\n%+v", d.problems, cfg.Device.SimulatedFaults)
		}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
	})
	t.Run("AreWrittenAsTheyAreRead", func(t *testing.T) {
		cfg, back := Default(), Default()
		cfg.Device.SimulatedFaults = want
		var text bytes.Buffer
		if err := toml.NewEncoder(&text).Encode(cfg); err != nil {
			t.Fatal(err)
		}
		if d := decode("f", text.Bytes(), &back); len(d.problems) > 0 || !reflect.DeepEqual(back, cfg) {
			t.Errorf("%v\n%s", d.problems, text.String())
		}
	})
	for name, c := range map[string]struct{ entry, want string }{
		"NotAList":         {`3`, "device.simulated_faults: want tables, such as"},
		"NotTables":        {`[1]`, "entry 1 is no table"},
		"UnknownKey":       {`[{ fault = "lost", device = 0 }, { fault = "xid", device = 0, xld = 79 }]`, "entry 2: xld: there is no such key: want action, after,"},
		"UnknownFault":     {`[{ fault = "fire", device = 0 }]`, `entry 1: fault: there is no fault "fire": want xid,`},
		"FaultIsANumber":   {`[{ fault = 1, device = 0 }]`, "entry 1: fault: want a text"},
		"ReasonIsANumber":  {`[{ fault = "sick", device = 0, reason = 1 }]`, "entry 1: reason: want a text"},
		"CodeIsAText":      {`[{ fault = "xid", device = 0, xid = "79" }]`, "entry 1: xid: want a whole number"},
		"QuietIsAText":     {`[{ fault = "ecc_uncorrected", device = 0, quiet = "yes" }]`, "entry 1: quiet: want true or false"},
		"NoCode":           {`[{ fault = "xid", device = 0 }]`, "entry 1: xid: xid needs it: want 1 to 999"},
		"NegativeMemory":   {`[{ fault = "memory", device = 0, memory_bytes = -1 }]`, "entry 1: memory_bytes: want a whole number, not negative"},
		"TooMuchMemory":    {`[{ fault = "memory", device = 0, memory_bytes = 85899345921 }]`, "is more than a device has"},
		"BareDuration":     {`[{ fault = "lost", device = 0, for = 3 }]`, "entry 1: for: want a number with its unit"},
		"BadDuration":      {`[{ fault = "lost", device = 0, for = "3" }]`, "entry 1: for:"},
		"AfterIsTooLong":   {`[{ fault = "lost", device = 0, after = "25h" }]`, "entry 1: after: want 0s to 24h"},
		"AfterIsNegative":  {`[{ fault = "lost", device = 0, after = "-1s" }]`, "entry 1: after:"},
		"NoSuchDevice":     {`[{ fault = "lost", device = 2 }]`, `entry 1: device: "2" is none: want an index from 0 to 1, or "all"`},
		"DeviceByItsUUID":  {`[{ fault = "lost", device = "GPU-sim" }]`, `"GPU-sim" is none`},
		"ProcessHasNoID":   {`[{ fault = "process", device = 0, pid = 4711, memory_bytes = 1 }]`, "use gpuqctl simulate device"},
		"DriverOfADevice":  {`[{ fault = "driver_gone", device = 0 }]`, "entry 1: device: driver_gone concerns all devices"},
		"TooMany":          {"[" + strings.Repeat(`{ fault = "lost", device = 0 },`, 65) + "]", "it has 65 entries: want at most 64"},
		"ParameterTooMany": {`[{ fault = "lost", device = 0, xid = 79 }]`, "entry 1: xid: lost has none: leave it out"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Default()
			d := decode("f", []byte(simulatedHead+"simulated_faults = "+c.entry), &cfg)
			check := checker{broken: d.broken}
			cfg.check(&check)
			err := d.join(check.problems)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	t.Run("InstancesAreDevices", func(t *testing.T) {
		cfg := Default()
		cfg.Device.Kind, cfg.Device.SimulatedCount, cfg.Device.SimulatedMIG = DeviceSim, 2, 7
		cfg.Device.SimulatedFaults = SimulatedFaults{{Fault: fault.Fault{Kind: fault.Lost, Device: "13"}}}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
		cfg.Device.SimulatedFaults[0].Device = "14"
		if err := cfg.Validate(); err == nil {
			t.Error("there are 14 instances, and 14 is the index of one")
		}
	})
}
