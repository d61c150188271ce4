package gpucheck

import (
	"reflect"
	"strings"
	"testing"

	"gpuqd/daemon/device"
)

const (
	table = `0, GPU-aa, NVIDIA A100-SXM4-40GB, 40960, 00000000:07:00.0, Enabled, 570.86.15
1, GPU-bb, NVIDIA A100-SXM4-40GB, 40960, 00000001:0F:00.0, Disabled, 570.86.15
2, GPU-cc, NVIDIA T4, 15360, 00000000:AF:00.0, [N/A], 570.86.15
`
	list = `GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa)
  MIG 3g.20gb     Device  0: (UUID: MIG-11)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-22)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bb)
GPU 2: NVIDIA T4 (UUID: GPU-cc)
`
)

func parsed(t *testing.T) []smiGPU {
	t.Helper()
	all, err := parseTable(table)
	if err == nil {
		err = addInstances(all, list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatNvidiaSMIPrintsIsRead(t *testing.T) {
	want := []smiGPU{
		{
			index: 0, uuid: "GPU-aa", name: "NVIDIA A100-SXM4-40GB", memoryMiB: 40960, pci: "0000:07:00.0", migEnabled: true, driver: "570.86.15",
			instances: []smiInstance{{"MIG-11", "3g.20gb"}, {"MIG-22", "1g.5gb+me"}},
		},
		{index: 1, uuid: "GPU-bb", name: "NVIDIA A100-SXM4-40GB", memoryMiB: 40960, pci: "0001:0f:00.0", driver: "570.86.15"},
		{index: 2, uuid: "GPU-cc", name: "NVIDIA T4", memoryMiB: 15360, pci: "0000:af:00.0", driver: "570.86.15"},
	}
	if got := parsed(t); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	for _, text := range []string{"No devices were found\n", "0, GPU-aa, X\n", strings.Replace(table, "40960", "[N/A]", 1)} {
		if all, err := parseTable(text); err == nil {
			t.Errorf("%q is read as %+v", text, all)
		}
	}
	for _, text := range []string{"", "GPU 0: X (UUID: GPU-zz)\n", "  MIG 1g.5gb Device 0: (UUID: MIG-1)\n", list + "more\n", list + "GPU 3: X (UUID: GPU-dd)\n"} {
		all, err := parseTable(table)
		if err == nil {
			err = addInstances(all, text)
		}
		if err == nil {
			t.Errorf("%q fits the table", text)
		}
	}
}

func TestComparisonTellsEachDifference(t *testing.T) {
	all := func() []device.Status {
		gpu := func(index int, uuid, model string, mib uint64, pci string) device.Status {
			return device.Status{State: device.Free, Device: device.Device{Index: index, UUID: uuid, Model: model, MemoryBytes: mib<<20 + 12345, PCIAddress: pci}}
		}
		part := func(uuid, profile string) device.Status {
			return device.Status{State: device.Free, Device: device.Device{UUID: uuid, ParentUUID: "GPU-aa", MIGProfile: profile}}
		}
		return []device.Status{
			part("MIG-11", "3g.20gb"), part("MIG-22", "1g.5gb+me"),
			gpu(1, "GPU-bb", "NVIDIA A100-SXM4-40GB", 40960, "0001:0f:00.0"), gpu(2, "GPU-cc", "NVIDIA T4", 15360, "0000:af:00.0"),
		}
	}
	used := all()
	used[3].State, used[3].Reason, used[3].Processes = device.Sick, "in use by process 5", []device.Process{{PID: 5}}
	if differences := compare(used, parsed(t)); differences != nil {
		t.Errorf("a device that somebody uses is one: %v", differences)
	}
	for want, spoil := range map[string]func(got []device.Status) []device.Status{
		"": func(got []device.Status) []device.Status { return got },
		"GPU-bb: the index is 7, nvidia-smi says 1":                             func(got []device.Status) []device.Status { got[2].Index = 7; return got },
		"GPU-cc: the name is X, nvidia-smi says NVIDIA T4":                      func(got []device.Status) []device.Status { got[3].Model = "X"; return got },
		"GPU-cc: the memory in MiB is 1, nvidia-smi says 15360":                 func(got []device.Status) []device.Status { got[3].MemoryBytes = 1 << 20; return got },
		"GPU-cc: the PCI address is 0000:01:00.0, nvidia-smi says 0000:af:00.0": func(got []device.Status) []device.Status { got[3].PCIAddress = "0000:01:00.0"; return got },
		"GPU-cc is sick: lost": func(got []device.Status) []device.Status {
			got[3].State, got[3].Reason = device.Sick, "lost"
			return got
		},
		"nvidia-smi has GPU-cc (NVIDIA T4), gpuqd-device has not":                       func(got []device.Status) []device.Status { return got[:3] },
		"nvidia-smi has the instance MIG-11 (3g.20gb of GPU-aa), gpuqd-device has not":  func(got []device.Status) []device.Status { return got[1:] },
		`MIG-22: profile "7g" of GPU "GPU-aa", nvidia-smi says "1g.5gb+me" of "GPU-aa"`: func(got []device.Status) []device.Status { got[1].MIGProfile = "7g"; return got },
		"gpuqd-device has GPU-dd (), nvidia-smi has not": func(got []device.Status) []device.Status {
			return append(got, device.Status{Device: device.Device{UUID: "GPU-dd"}})
		},
		"GPU-aa is in MIG mode, and is a device that is free": func(got []device.Status) []device.Status {
			return append(got, device.Status{State: device.Free, Device: device.Device{UUID: "GPU-aa"}})
		},
	} {
		differences := compare(spoil(all()), parsed(t))
		if want == "" && differences != nil || want != "" && (len(differences) != 1 || differences[0].Error() != want) {
			t.Errorf("%v, want %q", differences, want)
		}
	}
}
