package device

import (
	"slices"
	"strings"
	"testing"
)

// A job gets the device files of what it was granted, those that the operator gives
// to all, and of both only what is a device file here.
func TestNodes(t *testing.T) {
	m := New("h", nil, nil)
	m.take(Report{Version: WireVersion, Devices: []Facts{
		{Device: Device{UUID: "a", Simulated: true, Node: "/dev/null", MinorNumber: UnknownIndex}},
		{Device: Device{UUID: "b", Simulated: true, Node: "/dev/zero", MinorNumber: UnknownIndex}},
		{Device: Device{UUID: "c", Simulated: true, MinorNumber: UnknownIndex}},
		{Device: Device{UUID: "d", Simulated: true, Node: "/etc/passwd", MinorNumber: UnknownIndex}},
		{Device: Device{UUID: "e", Simulated: true, MinorNumber: UnknownIndex}},
	}})
	for _, c := range []struct {
		uuids, patterns, want []string
	}{
		{nil, nil, nil},
		{[]string{"b", "a"}, nil, []string{"/dev/null", "/dev/zero"}},
		{[]string{"b", "c", "d", "e", "unknown"}, nil, []string{"/dev/zero"}},
		{[]string{"a"}, []string{"/dev/ful[l]", "/dev/null", "/dev/no-such*"}, []string{"/dev/full", "/dev/null"}},
		{nil, []string{"/dev/full"}, []string{"/dev/full"}},
	} {
		if got, err := m.Nodes(c.uuids, c.patterns); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v and %v: %v, %v, want %v", c.uuids, c.patterns, got, err, c.want)
		}
	}
}

// A real device is of use only to who can open its files. The driver makes them
// late, or not at all.
func TestDeviceWithoutItsFileIsSickAndStartsNothing(t *testing.T) {
	there := map[string]bool{"/dev/nvidiactl": true, "/dev/nvidia-uvm": true, "/dev/nvidia0": true, "/dev/nvidia-caps/nvidia-cap3": true}
	gpu := Device{UUID: "gpu", MinorNumber: 0}
	other := Device{UUID: "other", MinorNumber: 7}
	unknown := Device{UUID: "unknown", MinorNumber: UnknownIndex}
	instance := Device{
		UUID: "MIG-1", ParentUUID: "gpu", MinorNumber: 0,
		CapabilityNodes: []string{"/dev/nvidia-caps/nvidia-cap3", "/dev/nvidia-caps/nvidia-cap4"},
	}
	m := New("h", nil, nil)
	m.isDevice = func(path string) bool { return there[path] }
	look := func() {
		m.take(Report{Version: WireVersion, Devices: []Facts{{Device: gpu}, {Device: other}, {Device: unknown}, {Device: instance}}})
	}
	look()
	for uuid, want := range map[string]string{
		"gpu":     "",
		"other":   "/dev/nvidia7 is missing: nvidia-modprobe -c 7",
		"unknown": "minor number",
		"MIG-1":   "/dev/nvidia-caps/nvidia-cap4 is missing: nvidia-modprobe -f",
	} {
		s := m.find(uuid)
		if (s.State == Sick) != (want != "") || !strings.Contains(s.Reason, want) {
			t.Errorf("%s is %s: %s; want %q", uuid, s.State, s.Reason, want)
		}
		nodes, err := m.Nodes([]string{"gpu", uuid}, nil)
		if want == "" && (err != nil || !slices.Equal(nodes, []string{"/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"})) {
			t.Errorf("%s: %v, %v", uuid, nodes, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), uuid)) {
			t.Errorf("%s: %v, %v; want %q", uuid, nodes, err, want)
		}
	}

	there["/dev/nvidia7"], there["/dev/nvidia-caps/nvidia-cap4"] = true, true
	look()
	for uuid, want := range map[string][]string{
		"other": {"/dev/nvidia-uvm", "/dev/nvidia7", "/dev/nvidiactl"},
		"MIG-1": {"/dev/nvidia-caps/nvidia-cap3", "/dev/nvidia-caps/nvidia-cap4", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"},
	} {
		if s := m.find(uuid); s.State != Free {
			t.Errorf("%s is %s once its files are there: %s", uuid, s.State, s.Reason)
		}
		if nodes, err := m.Nodes([]string{uuid}, nil); err != nil || !slices.Equal(nodes, want) {
			t.Errorf("%s: %v, %v; want %v", uuid, nodes, err, want)
		}
	}

	clear(there) // as under WSL, or with a library that makes devices up
	look()
	for _, s := range m.Snapshot() {
		nodes, err := m.Nodes([]string{s.UUID}, nil)
		if s.State != Free || err != nil || len(nodes) > 0 {
			t.Errorf("without any device file %s is %s: %s; its files: %v, %v", s.UUID, s.State, s.Reason, nodes, err)
		}
	}
}

// Where a job opens only what it was given, it cannot make the file of unified
// memory, as the first CUDA program after a boot does elsewhere.
func TestDeviceWithoutUnifiedMemoryIsSickWhereJobsAreHeldToTheirFiles(t *testing.T) {
	there := map[string]bool{"/dev/nvidiactl": true, "/dev/nvidia0": true}
	for _, closed := range []bool{false, true} {
		m := NewWith("h", nil, Options{Closed: closed})
		m.isDevice = func(path string) bool { return there[path] }
		look := func() Status {
			m.take(Report{Version: WireVersion, Devices: []Facts{{Device: Device{UUID: "gpu"}}}})
			return m.find("gpu")
		}
		if s := look(); (s.State == Sick) != closed || strings.Contains(s.Reason, "nvidia-modprobe -c 0 -u") != closed {
			t.Errorf("held to its files is %t: %s: %s", closed, s.State, s.Reason)
		}
		there["/dev/nvidia-uvm"] = true
		if s := look(); s.State != Free {
			t.Errorf("%s once it is there: %s", s.State, s.Reason)
		}
		delete(there, "/dev/nvidia-uvm")
	}
}
