package device

import "fmt"

// holdToShares compares what the processes of a shared device's attempts use of its
// memory with their shares. One look may have met memory that was about to be given
// back, so an attempt is ended when two looks in a row have found it over its share;
// the second is asked for at once. m.mu is not held: a source may answer in here.
func (m *Manager) holdToShares(inventory []Facts, users map[string][]left) {
	if inventory == nil {
		return // the report says nothing of them
	}
	used := map[attemptKey]uint64{}
	for _, uuid := range m.sharers(inventory) {
		for _, p := range users[uuid] {
			if p.known && p.owner.JobID != "" {
				used[attemptKey{p.owner.JobID, p.owner.Attempt}] += p.MemoryUsedBytes
			}
		}
	}
	if m.judgeShares(used) {
		m.look(func() bool { return true }) // without a Looker the next inventory is the second look
	}
}

// sharers returns the devices of an inventory on which somebody has a share and a
// process, by UUID.
func (m *Manager) sharers(inventory []Facts) (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range inventory {
		e := m.entries[f.UUID]
		if e == nil || len(e.holders) == 0 || len(f.Processes) == 0 {
			continue
		}
		if _, may := e.shared(); may {
			list = append(list, f.UUID)
		}
	}
	return list
}

// judgeShares raises the alarm for attempts that use more than their share for the
// second time in a row. It reports whether one does for the first time.
func (m *Manager) judgeShares(used map[attemptKey]uint64) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.over
	m.over = map[attemptKey]bool{}
	for _, e := range m.entries {
		for _, h := range e.holders {
			key := attemptKey{h.JobID, h.Attempt}
			use := used[key] + used[attemptKey{h.JobID, 0}] // of some only the job is known
			if h.MemoryBytes == 0 || use <= h.MemoryBytes {
				continue
			}
			m.over[key] = true
			if !before[key] {
				again = true
				continue
			}
			m.raise(Alarm{JobID: h.JobID, Attempt: h.Attempt, Kind: AlarmMemory, Detail: overuse(e, h, use)})
		}
	}
	return again
}

// overuse says what an attempt did, and what its submitter can do.
func overuse(e *entry, h Holder, used uint64) string {
	const mib = 1 << 20
	return fmt.Sprintf("its processes used %d MiB of device %s, where it had asked for %d MiB of the %d MiB that it shares with others: "+
		"submit it with a larger gpu_memory, or have it use less (it finds its share in GPUQ_GPU_MEMORY_BYTES)",
		(used+mib-1)/mib, e.facts.UUID, h.MemoryBytes/mib, e.facts.MemoryBytes/mib)
}
