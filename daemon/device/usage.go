package device

import "time"

// ObserveGaps has tell told, at each grant of a device that was held before, how
// long nobody held it. tell must not block or call the manager. Call it before Run.
func (m *Manager) ObserveGaps(tell func(gap time.Duration)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gap = tell
}

// Spent returns how long this manager's devices have been in each state, added
// up over the devices. It only grows.
func (m *Manager) Spent() map[State]time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	total := make(map[State]time.Duration, len(States))
	for state, d := range m.spent {
		total[state] = d
	}
	for _, e := range m.entries {
		total[e.state] += now.Sub(e.since)
	}
	return total
}

// spend adds a stretch that a device was in a state. m.mu is held.
func (m *Manager) spend(state State, d time.Duration) {
	if state != "" { // the state before its first is none
		m.spent[state] += d
	}
}
