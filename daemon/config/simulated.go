package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gpuqd/daemon/fault"
	"gpuqd/daemon/job"
)

// simulatedFaultsMax bounds the faults that a configuration can have.
const simulatedFaultsMax = 64

// afterMax is the longest that a scripted fault lies ahead.
const afterMax = 24 * time.Hour

// SimulatedFault is a fault that strikes by itself.
type SimulatedFault struct {
	After       job.Duration `toml:"after,omitzero"` // the daemon's start
	fault.Fault              // its kind is the key fault
}

// SimulatedFaults are the tables [[device.simulated_faults]].
type SimulatedFaults []SimulatedFault

// UnmarshalTOML implements toml.Unmarshaler. Every table is read strictly, so that
// a fault is not another one for a key that was spelt wrong.
func (s *SimulatedFaults) UnmarshalTOML(value any) error {
	var tables []map[string]any
	switch v := value.(type) {
	case []map[string]any:
		tables = v
	case []any:
		for i, one := range v {
			table, ok := one.(map[string]any)
			if !ok {
				return fmt.Errorf("entry %d is no table: write %s", i+1, form(reflect.ValueOf(*s)))
			}
			tables = append(tables, table)
		}
	default:
		return fmt.Errorf("want %s", form(reflect.ValueOf(*s)))
	}
	*s = SimulatedFaults{}
	for i, table := range tables {
		var one SimulatedFault
		for _, key := range slices.Sorted(maps.Keys(table)) {
			if err := one.set(key, table[key]); err != nil {
				return fmt.Errorf("entry %d: %s: %w", i+1, key, err)
			}
		}
		*s = append(*s, one)
	}
	return nil
}

// set reads one key of a table.
func (f *SimulatedFault) set(key string, value any) error {
	into, ok := f.keys()[key]
	if !ok {
		return fmt.Errorf("there is no such key: want %s", strings.Join(slices.Sorted(maps.Keys(f.keys())), ", "))
	}
	number, isNumber := value.(int64)
	text, isText := value.(string)
	switch into := into.(type) {
	case encoding.TextUnmarshaler:
		if isText {
			return into.UnmarshalText([]byte(text))
		}
		return fmt.Errorf("want %s", form(reflect.ValueOf(job.Duration(0))))
	case *string:
		switch {
		case isText:
			*into = text
		case isNumber && into == &f.Device:
			*into = strconv.FormatInt(number, 10)
		default:
			return fmt.Errorf("want %s", form(reflect.ValueOf("")))
		}
	case *fault.Kind:
		if !isText {
			return fmt.Errorf("want %s", form(reflect.ValueOf("")))
		}
		*into = fault.Kind(text)
	case *bool:
		var ok bool
		if *into, ok = value.(bool); !ok {
			return fmt.Errorf("want %s", form(reflect.ValueOf(false)))
		}
	case *int:
		if !isNumber {
			return fmt.Errorf("want %s", form(reflect.ValueOf(0)))
		}
		*into = int(number)
	case *uint64:
		if !isNumber || number < 0 {
			return fmt.Errorf("want %s", form(reflect.ValueOf(uint64(0))))
		}
		*into = uint64(number)
	}
	return nil
}

// keys are where the keys of a table go.
func (f *SimulatedFault) keys() map[string]any {
	return map[string]any{
		"after": &f.After, fault.ParamKind: &f.Kind, fault.ParamDevice: &f.Device, fault.ParamXID: &f.XID, fault.ParamCount: &f.Count,
		fault.ParamMemory: &f.MemoryBytes, fault.ParamPID: &f.PID, fault.ParamAction: &f.Action, fault.ParamDegree: &f.Celsius,
		fault.ParamReason: &f.Reason, fault.ParamFor: &f.For, fault.ParamQuiet: &f.Quiet,
	}
}

// capabilityForm is how NVIDIA writes a compute capability.
var capabilityForm = regexp.MustCompile(`^[1-9][0-9]?\.[0-9]$`)

func (d Device) checkSimulated(v *checker) {
	number(v, "device.simulated_count", d.SimulatedCount, 0, 64)
	number(v, "device.simulated_memory_bytes", d.SimulatedMemoryBytes, 1<<20, 1<<44)
	v.list("device.simulated_nodes", d.SimulatedNodes, 0, 64)
	for _, node := range d.SimulatedNodes {
		v.path("device.simulated_nodes", node, false)
	}
	if d.SimulatedModel == "" || len(d.SimulatedModel) > 128 || !printable(d.SimulatedModel) {
		v.bad("device.simulated_model", "want 1 to 128 bytes of printable text")
	}
	if d.SimulatedComputeCapability != "" && !capabilityForm.MatchString(d.SimulatedComputeCapability) {
		v.bad("device.simulated_compute_capability", `%q is no compute capability: want two numbers, such as "9.0", or "" for none`, d.SimulatedComputeCapability)
	}
	number(v, "device.simulated_mig", d.SimulatedMIG, 0, 7)
	d.checkFaults(v)
	if d.Kind == DeviceSim && len(d.SimulatedNodes) > d.SimulatedCount {
		v.bad("device.simulated_nodes", "it has %d entries for %d devices (device.simulated_count): leave the rest out", len(d.SimulatedNodes), d.SimulatedCount)
	}
	if d.Kind != DeviceNVML {
		return
	}
	for _, k := range []struct {
		key string
		set bool
	}{
		{"device.simulated_nodes", len(d.SimulatedNodes) > 0},
		{"device.simulated_count", d.SimulatedCount != 0},
		{"device.simulated_compute_capability", d.SimulatedComputeCapability != ""},
		{"device.simulated_mig", d.SimulatedMIG != 0},
		{"device.simulated_faults", len(d.SimulatedFaults) > 0},
	} {
		if k.set {
			v.bad(k.key, `it is set, but device.kind is "nvml": set kind = "simulated", or leave this key out`)
		}
	}
}

func (d Device) checkFaults(v *checker) {
	const key = "device.simulated_faults"
	if len(d.SimulatedFaults) > simulatedFaultsMax {
		v.bad(key, "it has %d entries: want at most %d", len(d.SimulatedFaults), simulatedFaultsMax)
		return
	}
	for i, f := range d.SimulatedFaults {
		index, err := strconv.Atoi(f.Device)
		switch problem := f.Check(); {
		case problem != nil:
			v.bad(key, "entry %d: %v", i+1, problem)
		case f.After < 0 || f.After.Std() > afterMax:
			v.bad(key, "entry %d: after: want 0s to %s", i+1, plain(afterMax))
		case f.Kind == fault.Process:
			v.bad(key, "entry %d: no process has an ID before it starts: use gpuqctl simulate device, or the fault memory", i+1)
		case f.MemoryBytes > d.SimulatedMemoryBytes/uint64(max(1, d.SimulatedMIG)):
			v.bad(key, "entry %d: memory_bytes: %d is more than a device has (device.simulated_memory_bytes)", i+1, f.MemoryBytes)
		case f.Kind.Whole(), f.Device == fault.AllDevices:
		case err != nil || index < 0 || index >= d.SimulatedCount*max(1, d.SimulatedMIG):
			v.bad(key, "entry %d: device: %q is none: want an index from 0 to %d, or %q", i+1,
				f.Device, d.SimulatedCount*max(1, d.SimulatedMIG)-1, fault.AllDevices)
		}
	}
}
