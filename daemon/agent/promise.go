package agent

import (
	"gpuqd/daemon/device"
	"gpuqd/daemon/placement"
)

// promised is what takes under way may get of one device: all of it, which one take
// can be promised, or bytes of its memory together.
type promised struct {
	whole bool
	bytes uint64
}

// promise sets a take's devices, or one of the host's slots where it needs none,
// aside for it. It returns false, and promises nothing, where another take was first,
// or room says that a device cannot be had so any more. A run that comes of a take
// has its devices before the promise ends.
func (s *runs) promise(t placement.Take, slots int, room func(uuid string) (device.Candidate, bool)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(t.Devices) == 0 {
		if s.slotsTaken() >= slots {
			return false
		}
		s.slots++
		return true
	}
	for _, uuid := range t.Devices {
		c, ok := room(uuid)
		if before := s.promised[uuid]; !ok || before.whole || !before.leaves(t.Share, c) {
			return false
		}
	}
	for _, uuid := range t.Devices {
		p := s.promised[uuid]
		p.whole, p.bytes = t.Share == 0, p.bytes+t.Share
		s.promised[uuid] = p
	}
	return true
}

// leaves reports whether a share, or with 0 the whole device, is left of what can be
// had of a device.
func (p promised) leaves(share uint64, c device.Candidate) bool {
	if share == 0 {
		return p.bytes == 0 && !c.Shared
	}
	return share <= c.RoomBytes && p.bytes <= c.RoomBytes-share
}

// unpromise ends promise; a run that came of it holds the devices by itself.
func (s *runs) unpromise(t placement.Take) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, uuid := range t.Devices {
		p := s.promised[uuid]
		p.bytes -= t.Share
		if p.bytes == 0 {
			delete(s.promised, uuid)
			continue
		}
		s.promised[uuid] = p
	}
	if len(t.Devices) == 0 {
		s.slots--
	}
}

// promisedOf returns what takes under way may get of a device.
func (s *runs) promisedOf(uuid string) promised {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.promised[uuid]
}

func (a *Agent) promise(t placement.Take) bool {
	return a.runs.promise(t, a.cfg.Host.SlotsWithoutGPU, a.devices.Room)
}

// offered adds what can be had of this host's devices now to a view, less what is
// promised of them.
func (a *Agent) offered(v *placement.View, promisedOf func(uuid string) promised) {
	for _, c := range a.devices.Candidates() {
		p := promisedOf(c.UUID)
		if p.whole || a.drains.onDevice(c.UUID) != nil {
			continue
		}
		d := placed(c.Device)
		if !c.Shared && p.bytes == 0 {
			v.Free = append(v.Free, d)
			continue
		}
		if c.RoomBytes > p.bytes {
			d.RoomBytes = c.RoomBytes - p.bytes
			v.Shared = append(v.Shared, d)
		}
	}
}

// placed is a device as placing needs to know it.
func placed(d device.Device) placement.Device {
	if bugged(KindUnread) {
		return placement.Device{UUID: d.UUID, Index: d.Index, Model: "A100 H100", MemoryBytes: 1 << 40, ComputeCapability: "99.0"}
	}
	return placement.Device{
		UUID: d.UUID, Index: d.Index, Model: d.Model, MemoryBytes: d.MemoryBytes, ComputeCapability: d.ComputeCapability,
	}
}
