package device

import "slices"

// Candidate is a device that an attempt can get now, whole or in part.
type Candidate struct {
	Device
	// RoomBytes of its memory are not granted: all of a device that nobody holds.
	RoomBytes uint64
	// Shared is set where other attempts have parts of it: it cannot be had whole.
	Shared bool
}

// Candidates returns the devices that Acquire would grant now, the shared ones for
// a part that fits into their room, by index. A device that is sick, cordoned, being
// checked or held as a whole is none.
func (m *Manager) Candidates() []Candidate {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settleAll()
	w := m.weather()
	var list []Candidate
	for _, e := range m.entries {
		if c, ok := e.candidate(w); ok {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Candidate) int { return order(a.Device, b.Device) })
	return list
}

// Room is Candidates for one device; ok is false where it is none.
func (m *Manager) Room(uuid string) (c Candidate, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[uuid]; e != nil {
		m.settle(e)
		return e.candidate(m.weather())
	}
	return Candidate{}, false
}

// MemoryBytes returns a device's memory; 0 where nobody knows.
func (m *Manager) MemoryBytes(uuid string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[uuid]; e != nil {
		return e.facts.MemoryBytes
	}
	return 0
}

func (e *entry) candidate(w weather) (c Candidate, ok bool) {
	c.Device = e.facts.Device
	switch e.state {
	case Free:
		c.RoomBytes = e.facts.MemoryBytes
		return c, true
	case Busy:
		if e.waits(w) != "" {
			return c, false
		}
		granted, may := e.shared()
		c.Shared = true
		if may && granted < e.facts.MemoryBytes {
			c.RoomBytes = e.facts.MemoryBytes - granted
		}
		return c, c.RoomBytes > 0
	}
	return c, false
}

// SharedBytes returns how much of the device's memory is granted in parts; 0 where
// nobody holds it, or one attempt all of it.
func (s Status) SharedBytes() (granted uint64) {
	for _, h := range s.Holders {
		if h.MemoryBytes == 0 {
			return 0
		}
		granted += h.MemoryBytes
	}
	return granted
}
