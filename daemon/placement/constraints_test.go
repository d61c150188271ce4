package placement

import (
	"slices"
	"testing"

	"gpuqd/daemon/job"
)

func classed(gpus int, class string) job.Shape {
	s := shape("a", job.Normal, gpus)
	s.Class = class
	return s
}

var (
	a100x40 = Device{UUID: "a100-40", Index: 0, Model: "NVIDIA A100-SXM4-40GB", MemoryBytes: 42_314_694_656, ComputeCapability: "8.0"}
	a100x80 = Device{UUID: "a100-80", Index: 1, Model: "NVIDIA A100-SXM4-80GB", MemoryBytes: 85_520_809_984, ComputeCapability: "8.0"}
	h100    = Device{UUID: "h100", Index: 2, Model: "NVIDIA H100 80GB HBM3", MemoryBytes: 85_520_809_984, ComputeCapability: "9.0"}
)

func left(d Device, room uint64) Device {
	d.RoomBytes = room
	return d
}

// TestDevicesAreChosenTightly: what asks for little leaves what others need.
func TestDevicesAreChosenTightly(t *testing.T) {
	free := []Device{h100, a100x80, a100x40}
	for _, c := range []struct {
		name         string
		shape        job.Shape
		free, shared []Device
		want         []string
	}{
		{"anything is the least", classed(1, "any"), free, nil, []string{"a100-40"}},
		{"memory as cards are named", classed(1, "mem80"), free, nil, []string{"a100-80"}},
		{"more than any card", classed(1, "mem81"), free, nil, nil},
		{"a model", classed(1, "model-h100"), free, nil, []string{"h100"}},
		{"a model of words", classed(1, "model-a100-sxm4-80gb"), free, nil, []string{"a100-80"}},
		{"a capability", classed(1, "cc9-0"), free, nil, []string{"h100"}},
		{"two of them", classed(2, "mem80"), free, nil, []string{"a100-80", "h100"}},
		{"more than there are", classed(2, "cc9-0"), free, nil, nil},
		{"one whose capability nobody knows", classed(1, "cc1-0"), []Device{{UUID: "x", MemoryBytes: 80 << 30}}, nil, nil},
		{"a part of a free one", classed(1, "share12"), free, nil, []string{"a100-40"}},
		{"a part of a shared one first", classed(1, "share12"), free, []Device{left(h100, 20<<30)}, []string{"h100"}},
		{"where the least is left", classed(1, "share12"), free, []Device{left(h100, 20<<30), left(a100x80, 12<<30)}, []string{"a100-80"}},
		{"where enough is left", classed(1, "share12"), nil, []Device{left(h100, 12<<30-1)}, nil},
		{"a free one where too little is left", classed(1, "share40"), free, []Device{left(h100, 12<<30)}, []string{"a100-80"}},
		{"a part of what is of a kind", classed(1, "cc9-0_share12"), []Device{a100x40}, []Device{left(a100x80, 70<<30), left(h100, 70<<30)}, []string{"h100"}},
		{"more than a device has in all", classed(1, "share80"), free, nil, nil},
		{"shared ones are not whole", classed(1, "any"), nil, []Device{left(h100, 80<<30)}, nil},
		{"what cannot be read", classed(1, "time3600"), free, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := View{Pools: []string{"a"}, Queues: []job.Shape{c.shape}, Free: c.free, Shared: c.shared}
			takes := Plan(v)
			if c.want == nil {
				if len(takes) > 0 {
					t.Errorf("got %+v", takes)
				}
				return
			}
			for _, take := range takes {
				if !slices.Equal(take.Devices, c.want) {
					t.Errorf("got %q, want %q", take.Devices, c.want)
				}
			}
			if len(takes) != 2 {
				t.Errorf("got %+v", takes)
			}
		})
	}
}

// TestNarrowShapesComeFirst: of those as large, the one that fewer devices serve.
func TestNarrowShapesComeFirst(t *testing.T) {
	order := []job.Shape{
		classed(2, "any"), classed(1, "model-h100_mem80"), classed(1, "mem80"), classed(1, "mem40"), classed(1, "any"),
		classed(1, "share40"), classed(1, "cc9-0_share12"), classed(1, "share12"), classed(0, "any"),
	}
	for i, a := range order {
		for k, b := range order {
			if Before(a, b) != (i < k) {
				t.Errorf("%s before %s: %t", a, b, Before(a, b))
			}
		}
	}
}

func TestTightFits(t *testing.T) {
	v := View{Free: []Device{a100x40, h100}, Shared: []Device{left(a100x80, 12<<30)}}
	for class, want := range map[string]bool{
		"any": false, "mem80": true, "share12": true, "share13": false, "model-h100": true, "model-v100": false, "time3600": false,
	} {
		if got := Tight(classed(1, class), v); got != want {
			t.Errorf("%s: %t", class, got)
		}
	}
	if !Tight(classed(2, "any"), v) {
		t.Error("two devices of two are not tight")
	}
}

// kinds is a live host of pool a with these devices.
func kinds(name string, devices ...HostDevice) Host {
	h := Host{Name: name, Pools: []string{"a"}, Devices: devices}
	for i := range h.Devices {
		h.Devices[i].Name = string(rune('0' + i))
	}
	return h
}

func in(state string, d Device) HostDevice {
	h := HostDevice{Device: d, State: state}
	if state == "shared" {
		h.State, h.Shared = "busy", true
	}
	return h
}

func TestExplainNamesTheConstraint(t *testing.T) {
	sick := in("sick", h100)
	sick.Reason = "XID 79."
	for _, c := range []struct {
		name, class string
		hosts       []Host
		want        string
	}{
		{
			"no such memory", "mem80",
			[]Host{kinds("gpu1", in("free", a100x40), in("busy", a100x40)), kinds("gpu2")},
			"waits for a device with at least 80 GiB: no live host of pool a has one; " +
				"gpu1 has no such device of 2 (0, 1: 39.4 GiB of memory), gpu2 has no devices",
		},
		{
			"no such model", "model-h100_mem80_cc9-0",
			[]Host{kinds("gpu1", in("free", a100x80)), kinds("gpu2", in("free", Device{Model: "NVIDIA H100 PCIe", MemoryBytes: 80 << 30}))},
			"waits for a device of model h100 with at least 80 GiB and compute capability 9.0: no live host of pool a has one; " +
				"gpu1 has no such device of 1 (0: NVIDIA A100-SXM4-80GB), gpu2 has no such device of 1 (0: compute capability not known)",
		},
		{
			"such devices are busy", "mem80",
			[]Host{kinds("gpu1", in("free", a100x40), in("busy", a100x80), sick)},
			"waits for 1 free device with at least 80 GiB of one host in pool a: " +
				"gpu1 has 0 of 2 such devices free (1 busy; 1 sick: device 2, XID 79)",
		},
		{
			"no room", "share12",
			[]Host{kinds("gpu1", in("shared", left(a100x40, 4<<30)), in("busy", a100x80), sick)},
			"waits for room on a device with at least 12 GiB to share in pool a: " +
				"gpu1 has room for 12 GiB on 0 of 3 devices (0: 4 GiB left; 1: held as a whole; 2: sick, XID 79)",
		},
		{
			"never room", "share60",
			[]Host{kinds("gpu1", in("free", a100x40))},
			"waits for a device with at least 60 GiB to share: no live host of pool a has one; gpu1 has no such device of 1 (0: 39.4 GiB of memory)",
		},
		{
			"room", "share12",
			[]Host{kinds("gpu1", in("shared", left(a100x40, 14<<30)), in("busy", a100x80))},
			"waits for its turn: gpu1 has room for 12 GiB on 1 of 2 devices (1: held as a whole)",
		},
		{
			"those that ever can come first", "mem80",
			[]Host{kinds("gpu1", in("free", a100x40)), kinds("gpu2", in("free", a100x40)), kinds("gpu3", in("free", a100x40)), kinds("gpu4", in("busy", h100))},
			"waits for 1 free device with at least 80 GiB of one host in pool a: gpu4 has 0 of 1 device free (1 busy), " +
				"gpu1 has no such device of 1 (0: 39.4 GiB of memory), gpu2 has no such device of 1 (0: 39.4 GiB of memory), 1 more host",
		},
		{
			"of a newer release", "time3600",
			[]Host{kinds("gpu1", in("free", h100))},
			"waits for a host of the release that took it in: this daemon's cannot read what it asks for (class time3600)",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Explain(classed(1, c.class), c.hosts).Clause; got != c.want {
				t.Errorf("it %s\nwant: %s", got, c.want)
			}
		})
	}
}
