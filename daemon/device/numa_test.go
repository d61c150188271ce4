package device

import (
	"slices"
	"testing"
)

func TestNUMANodesAreThoseOfAllDevicesOrNone(t *testing.T) {
	m := New("h", nil, nil)
	m.take(Report{Version: WireVersion, Devices: []Facts{
		{Device: Device{UUID: "a", NUMANode: 1}},
		{Device: Device{UUID: "b", NUMANode: 0}},
		{Device: Device{UUID: "c", NUMANode: 1}},
		{Device: Device{UUID: "d", NUMANode: UnknownIndex}},
	}})
	for _, c := range []struct {
		uuids []string
		want  []int
	}{
		{nil, nil},
		{[]string{"a"}, []int{1}},
		{[]string{"a", "b", "c"}, []int{0, 1}},
		{[]string{"a", "d"}, nil},
		{[]string{"a", "unknown"}, nil},
	} {
		if got := m.NUMANodes(c.uuids); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.uuids, got, c.want)
		}
	}
}
