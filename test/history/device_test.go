package history

import "gpuqd/daemon/job"

// runsPart is runs with a part of the device.
func (s *tale) runsPart(host string, j job.ID, bytes uint64, device string) *tale {
	s.runs(host, j, device)
	for i := range s.events {
		if e := &s.events[i]; e.Kind == Began && e.Job == j && e.Host == host {
			e.Share = bytes
		}
	}
	return s
}

// ofTen sets the site to devices of 10 bytes.
func ofTen(s *tale) *tale {
	s.rules.DeviceBytes = map[string]uint64{"a": 10, "b": 10}
	return s
}

// deviceChapters: what of devices is given to whom.
func deviceChapters() []chapter {
	return []chapter{
		{name: "PartsThatFitTogether", tell: func(s *tale) {
			ofTen(s).submitted("j").submitted("k").runsPart("a", "j", 6, "g0").runsPart("a", "k", 4, "g0")
			s.succeeds("a", "j").succeeds("a", "k")
		}},
		{name: "PartsOneAfterTheOther", tell: func(s *tale) {
			ofTen(s).submitted("j").submitted("k").runsPart("a", "j", 6, "g0").succeeds("a", "j").runsPart("a", "k", 6, "g0").succeeds("a", "k")
		}},
		{name: "PartsOfTwoDevices", tell: func(s *tale) {
			ofTen(s).submitted("j").submitted("k").runsPart("a", "j", 6, "g0").runsPart("a", "k", 6, "g1").succeeds("a", "j").succeeds("a", "k")
		}},
		{name: "PartsBeyondTheDevice", broken: "device_shared", tell: func(s *tale) {
			ofTen(s).submitted("j").submitted("k").submitted("l")
			s.runsPart("a", "j", 4, "g0").runsPart("a", "k", 4, "g0").runsPart("a", "l", 4, "g0")
			s.succeeds("a", "j").succeeds("a", "k").succeeds("a", "l")
		}},
		{name: "PartOfAFrozenOneCounts", broken: "device_shared", tell: func(s *tale) {
			ofTen(s).submitted("j").submitted("k").runsPart("a", "j", 6, "g0").breaks("cut_wire", "a").freezes("a", "j")
			s.runsPart("a", "k", 6, "g0").succeeds("a", "k").thaws("a", "j").succeeds("a", "j")
		}},
		{name: "WholeDeviceOfWhichAnotherHasAPart", broken: "device_shared", tell: func(s *tale) {
			ofTen(s).submitted("j").submitted("k").runsPart("a", "j", 1, "g0").runs("a", "k", "g0").succeeds("a", "j").succeeds("a", "k")
		}},
		{name: "PartOfADeviceThatIsHeldWhole", broken: "device_shared", tell: func(s *tale) {
			ofTen(s).submitted("j").submitted("k").runs("a", "j", "g0").runsPart("a", "k", 1, "g0").succeeds("a", "j").succeeds("a", "k")
		}},
		{name: "RunsWhereItAsks", tell: func(s *tale) {
			s.rules.Serve = map[job.ID][]string{"j": {"a", "b"}}
			s.submitted("j").runs("b", "j", "g0").succeeds("b", "j")
		}},
		{name: "RunsWhereItCannot", broken: "misplaced", tell: func(s *tale) {
			s.rules.Serve = map[job.ID][]string{"j": {"a"}}
			s.submitted("j").submitted("k").runs("b", "j", "g0").runs("c", "k", "g0").succeeds("b", "j").succeeds("c", "k")
		}},
	}
}
