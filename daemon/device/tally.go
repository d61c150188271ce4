package device

import "maps"

// tally counts what happens, for metrics.
type tally struct {
	xids         map[int]int // by code
	quarantines  map[QuarantineKind]int
	alarms       map[AlarmKind]int
	clean, dirty int    // checks, by their first look
	opens        [2]int // of breakers: of devices, of the host
}

func newTally() tally {
	return tally{xids: map[int]int{}, quarantines: map[QuarantineKind]int{}, alarms: map[AlarmKind]int{}}
}

// Tally is what has happened since this manager was made. Each figure only grows.
type Tally struct {
	XIDs                     map[int]int // by code, application errors and notices included
	Quarantines              map[QuarantineKind]int
	Alarms                   map[AlarmKind]int
	ChecksClean, ChecksDirty int // by what the first look saw
	DeviceBreakers           int // times that a device's opened
	HostBreakers             int // times that the host's opened
}

// Tally returns what has been counted.
func (m *Manager) Tally() Tally {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Tally{
		XIDs: maps.Clone(m.tally.xids), Quarantines: maps.Clone(m.tally.quarantines), Alarms: maps.Clone(m.tally.alarms),
		ChecksClean: m.tally.clean, ChecksDirty: m.tally.dirty,
		DeviceBreakers: m.tally.opens[0], HostBreakers: m.tally.opens[1],
	}
}

// Foreign returns how many processes are on devices that nobody may use them on, as
// of the last inventory.
func (m *Manager) Foreign() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		r := e.remaining()
		n += len(r.others) + len(r.strays)
	}
	return n
}

// OpenBreakers returns how many breakers of devices are not closed, and whether the
// host's is not: what they keep out gets one job on trial at most.
func (m *Manager) OpenBreakers() (devices int, host bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if !e.breaker.closed() {
			devices++
		}
	}
	return devices, !m.breaker.closed()
}
