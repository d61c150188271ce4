package main

import (
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxb200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	"gpuqd/daemon/device"
)

func TestInventoryDescribesEachMachine(t *testing.T) {
	for _, c := range []struct {
		name       string
		lib        *server.Server
		model      string // a part of it
		capability string
	}{
		{"DGXA100", dgxa100.New(), "A100", "8.0"},
		{"DGXH100", dgxh100.New(), "H100", "9.0"},
		{"DGXH200", dgxh200.New(), "H200", "9.0"},
		{"DGXB200", dgxb200.New(), "B200", "10.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			beats := 0
			sampler := testSampler(t, complete(c.lib))
			sampler.beat = func() { beats++ }
			r := sampler.inventory()
			if r.Error != nil || len(r.Problems) > 0 || len(r.Devices) != 8 || beats == 0 {
				t.Fatalf("got %+v and %d beats, want 8 devices, a beat at least, and no complaint", r, beats)
			}
			uuids := map[string]bool{}
			for i, d := range r.Devices {
				mock := c.lib.Devices[i].(*server.Device)
				want := device.Device{
					UUID: mock.UUID, Index: i, Model: mock.Config.Name, MinorNumber: mock.Minor,
					MemoryBytes: mock.MemoryInfo.Total, PCIAddress: "0000:00:00.0",
					NUMANode: device.UnknownIndex, ComputeCapability: c.capability,
				}
				if !reflect.DeepEqual(d.Device, want) || d.Sick != "" || !strings.Contains(d.Model, c.model) {
					t.Errorf("device %d is %+v, want %+v", i, d, want)
				}
				uuids[d.UUID] = true
			}
			if len(uuids) != 8 {
				t.Errorf("%d different UUIDs, want 8", len(uuids))
			}
		})
	}
}

// testSampler returns a sampler that finds nothing of this machine.
func testSampler(t *testing.T, lib nvml.Interface) *sampler {
	t.Helper()
	s := newSampler(lib, time.Minute, func() {}, func(gpu) {})
	s.paths = paths{pciDevices: t.TempDir(), migMinors: filepath.Join(t.TempDir(), "mig-minors")}
	return s
}

// sampleOne returns what becomes of device 2 when it is changed by spoil after a
// first, good inventory.
func sampleOne(t *testing.T, spoil func(*server.Server, *server.Device)) device.Facts {
	t.Helper()
	lib := complete(dgxa100.New())
	s := testSampler(t, lib)
	before := s.inventory()
	spoil(lib, lib.Devices[2].(*server.Device))
	r := s.inventory()
	if len(r.Devices) != 8 || len(r.Problems) > 0 {
		t.Fatalf("%d devices and problems %q, want 8 and none", len(r.Devices), r.Problems)
	}
	for i, d := range r.Devices {
		if i != 2 && d.Sick != "" {
			t.Errorf("device %d is sick (%s) though 2 alone was changed", i, d.Sick)
		}
	}
	if !reflect.DeepEqual(r.Devices[2].Device, before.Devices[2].Device) {
		t.Errorf("device 2 was %+v and is %+v", before.Devices[2].Device, r.Devices[2].Device)
	}
	return r.Devices[2]
}

func TestInventoryOfADeviceThat(t *testing.T) {
	t.Run("IsUsedNamesTheProcessesOnce", func(t *testing.T) {
		got := sampleOne(t, func(_ *server.Server, d *server.Device) {
			d.MemoryInfo.Used = 77
			d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
				return []nvml.ProcessInfo{{Pid: 20, UsedGpuMemory: 50}, {Pid: 10, UsedGpuMemory: 5}}, nvml.SUCCESS
			}
			d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
				return []nvml.ProcessInfo{{Pid: 20, UsedGpuMemory: 50}, {Pid: 30, UsedGpuMemory: math.MaxUint64}}, nvml.SUCCESS
			}
		})
		want := []device.Process{{PID: 10, MemoryUsedBytes: 5}, {PID: 20, MemoryUsedBytes: 50}, {PID: 30}}
		if got.MemoryUsedBytes != 77 || !reflect.DeepEqual(got.Processes, want) || got.Sick != "" {
			t.Errorf("got %+v, want %d bytes used by %v", got, 77, want)
		}
	})
	t.Run("CannotBeOpenedKeepsItsName", func(t *testing.T) {
		got := sampleOne(t, func(lib *server.Server, d *server.Device) {
			open := lib.DeviceGetHandleByIndexFunc
			lib.DeviceGetHandleByIndexFunc = func(i int) (nvml.Device, nvml.Return) {
				if i == 2 {
					return nil, nvml.ERROR_GPU_IS_LOST
				}
				return open(i)
			}
		})
		if !strings.Contains(got.Sick, "restart the host") || !got.Lost {
			t.Errorf("sick as %q (lost: %t), want it lost, and what to do", got.Sick, got.Lost)
		}
	})
	t.Run("DoesNotSayItsNameKeepsIt", func(t *testing.T) {
		got := sampleOne(t, func(_ *server.Server, d *server.Device) {
			d.GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
		})
		if !strings.Contains(got.Sick, "read the UUID") || !got.Lost {
			t.Errorf("sick as %q (lost: %t), want it lost, and what was asked", got.Sick, got.Lost)
		}
	})
	t.Run("NeedsAResetSaysSo", func(t *testing.T) {
		got := sampleOne(t, func(_ *server.Server, d *server.Device) {
			d.GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
				return nil, nvml.ERROR_RESET_REQUIRED
			}
		})
		if !strings.Contains(got.Sick, "--gpu-reset") || !got.Lost {
			t.Errorf("sick as %q (lost: %t), want it lost, and how to reset it", got.Sick, got.Lost)
		}
	})
	t.Run("IsInMIGModeWithoutInstancesSaysWhatToDo", func(t *testing.T) {
		got := sampleOne(t, func(_ *server.Server, d *server.Device) { d.MigMode = nvml.DEVICE_MIG_ENABLE })
		if !strings.Contains(got.Sick, "nvidia-smi mig -cgi") || got.Lost {
			t.Errorf("sick as %q, want what to do", got.Sick)
		}
	})
	t.Run("HasNoMIGOrListsIsWell", func(t *testing.T) {
		got := sampleOne(t, func(_ *server.Server, d *server.Device) {
			d.GetMigModeFunc = func() (int, int, nvml.Return) { return 0, 0, nvml.ERROR_NOT_SUPPORTED }
			d.GetGraphicsRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) {
				return nil, nvml.ERROR_NOT_SUPPORTED
			}
		})
		if got.Sick != "" {
			t.Errorf("sick as %q, want well", got.Sick)
		}
	})
}

func TestInventoryWritesPCIAddressesAsTheKernelDoes(t *testing.T) {
	lib := complete(dgxa100.New())
	lib.Devices[1].(*server.Device).GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) {
		return nvml.PciInfo{Domain: 0x1, Bus: 0xca, Device: 0x1f}, nvml.SUCCESS
	}
	if got := testSampler(t, lib).inventory().Devices[1].PCIAddress; got != "0001:ca:1f.0" {
		t.Errorf("got %s, want 0001:ca:1f.0", got)
	}
}

func TestInventoryNamesADeviceThatWasNeverKnownAsAProblem(t *testing.T) {
	lib := complete(dgxa100.New())
	lib.Devices[5].(*server.Device).GetUUIDFunc = func() (string, nvml.Return) { return "", nvml.ERROR_UNKNOWN }
	r := testSampler(t, lib).inventory()
	if len(r.Devices) != 7 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "device 5") {
		t.Errorf("%d devices and problems %q, want 7 and one of device 5", len(r.Devices), r.Problems)
	}
	if slices.ContainsFunc(r.Devices, func(f device.Facts) bool { return f.Index == 5 }) {
		t.Error("device 5 is listed without a name")
	}
}

func TestInventoryOfNoDevicesIsEmptyAndNotNothing(t *testing.T) {
	lib := complete(dgxa100.New())
	lib.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
	if r := testSampler(t, lib).inventory(); r.Devices == nil || len(r.Devices) != 0 || r.Error != nil {
		t.Errorf("got %+v, want an empty inventory", r)
	}
}
