package device

import (
	"slices"
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
		{Device: Device{UUID: "e", MinorNumber: UnknownIndex}},
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
		if got := m.Nodes(c.uuids, c.patterns); !slices.Equal(got, c.want) {
			t.Errorf("%v and %v: %v, want %v", c.uuids, c.patterns, got, c.want)
		}
	}
}
