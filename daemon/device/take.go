package device

import "strings"

// take brings one report into the picture.
func (m *Manager) take(r Report) {
	if r.Heartbeat {
		return // the source itself watches that it goes on
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Error != nil || r.Devices != nil {
		m.complain(r)
	}
	if r.Error != nil {
		for _, e := range m.entries {
			e.sick = r.Error.Message
			m.settle(e)
		}
	} else if r.Devices != nil {
		m.takeInventory(r.Devices)
	}
	if !m.reported && (r.Error != nil || r.Devices != nil) {
		m.reported = true
		close(m.ready)
		m.signal()
	}
}

// complain keeps and logs what is wrong with the source itself, once per change.
// m.mu is held.
func (m *Manager) complain(r Report) {
	problem := strings.Join(r.Problems, "; ")
	if r.Error != nil {
		problem = r.Error.Message
	}
	if problem == m.problem {
		return
	}
	m.problem = problem
	if problem == "" {
		m.log.Info("device source is well again")
		return
	}
	m.log.Warn("device source has a problem", "err", problem)
}

// takeInventory makes the devices of a full inventory known. One that was known
// and is not named any more is sick, not forgotten: an attempt may hold it, and a
// person must see that it is gone. m.mu is held.
func (m *Manager) takeInventory(inventory []Facts) {
	named := make(map[string]bool, len(inventory))
	for _, f := range inventory {
		named[f.UUID] = true
		e := m.entries[f.UUID]
		if e == nil {
			e = &entry{}
			m.entries[f.UUID] = e
		}
		e.facts, e.sick, e.seen = f, f.Sick, true
		e.missing = m.missingNodes(f.Device)
		m.settle(e)
	}
	for uuid, e := range m.entries {
		if named[uuid] {
			continue
		}
		e.sick = "lost: the driver does not report it any more; look at the kernel log, then reset the device or restart the host"
		e.facts.MemoryUsedBytes, e.facts.Processes = 0, nil
		m.settle(e)
	}
}
