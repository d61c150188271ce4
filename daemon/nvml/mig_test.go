package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"gpuqd/daemon/device"
)

// migMinors is an excerpt of the kernel module's file, as NVIDIA's MIG user guide
// shows it.
const migMinors = `config 1
monitor 2
gpu0/gi1/access 12
gpu0/gi1/ci0/access 13
gpu2/gi7/access 327
gpu2/gi7/ci0/access 328
gpu2/gi11/access 363
gpu2/gi11/ci0/access 364
gpu2/gi11/ci1/access many
`

// migDevice is a MIG instance of the mock.
func migDevice(uuid, name string, gi, ci int, memory uint64) *mock.Device {
	none := func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.SUCCESS }
	return &mock.Device{
		GetUUIDFunc:              func() (string, nvml.Return) { return uuid, nvml.SUCCESS },
		GetNameFunc:              func() (string, nvml.Return) { return name, nvml.SUCCESS },
		GetGpuInstanceIdFunc:     func() (int, nvml.Return) { return gi, nvml.SUCCESS },
		GetComputeInstanceIdFunc: func() (int, nvml.Return) { return ci, nvml.SUCCESS },
		GetMemoryInfoFunc:        func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: memory, Used: 1}, nvml.SUCCESS },
		GetMemoryInfo_v2Func:     func() (nvml.Memory_v2, nvml.Return) { return nvml.Memory_v2{}, unsupported },

		GetComputeRunningProcessesFunc:    none,
		GetGraphicsRunningProcessesFunc:   none,
		GetMPSComputeRunningProcessesFunc: none,
	}
}

// withMIG returns a server whose device 2 has instances in slots 1, 3 and 4.
func withMIG(t *testing.T) (*server.Server, *sampler, map[int]*mock.Device) {
	t.Helper()
	lib := complete(dgxh100.New())
	const model = "NVIDIA H100 80GB HBM3"
	instances := map[int]*mock.Device{
		1: migDevice("MIG-x", model+" MIG 3g.40gb", 11, 0, 40),
		3: migDevice("MIG-y", model+" MIG 1g.10gb+me", 7, 0, 10),
		4: migDevice("MIG-z", model, 11, 1, 40),
	}
	d := lib.Devices[2].(*server.Device)
	tellAll(d)
	d.MigMode = nvml.DEVICE_MIG_ENABLE
	d.GetMigDeviceHandleByIndexFunc = func(slot int) (nvml.Device, nvml.Return) {
		if i, ok := instances[slot]; ok {
			return i, nvml.SUCCESS
		}
		return nil, nvml.ERROR_NOT_FOUND
	}
	s := testSampler(t, lib)
	if err := os.WriteFile(s.paths.migMinors, []byte(migMinors), 0o644); err != nil {
		t.Fatal(err)
	}
	return lib, s, instances
}

func TestInventoryOfMIGInstancesHasEachAsADevice(t *testing.T) {
	lib, s, _ := withMIG(t)
	r := s.inventory()
	parent := lib.Devices[2].(*server.Device)
	want := device.Device{
		UUID: "MIG-x", ParentUUID: parent.UUID, MIGProfile: "3g.40gb", Index: 3110, Model: parent.Config.Name, MemoryBytes: 40,
		PCIAddress: "0000:00:00.0", MinorNumber: 2, NUMANode: device.UnknownIndex, ComputeCapability: "9.0",
		CapabilityNodes: []string{"/dev/nvidia-caps/nvidia-cap363", "/dev/nvidia-caps/nvidia-cap364"},
	}
	x := of(r, "MIG-x")
	if !reflect.DeepEqual(x.Device, want) || x.MemoryUsedBytes != 1 || x.Sick != "" {
		t.Errorf("MIG-x is %+v (%s), want %+v", x.Device, x.Sick, want)
	}
	if x.UtilisationPercent != nil || *x.TemperatureCelsius != 61 || x.ECC.Uncorrected != 2 || x.Recovery != device.RecoveryDrainReset {
		t.Errorf("MIG-x fares as %+v, want as its GPU, but for the utilisation", x.Condition)
	}
	if y := of(r, "MIG-y"); y.Index != 3070 || y.MIGProfile != "1g.10gb+me" || len(y.CapabilityNodes) != 2 {
		t.Errorf("MIG-y is %+v", y.Device)
	}
	z := of(r, "MIG-z")
	if z.Index != 3111 || z.MIGProfile != "" || !slices.Equal(z.CapabilityNodes, []string{"/dev/nvidia-caps/nvidia-cap363"}) {
		t.Errorf("MIG-z is %+v, want no profile, and the one file that is known", z.Device)
	}
	if len(r.Devices) != 7+3 || of(r, parent.UUID).UUID != "" {
		t.Errorf("%d devices, want the 7 other GPUs and 3 instances", len(r.Devices))
	}
	indexes := map[int]bool{}
	for _, f := range r.Devices {
		indexes[f.Index] = true
	}
	if len(indexes) != len(r.Devices) {
		t.Errorf("%d indexes of %d devices", len(indexes), len(r.Devices))
	}
}

func TestInventoryOfMIGInstances(t *testing.T) {
	t.Run("OfALostGPUKeepsThemAllSick", func(t *testing.T) {
		lib, s, _ := withMIG(t)
		before := s.inventory()
		lib.Devices[2].(*server.Device).GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
		after := s.inventory()
		for _, uuid := range []string{"MIG-x", "MIG-y", "MIG-z"} {
			got := of(after, uuid)
			if !reflect.DeepEqual(got.Device, of(before, uuid).Device) || !strings.Contains(got.Sick, "restart the host") {
				t.Errorf("%s is %+v, want itself, sick", uuid, got)
			}
		}
	})
	t.Run("OfWhichOneFailsHasThatAloneSick", func(t *testing.T) {
		_, s, instances := withMIG(t)
		instances[3].GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_UNKNOWN }
		r := s.inventory()
		if of(r, "MIG-y").Sick == "" || of(r, "MIG-x").Sick != "" || of(r, "MIG-z").Sick != "" {
			t.Errorf("got %+v, want MIG-y alone sick", r.Devices)
		}
	})
	t.Run("OfWhichOneGoesLeavesTheOthersTheirIndex", func(t *testing.T) {
		_, s, instances := withMIG(t)
		s.inventory()
		delete(instances, 1)
		r := s.inventory()
		if of(r, "MIG-x").UUID != "" || of(r, "MIG-y").Index != 3070 || of(r, "MIG-z").Index != 3111 {
			t.Errorf("got %+v, want MIG-y and MIG-z as before", r.Devices)
		}
	})
	t.Run("OfAGPUInTroubleHasThemAllSick", func(t *testing.T) {
		lib, s, _ := withMIG(t)
		lib.Devices[2].(*server.Device).GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) {
			return 0, nvml.ERROR_RESET_REQUIRED
		}
		for _, f := range s.inventory().Devices {
			if (f.ParentUUID != "") != (f.Sick != "") {
				t.Errorf("%s is sick as %q", f.UUID, f.Sick)
			}
		}
	})
	t.Run("WithoutTheKernelsFileHaveNoNodes", func(t *testing.T) {
		_, s, _ := withMIG(t)
		s.paths.migMinors = filepath.Join(t.TempDir(), "absent")
		if x := of(s.inventory(), "MIG-x"); x.CapabilityNodes != nil || x.Sick != "" {
			t.Errorf("MIG-x is %+v, want well, without nodes", x)
		}
	})
}

func TestInventoryTellsTheNUMANode(t *testing.T) {
	for text, want := range map[string]int{"1\n": 1, "-1\n": device.UnknownIndex, "none": device.UnknownIndex, "": device.UnknownIndex} {
		s := testSampler(t, complete(dgxh100.New()))
		if text != "" {
			dir := filepath.Join(s.paths.pciDevices, "0000:00:00.0")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "numa_node"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.inventory().Devices[0].NUMANode; got != want {
			t.Errorf("%q is node %d, want %d", text, got, want)
		}
	}
}
