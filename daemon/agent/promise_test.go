package agent

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"gpuqd/daemon/device"
	"gpuqd/daemon/placement"
)

func takeOf(share uint64, uuids ...string) placement.Take {
	return placement.Take{Devices: uuids, Share: share}
}

// allFree has every device of that memory, held by nobody.
func allFree(bytes uint64) func(string) (device.Candidate, bool) {
	return func(string) (device.Candidate, bool) { return device.Candidate{RoomBytes: bytes}, true }
}

func TestPromisedDevicesAreSetAsideUntilUnpromised(t *testing.T) {
	s, room := newRuns(), allFree(10)
	if !s.promise(takeOf(0, "a", "b"), 0, room) || !s.promise(takeOf(0, "c"), 0, room) {
		t.Error("free devices were not promised")
	}
	if s.promise(takeOf(0, "d", "a"), 0, room) || s.promise(takeOf(1, "a"), 0, room) {
		t.Error("a device was promised to two takes")
	}
	s.unpromise(takeOf(0, "a", "b"))
	for uuid, want := range map[string]bool{"a": false, "b": false, "c": true, "d": false} {
		if got := s.promisedOf(uuid); got.whole != want || got.bytes != 0 {
			t.Errorf("%s: promised is %+v, want whole: %t", uuid, got, want)
		}
	}
	if got := s.slotsUsed(); got != 0 {
		t.Errorf("promises of devices use %d slots", got)
	}
}

// TestPromisedSharesFitTheirDevice, whatever is promised and unpromised in whatever
// order; a whole device is promised once, and to nobody who has a part of it.
func TestPromisedSharesFitTheirDevice(t *testing.T) {
	uuids := []string{"a", "b"}
	rapid.Check(t, func(t *rapid.T) {
		s := newRuns()
		room := map[string]device.Candidate{"a": {RoomBytes: 10}, "b": {RoomBytes: 7, Shared: true}}
		var promised []placement.Take
		t.Repeat(map[string]func(*rapid.T){
			"promise": func(t *rapid.T) {
				take := takeOf(rapid.Uint64Range(0, 11).Draw(t, "share"), rapid.SampledFrom(uuids).Draw(t, "uuid"))
				of := func(u string) (device.Candidate, bool) { c, ok := room[u]; return c, ok }
				var sum uint64
				whole, any := false, false
				for _, p := range promised {
					if p.Devices[0] == take.Devices[0] {
						sum, whole, any = sum+p.Share, whole || p.Share == 0, true
					}
				}
				c := room[take.Devices[0]]
				want := !whole && sum+take.Share <= c.RoomBytes && (take.Share > 0 || !any && !c.Shared)
				if got := s.promise(take, 0, of); got != want {
					t.Fatalf("promise %+v beside %+v: %t", take, promised, got)
				}
				if want {
					promised = append(promised, take)
				}
			},
			"unpromise": func(t *rapid.T) {
				if len(promised) == 0 {
					return
				}
				i := rapid.IntRange(0, len(promised)-1).Draw(t, "which")
				s.unpromise(promised[i])
				promised = slices.Delete(promised, i, i+1)
			},
		})
	})
}

// TestDeviceThatCannotBeHadIsNotPromised: the view may be older than the device.
func TestDeviceThatCannotBeHadIsNotPromised(t *testing.T) {
	s := newRuns()
	none := func(string) (device.Candidate, bool) { return device.Candidate{}, false }
	shared := func(string) (device.Candidate, bool) {
		return device.Candidate{RoomBytes: 5, Shared: true}, true
	}
	if s.promise(takeOf(0, "a"), 0, none) || s.promise(takeOf(1, "a"), 0, none) {
		t.Error("a device that is none to be had was promised")
	}
	if s.promise(takeOf(0, "a"), 0, shared) || s.promise(takeOf(6, "a"), 0, shared) || !s.promise(takeOf(5, "a"), 0, shared) {
		t.Error("a shared device was promised as a whole, or beyond its room, or not at all")
	}
}
