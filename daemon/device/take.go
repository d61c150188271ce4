package device

import (
	"strings"
	"time"
)

// take brings one report into the picture.
func (m *Manager) take(r Report) {
	if r.Heartbeat {
		return // the source itself watches that it goes on
	}
	users := m.owners(r.Devices)
	kill, again := m.takeIn(r, users)
	m.save()
	m.end(kill, again)
	m.holdToShares(r.Devices, users)
}

// takeIn is take under m.mu. It returns the processes to end, and whether to look
// again soon.
func (m *Manager) takeIn(r Report, users map[string][]left) (kill []ProcessOwner, again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if r.Error == nil {
		m.learn(r, users, now) // first: the events may be about devices that are new
	}
	m.takeEvents(r.Events)
	switch {
	case r.Error != nil:
		m.complain(r)
		m.hearNothing(r.Error.Message)
	case r.Devices != nil:
		m.complain(r)
		kill, again = m.takeInventory(r, now)
	}
	if (r.Error != nil || r.Devices != nil) && !m.reported {
		m.reported = true
		close(m.ready)
		m.signal()
	}
	return kill, again
}

// hearNothing makes every device sick whose source knows nothing of it. Nobody looks
// at those that attempts have left. m.mu is held.
func (m *Manager) hearNothing(why string) {
	for _, e := range m.sorted() {
		e.unheard = why
		m.unlooked(e, why)
		m.settle(e)
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

// learn makes the devices of a full inventory known as they are now. m.mu is held.
func (m *Manager) learn(r Report, users map[string][]left, now time.Time) {
	for _, f := range r.Devices {
		e := m.entries[f.UUID]
		if e == nil {
			e = m.newEntry(f)
		}
		e.facts, e.users, e.sampled, e.lost, e.unheard, e.alarmed = f, users[f.UUID], now, false, "", false
		e.missing = m.missingNodes(f.Device)
	}
}

// takeInventory draws the conclusions of a full inventory. A device that was known
// and is not named any more is sick, not forgotten: an attempt may hold it, and a
// person must see that it is gone. m.mu is held.
func (m *Manager) takeInventory(r Report, now time.Time) (kill []ProcessOwner, again bool) {
	named := make(map[string]bool, len(r.Devices))
	for _, f := range r.Devices {
		e := m.entries[f.UUID]
		first := !e.seen
		named[f.UUID], e.seen = true, true
		if first && len(e.holders) == 0 {
			e.check = &check{since: now} // nobody knows what was on it before
		}
		m.takeECC(e, first, now)
		m.blame(e) // before the look ends a window
		ours, more := m.judge(e, r.Look, now)
		kill, again = append(kill, ours...), again || more
		if used := e.used(); e.check == nil && len(e.holders) == 0 && f.Sick == "" && (e.idle == nil || used < *e.idle) {
			e.idle = &used
		}
		m.settle(e)
		m.alarm(e)
	}
	for _, e := range m.sorted() {
		if !named[e.facts.UUID] {
			m.lose(e)
		}
	}
	return kill, again
}

// lose notes that a device is not in the inventory. m.mu is held.
func (m *Manager) lose(e *entry) {
	e.unheard, e.alarmed = "", false
	e.facts.MemoryUsedBytes, e.facts.Processes, e.users = 0, nil, nil
	if e.seen { // else an attempt was found on it, and nobody has seen it yet
		e.lost = true
	}
	m.blame(e)
	m.unlooked(e, "")
	m.settle(e)
	m.alarm(e)
}

// newEntry makes a device known, with what the file says of it. m.mu is held.
func (m *Manager) newEntry(f Facts) *entry {
	e := &entry{facts: f}
	m.entries[f.UUID] = e
	m.remember(e)
	return e
}
